"""`videorl doctor --sanity`: whether a recipe's reward models see what is spoiled on purpose."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.findings import Finding

if TYPE_CHECKING:
    from videorl.config import RewardConfig
    from videorl.data.clips import ClipSource
    from videorl.data.score_reading import ScoredClips
    from videorl.evaluation import sanity

SHIPPED = "moving_shapes"
"""Clips that are rendered: clean, of held-out prompts of Moving Shapes."""
NUM_CLIPS = 24


def check_sanity(rewards: Sequence[RewardConfig], clips: str) -> list[Finding]:
    """Score clips as they are and spoiled, in this process; return a finding per model and check.

    A model that prefers a spoiled clip is broken; one that does not see it gets a warning, since
    not every model is made to.

    Args:
        rewards: The models, which are loaded here one after the other.
        clips: A folder of videos with prompts, or `moving_shapes`.
    """
    from videorl.evaluation.sanity import findings
    from videorl.evaluation.spoiling import spoiled

    found: list[Finding] = []
    with _clips(clips) as source, tempfile.TemporaryDirectory() as folder:
        both = spoiled(source)
        for reward in rewards:
            name = f"reward {reward.key}"
            try:
                scored, mapping = _scored(both, reward, Path(folder, f"{reward.key}.parquet"))
            except Exception as error:  # a reward that cannot be loaded is a finding too
                said = f"{type(error).__name__}: {error}"
                found.append(Finding(name, "broken", said, "see the message"))
                continue
            found += [_finding(name, seen) for seen in findings(source.keys, scored, mapping)]
    return found


@contextmanager
def _clips(clips: str) -> Iterator[ClipSource]:
    from videorl.data.clips import find_clips

    if clips != SHIPPED:
        yield find_clips(Path(clips).absolute())
        return
    from videorl.ablation.recogniser import write_clean_clips

    with tempfile.TemporaryDirectory() as folder:
        yield find_clips(write_clean_clips(Path(folder, "clips"), NUM_CLIPS))


def _scored(
    source: ClipSource, reward: RewardConfig, path: Path
) -> tuple[ScoredClips, Mapping[str, tuple[str, ...]]]:
    from videorl.data.score_reading import read_scores
    from videorl.data.score_table import open_scores
    from videorl.evaluation.reward_benchmark import MAPPINGS
    from videorl.measures.rewards import score_here

    with open_scores(path, [reward]) as table:
        score_here(lambda: False)(source, reward, table)
        table.merge(source.keys)
    return read_scores(path), MAPPINGS["videogen_rewardbench"].get(reward.name, {})


def _finding(name: str, seen: sanity.Finding) -> Finding:
    verdict, change = seen.verdict, seen.change
    is_seen, is_liked = verdict == "sees it", verdict == "prefers it"
    ends = () if change is None else (change.mean, change.low, change.high)
    numbers = " ({:+.3f} [{:+.3f}, {:+.3f}])".format(*ends) if ends else ""
    fix = ""
    if is_liked:
        fix = f"a policy that learns from {seen.scored_by} is taught {seen.spoiling}: leave it out"
    elif verdict == "does not see it" and seen.about == "TA":
        fix = f"it ignores the prompt ({seen.scored_by}): give it a second reward that does not"
    elif not is_seen:
        fix = f"{verdict}, on {seen.num_clips} clips: try more clips, or let another reward watch"
    status = "ok" if is_seen else "broken" if is_liked else "warning"
    return Finding(name, status, f"{seen.about}: {seen.spoiling}: {verdict}{numbers}", fix)
