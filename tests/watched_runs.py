"""Run folders as a run leaves them, written step by step with the archive's own writer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from videorl.data.archive import Archive
from videorl.run.sinks import JsonlSink
from videorl.selection import best_vs_worst
from videorl.types import (
    Candidate,
    Prompt,
    PromptOutcome,
    Score,
    ScoredCandidate,
    ScoredGroup,
    StepRecord,
    Video,
    WeightVersion,
)

COLOURS = ("red", "blue", "100 % green")
NUM_CANDIDATES = 3
CONFIG = {
    "name": "watched",
    "num_steps": 6,
    "rewards": [{"name": "moving_shapes"}],
    "selection": {"rule": "best_vs_worst", "min_margin": 0.0},
}


def make_run(root: Path, num_steps: int, **options: Any) -> Path:
    """Write a run folder; `options` are those of `write_step`."""
    root.mkdir(parents=True)
    # JSON is YAML.
    (root / "config.yaml").write_text(json.dumps(CONFIG))
    for step in range(num_steps):
        write_step(root, step, **options)
    return root


def write_step(
    root: Path,
    step: int,
    *,
    num_frames: int = 16,
    shift: float = 0.0,
    unseen: Mapping[str, float] = MappingProxyType({"sharpness": 0.5}),
) -> None:
    """Write one step: a group per colour, and a prompt that was refused.

    Candidate g of prompt p of step s has quality s + g (p + 1) / 8 + `shift`, which is its total
    too, and motion −g: so the margins are 0.25, 0.5 and 0.75, and the last candidate is chosen.
    Each has the `unseen` values.
    """
    groups = [_group(step, place, num_frames, shift, unseen) for place in range(len(COLOURS))]
    pairs = [pair for group in groups for pair in best_vs_worst(group)]
    refused = PromptOutcome(Prompt(4 * step + 3, "too long"), "prompt_rejected", "99 <tokens>")
    outcomes = *(PromptOutcome(group.prompt, "trained") for group in groups), refused
    version, published = WeightVersion(step, "abc"), WeightVersion(step + 1, "abd")
    record = StepRecord(
        step, outcomes, tuple(groups), tuple(pairs), version, published, WeightVersion(0, "abc")
    )
    Archive(root / "archive", "pairs", keep_latents=False).write(record)
    JsonlSink(root / "metrics.jsonl").write(step, {"reward/total": float(step)})


def _group(
    step: int, place: int, num_frames: int, shift: float, unseen: Mapping[str, float]
) -> ScoredGroup:
    prompt = Prompt(4 * step + place, f"a {COLOURS[place]} ball")
    frames = np.zeros((num_frames, 32, 32, 3), np.uint8)
    frames[..., place] = np.arange(num_frames, dtype=np.uint8)[:, None, None] * 10
    scored = [
        ScoredCandidate(
            Candidate(step, prompt, g, g, WeightVersion(step, "abc"), None, Video(frames, 8.0)),
            Score({"quality": (total := step + g * (place + 1) / 8 + shift), "motion": -g}, total),
            dict(unseen),
        )
        for g in range(NUM_CANDIDATES)
    ]
    dropped = {"score_not_finite": 1} if place == 2 else {}
    return ScoredGroup(prompt, None, tuple(scored), dropped)
