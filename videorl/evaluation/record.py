"""The results of an evaluation on disk: scored groups without their media."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videorl.files import write_json
from videorl.types import (
    Candidate,
    Prompt,
    Score,
    ScoredCandidate,
    ScoredGroup,
    WeightVersion,
)


def write_groups(path: Path, groups: Sequence[ScoredGroup]) -> None:
    """Replace `path` atomically."""
    write_json(path, {"groups": [group_to_json(group) for group in groups]})


def read_groups(path: Path) -> list[ScoredGroup]:
    """Return what `write_groups` wrote; media handles are None."""
    return [group_from_json(group) for group in json.loads(path.read_text())["groups"]]


def group_to_json(group: ScoredGroup) -> dict[str, Any]:
    """Return a group without its media as JSON values."""
    return {
        "prompt": {
            "index": group.prompt.index,
            "text": group.prompt.text,
            "id": group.prompt.id,
            "tags": group.prompt.tags,
            **({"image": group.prompt.image} if group.prompt.image else {}),
        },
        "dropped": dict(group.dropped),
        "candidates": [
            {
                "index": scored.candidate.index,
                "seed": scored.candidate.seed,
                "version": [scored.candidate.version.step, scored.candidate.version.digest],
                "dimensions": dict(scored.score.dimensions),
                "total": scored.score.total,
                **({"by_model": dict(scored.score.by_model)} if scored.score.by_model else {}),
                "unseen": dict(scored.unseen),
            }
            for scored in group.candidates
        ],
    }


def group_from_json(saved: dict[str, Any]) -> ScoredGroup:
    """Return what `group_to_json` was given; media handles are None."""
    # Records of earlier versions have no id and no tags.
    prompt = Prompt(**saved["prompt"] | {"tags": tuple(saved["prompt"].get("tags", ()))})
    candidates = tuple(
        ScoredCandidate(
            Candidate(
                round=0,
                prompt=prompt,
                index=row["index"],
                seed=row["seed"],
                version=WeightVersion(*row["version"]),
                latents=None,
                video=None,
            ),
            Score(row["dimensions"], row["total"], by_model=row.get("by_model", {})),
            row["unseen"],
        )
        for row in saved["candidates"]
    )
    return ScoredGroup(prompt, None, candidates, saved["dropped"])
