"""Scored groups on disk, without their media: what an evaluation found."""

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
    write_json(path, {"groups": [_group_to_json(group) for group in groups]})


def read_groups(path: Path) -> list[ScoredGroup]:
    """Return what `write_groups` wrote; media handles are None."""
    return [_group_from_json(group) for group in json.loads(path.read_text())["groups"]]


def _group_to_json(group: ScoredGroup) -> dict[str, Any]:
    return {
        "prompt": {
            "index": group.prompt.index,
            "text": group.prompt.text,
            "id": group.prompt.id,
            "tags": group.prompt.tags,
        },
        "dropped": dict(group.dropped),
        "candidates": [
            {
                "index": one.candidate.index,
                "seed": one.candidate.seed,
                "version": [one.candidate.version.step, one.candidate.version.digest],
                "dimensions": dict(one.score.dimensions),
                "total": one.score.total,
                "unseen": dict(one.unseen),
            }
            for one in group.candidates
        ],
    }


def _group_from_json(saved: dict[str, Any]) -> ScoredGroup:
    # Records of earlier versions have no id and no tags.
    prompt = Prompt(**saved["prompt"] | {"tags": tuple(saved["prompt"].get("tags", ()))})
    candidates = tuple(
        ScoredCandidate(
            Candidate(
                round=0,
                prompt=prompt,
                index=one["index"],
                seed=one["seed"],
                version=WeightVersion(*one["version"]),
                latents=None,
                video=None,
            ),
            Score(one["dimensions"], one["total"]),
            one["unseen"],
        )
        for one in saved["candidates"]
    )
    return ScoredGroup(prompt, None, candidates, saved["dropped"])
