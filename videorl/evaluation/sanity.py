"""Whether a reward model sees what it should: what is spoiled on purpose must score lower."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from videorl.data.clips import Key
from videorl.data.score_reading import ScoredClips
from videorl.errors import ConfigError
from videorl.evaluation.spoiling import AS_IS, SPOILINGS, key_of, other_prompts
from videorl.evaluation.statistics import Interval, paired_bootstrap
from videorl.evaluation.text_table import text_table
from videorl.types import Score


@dataclass(frozen=True, slots=True)
class Finding:
    """What a spoiling did to the scores of a model."""

    model: str
    about: str
    scored_by: str
    """The model's dimensions, joined with +."""
    spoiling: str
    num_clips: int
    num_skipped: int
    """Clips without a score, as they are or spoiled, or without a prompt to exchange."""
    change: Interval | None
    """Mean of spoiled less as it is, prompts resampled; None = no clip has both scores."""

    @property
    def verdict(self) -> str:
        """`sees it`, `does not see it` (the interval holds 0), `prefers it`, or `unknown`."""
        if self.change is None:
            return "unknown"
        if self.change.high < 0:
            return "sees it"
        return "prefers it" if self.change.low > 0 else "does not see it"


def findings(
    keys: Sequence[Key],
    scored: ScoredClips,
    mapping: Mapping[str, tuple[str, ...]],
    seed: int = 0,
) -> list[Finding]:
    """Return what each spoiling did to the scores.

    Args:
        keys: Of the clips that were spoiled.
        scored: The scores of `spoiled(source, seed)`.
        mapping: VQ, MQ and TA -> the model's dimensions that stand for it, or `total`.
        seed: That of `spoiled`.
    """
    others = other_prompts([prompt for _, prompt in keys], seed)
    found: list[Finding] = []
    for way in SPOILINGS:
        names = mapping.get(way.about, ("total",))
        values: dict[str, list[tuple[float, float]]] = defaultdict(list)
        num_skipped = 0
        for key in keys:
            if way.spoil is None and not key[1].strip():
                num_skipped += 1  # it keeps its empty prompt, so that nothing was spoiled
                continue
            before = scored.of(key_of(key, AS_IS, others))
            after = scored.of(key_of(key, way.name, others))
            if isinstance(before, Score) and isinstance(after, Score):
                values[key[1]].append((_sum(before, names), _sum(after, names)))
            else:
                num_skipped += 1
        change = None
        if values:
            change = paired_bootstrap(
                [fmean(before for before, _ in pairs) for pairs in values.values()],
                [fmean(after for _, after in pairs) for pairs in values.values()],
            )
        num_clips = sum(map(len, values.values()))
        found.append(
            Finding(
                scored.label, way.about, "+".join(names), way.name, num_clips, num_skipped, change
            )
        )
    return found


def _sum(score: Score, names: Sequence[str]) -> float:
    """Return the sum of dimensions; raises ConfigError if the model has no such dimension."""
    if tuple(names) == ("total",):
        return score.total
    if missing := [name for name in names if name not in score.dimensions]:
        raise ConfigError(
            f"the model has no dimension {missing[0]!r}; it has {', '.join(score.dimensions)}"
        )
    return sum(score.dimensions[name] for name in names)


def format_findings(found: Sequence[Finding]) -> str:
    """Return a table of the findings, and a sentence on every model that fails a check."""
    head = ("model", "", "scored by", "spoiled by", "clips", "change of the score", "")
    lines = text_table([head, *(_row(finding) for finding in found)])
    return "\n".join([lines, *_sentences(found)])


def _row(finding: Finding) -> tuple[str, ...]:
    change = finding.change
    text = "-" if change is None else f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
    count = str(finding.num_clips)
    if finding.num_skipped:
        count += f" ({finding.num_skipped} left out)"
    head = (finding.model, finding.about, finding.scored_by, finding.spoiling)
    return (*head, count, text, finding.verdict)


def _sentences(found: Sequence[Finding]) -> list[str]:
    """Return what to know before a policy learns from these rewards."""
    sentences: list[str] = []
    for finding in found:
        if finding.verdict == "prefers it":
            sentences.append(
                f"{finding.model} scores {finding.spoiling} HIGHER ({finding.scored_by}): a policy "
                "that learns from it is taught that"
            )
        elif finding.verdict == "does not see it" and finding.about == "TA":
            sentences.append(
                f"{finding.model} does not tell prompts apart ({finding.scored_by}): it rewards "
                "nothing of what a prompt asks for, on these clips"
            )
        elif finding.verdict == "does not see it":
            sentences.append(
                f"{finding.model} does not see {finding.spoiling} ({finding.scored_by}), on these "
                f"{finding.num_clips} clips"
            )
    return sentences


def to_json(found: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings for a JSON file."""
    return {"results": [{**asdict(finding), "verdict": finding.verdict} for finding in found]}
