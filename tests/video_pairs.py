"""Preference pairs of video files, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from videorl.data.video_io import write_mp4
from videorl.worlds.grammar import parse, prompts
from videorl.worlds.moving_shapes import training_clip

PROMPTS = prompts("train")[:3]


def save_video_pairs(folder: Path) -> Path:
    """Write three videos of Moving Shapes, each chosen once and rejected once."""
    folder.mkdir()
    for index, prompt in enumerate(PROMPTS):
        clip = training_clip(np.random.default_rng(index), parse(prompt))
        write_mp4(folder / f"{index}.mp4", clip)
    return save_table(folder)


def save_table(folder: Path, **changes: Any) -> Path:
    """Write the table of the three pairs; `changes` replace columns, an empty one is left out."""
    columns = {
        "prompt": PROMPTS,
        "chosen_video": ["0.mp4", "1.mp4", "2.mp4"],
        "rejected_video": ["1.mp4", "2.mp4", "0.mp4"],
        **changes,
    }
    pq.write_table(pa.table({k: v for k, v in columns.items() if len(v)}), folder / "pairs.parquet")
    return folder
