"""Scores and counters as the archive's rows give them, to compare with what was logged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from videorl.audit.evidence import Evidence, Row
from videorl.objectives.objective import EXAMPLES
from videorl.step_record import counts
from videorl.types import Score


def scores_of(evidence: Evidence) -> dict[str, Score]:
    """Return the score of every candidate by its id."""
    dimensions: dict[str, dict[str, float]] = defaultdict(dict)
    for row in evidence.tables["scores"]:
        if row["kind"] == "reward":
            dimensions[row["candidate_id"]][row["dimension"]] = row["value"]
    return {
        row["candidate_id"]: Score(dimensions[row["candidate_id"]], row["total"])
        for row in evidence.tables["candidates"]
    }


def learned_alone(candidates: Iterable[Row]) -> list[Row]:
    """Return the candidates that were learned from with a weight, not in a pair."""
    return [row for row in candidates if row["weight"] is not None]


def counters_of(tables: Mapping[str, list[Row]], step: int) -> dict[str, float]:
    """Return the counters that a step's metrics must have, from its rows in the archive."""
    facts = tables["steps"][0] if tables["steps"] else None
    ages = (step - row["version_step"] for row in tables["candidates"])
    return {
        **counts(
            (row["outcome"] for row in tables["prompts"]),
            ((row["reason"], row["count"]) for row in tables["dropped"]),
            ages,
        ),
        "candidates/scored": float(len(tables["candidates"])),
        EXAMPLES: float(len(tables["pairs"]) + len(learned_alone(tables["candidates"]))),
        "policy/version_step": float(step + 1),
        **(
            {
                "reference/version_step": float(facts["reference_step"]),
                "staleness/steps": float(step - facts["sampled_step"]),
            }
            if facts
            else {}
        ),
    }


def is_counter(name: str) -> bool:
    """Tell whether a metric counts rows of the archive."""
    return name.startswith(("groups/", "candidates/", "staleness/")) or name in (
        EXAMPLES,
        "policy/version_step",
        "reference/version_step",
    )
