"""The film strip: the same held-out prompts and seeds, again and again during training.

    fixed_prompts/prompts.json              [{"prompt": …, "seed": …}, …]
    fixed_prompts/step-000050/000.mp4       the first prompt, with the weights of step 50
    fixed_prompts/step-000050/scores.json   {"scores": [{dimension: value, …, "total": …}, …]}

The scores are in the order of the prompts. A video or its scores may be missing.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.files.steps import step_name, step_of

FOLDER = "fixed_prompts"


@dataclass(frozen=True)
class Frame:
    """One video of the strip."""

    step: int
    video: str | None
    """Path below the run folder; None = it is not there."""
    scores: dict[str, float]
    """Dimension -> value, `total` too; empty where they are not known."""


@dataclass(frozen=True)
class Strip:
    """One prompt over training."""

    prompt: str
    seed: int
    frames: list[Frame]
    """In the order of steps."""


def read_strips(root: Path, most: int) -> tuple[list[Strip], int, list[str]]:
    """Return the strips of a run; none if it made none.

    Args:
        root: The run folder.
        most: Show so many steps at most, evenly spread with the first and the last.

    Returns:
        The strips, how many steps there are, and what cannot be read.
    """
    folder = root / FOLDER
    prompts, problems = _json(folder / "prompts.json", [])
    if not isinstance(prompts, list) or not all(map(_is_prompt, prompts)):
        return [], 0, [f"{folder / 'prompts.json'} holds no list of prompts with their seeds"]
    found = sorted(
        (step, path)
        for path in folder.glob("step-*")
        if (step := step_of(path.name)) is not None and path.name == step_name(step)
    )
    shown = [found[place] for place in _spread(len(found), most)]
    scores: dict[int, list[dict[str, float]]] = {}
    for step, path in shown:
        content, wrong = _json(path / "scores.json", {})
        problems += wrong
        scores[step] = _scores(content)
    strips = [
        Strip(
            prompt["prompt"],
            prompt["seed"],
            [_frame(root, step, path, place, scores[step]) for step, path in shown],
        )
        for place, prompt in enumerate(prompts)
    ]
    return strips, len(found), problems


def _is_prompt(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("prompt"), str)
        and isinstance(row.get("seed"), int)
    )


def _scores(content: Any) -> list[dict[str, float]]:
    """Return the finite scores of each prompt; what is no such thing is left out."""
    rows = content.get("scores") if isinstance(content, dict) else None
    return [
        {
            str(name): float(value)
            for name, value in (row.items() if isinstance(row, dict) else ())
            if isinstance(value, int | float) and math.isfinite(value)
        }
        for row in (rows if isinstance(rows, list) else [])
    ]


def _frame(root: Path, step: int, path: Path, place: int, scores: list[dict[str, float]]) -> Frame:
    video = path / f"{place:03d}.mp4"
    is_there = video.is_file()
    return Frame(
        step,
        str(video.relative_to(root)) if is_there else None,
        scores[place] if place < len(scores) else {},
    )


def _spread(count: int, most: int) -> list[int]:
    """Return at most `most` of the places 0 … count − 1, evenly, with both ends."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _json(path: Path, otherwise: Any) -> tuple[Any, list[str]]:
    try:
        return json.loads(path.read_text(encoding="utf-8")), []
    except FileNotFoundError:
        return otherwise, []
    except (OSError, ValueError) as error:
        return otherwise, [f"{path} cannot be read: {error}"]
