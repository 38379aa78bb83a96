"""The files of the fixed prompts, see `videorl.evaluation.fixed_prompts`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.errors import RunFolderError
from videorl.files import superseded, write_text
from videorl.trackers.tracker import FixedVideo
from videorl.types import Prompt, ScoredCandidate, WeightVersion

FOLDER = "fixed_prompts"
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class FixedPrompt:
    """A prompt that is sampled with the same seed every time."""

    prompt: Prompt
    seed: int


def step_folder(root: Path, step: int) -> Path:
    """Return where the videos of a step are, or will be."""
    return root / FOLDER / f"step-{step:06d}"


def truncate(root: Path, step: int) -> None:
    """Take out what was sampled with weights of later steps than `step`: go back to a checkpoint.

    It goes to `superseded/` of the run folder; what was half written is deleted.
    """
    folder = root / FOLDER
    for leftover in folder.glob(".partial-step-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for number, path in _steps(folder):
        if number > step:
            superseded.move(path, root)


def keep_prompts(root: Path, prompts: Sequence[FixedPrompt]) -> None:
    """Write what is sampled beside the videos of it.

    Raises:
        RunFolderError: Videos of other prompts are there.
    """
    path = root / FOLDER / "prompts.json"
    rows = [
        {"index": fixed.prompt.index, "prompt": fixed.prompt.text, "seed": fixed.seed}
        for fixed in prompts
    ]
    text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != text and _steps(path.parent):
        raise RunFolderError(
            f"{path} names other prompts or seeds than the recipe gives now, and videos of them "
            f"lie beside it: move {path.parent} away, or set fixed_prompts.interval=0"
        )
    write_text(path, text)


def _steps(folder: Path) -> list[tuple[int, Path]]:
    found = (
        (match, path) for path in folder.glob("step-*") if (match := _STEP.fullmatch(path.name))
    )
    return sorted((int(match[1]), path) for match, path in found)


def scores_file(version: WeightVersion, found: Sequence[ScoredCandidate | None]) -> dict[str, Any]:
    """Return what `scores.json` holds; an empty map stands for a video that was lost."""
    return {
        "version": version.step,
        "digest": version.digest,
        "scores": [values(each) for each in found],
        "unseen": [dict(each.unseen) if each else {} for each in found],
    }


def read_videos(root: Path, step: int, prompts: Sequence[FixedPrompt]) -> list[FixedVideo]:
    """Return the videos of a step as trackers are told of them; none if it is not there.

    Raises:
        OSError, ValueError, KeyError: `scores.json` is missing or damaged.
    """
    folder = step_folder(root, step)
    if not folder.exists():
        return []
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["scores"]
    paths = [folder / f"{place:03d}.mp4" for place in range(len(prompts))]
    return [
        FixedVideo(fixed.prompt.text, fixed.seed, path if path.exists() else None, found)
        for fixed, path, found in zip(prompts, paths, scores, strict=True)
    ]


def values(found: ScoredCandidate | None) -> dict[str, float]:
    """Return dimension -> value and the total; nothing of a video that was lost."""
    return {**found.score.dimensions, "total": found.score.total} if found else {}
