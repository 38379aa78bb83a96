"""The ledger of a run, and whether all that the run recorded agrees with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from videorl.audit.checks import contradictions
from videorl.audit.evidence import Contradiction, Evidence, gather
from videorl.run.folder import RunFolder
from videorl.step_record import TRAINED


@dataclass(frozen=True)
class Audit:
    """What became of every prompt of the stream, and which records contradict each other."""

    num_steps: int
    cursor: int
    """Step of the newest checkpoint: the ledger counts the steps before it."""
    num_later_steps: int
    """Steps archived after it; a run that is killed now repeats them."""
    trained: int
    """Prompts that their step learned from."""
    dropped: Mapping[str, int]
    """Reason -> prompts from which nothing was learned."""
    queued: int
    """Prompts from the cursor to the run's last step."""
    candidates: int
    dropped_candidates: Mapping[str, int]
    """Reason -> candidates lost before they could be compared."""
    contradictions: tuple[Contradiction, ...]
    changed_inputs: tuple[str, ...]
    """What the run rests on and is different now, in words; the run's own records stand."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing contradicts anything."""
        return not self.contradictions

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `is_clean` as JSON values."""
        return {"is_clean": self.is_clean, **asdict(self)}


def audit(folder: RunFolder, *, fresh: bool = False) -> Audit:
    """Audit a run that is running, was killed, or has finished; its folder is only read.

    Args:
        folder: Of the run.
        fresh: Read every file that the run rests on, even where its size and times are the same.

    Raises:
        RunFolderError: It is no run folder.
        CheckpointError: There are checkpoints, but none can be read.
        ArchiveError: The archive is of a version that kept no ledger.
    """
    evidence = gather(folder, fresh=fresh)
    return close_ledger(evidence, contradictions(evidence, folder.archive))


def close_ledger(evidence: Evidence, found: list[Contradiction]) -> Audit:
    """Count the prompts and candidates of the evidence; `found` is what contradicts it."""
    outcomes = Counter(row["outcome"] for row in evidence.tables["prompts"])
    lost: Counter[str] = Counter()
    for row in evidence.tables["dropped"]:
        lost[row["reason"]] += row["count"]
    recipe = evidence.recipe
    return Audit(
        num_steps=recipe.num_steps,
        cursor=evidence.cursor,
        num_later_steps=evidence.num_later_steps,
        trained=outcomes[TRAINED],
        dropped={reason: outcomes[reason] for reason in sorted(outcomes) if reason != TRAINED},
        queued=max(0, recipe.num_steps - evidence.cursor) * recipe.prompts.per_round,
        candidates=len(evidence.tables["candidates"]),
        dropped_candidates=dict(sorted(lost.items())),
        contradictions=tuple(found),
        changed_inputs=tuple(evidence.changed_inputs.values()),
    )


def format_audit(found: Audit) -> str:
    """Return the ledger and every contradiction as text."""
    taken = found.trained + sum(found.dropped.values())
    rows = [
        (f"prompts taken by steps 0 to {found.cursor - 1}" if found.cursor else "prompts", taken),
        ("  trained on", found.trained),
        *((f"  dropped: {reason}", number) for reason, number in found.dropped.items()),
        (f"prompts still queued, up to step {found.num_steps - 1}", found.queued),
        ("candidates scored", found.candidates),
        *((f"candidates lost: {why}", count) for why, count in found.dropped_candidates.items()),
    ]
    lines = [f"{label:<56}{number:>10}" for label, number in rows]
    if found.num_later_steps:
        lines.append(
            f"{found.num_later_steps} steps since the newest checkpoint are archived, but counted "
            "as queued: a run that is killed now repeats them"
        )
    lines += [f"changed since the run began: {what}" for what in found.changed_inputs]
    if found.is_clean:
        return "\n".join([*lines, "clean: nothing contradicts anything"])
    lines.append(f"NOT clean: {len(found.contradictions)} contradictions")
    lines += [f"  {fault.where}: {fault.what}" for fault in found.contradictions]
    return "\n".join(lines)
