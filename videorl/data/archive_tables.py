"""The tables of the archive: their schemas, and the rows of one step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from videorl.files.steps import step_name
from videorl.types import Candidate, PromptOutcome, StepRecord

CANDIDATES = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("round", pa.int64(), nullable=False),
        pa.field("prompt_index", pa.int64(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("candidate_index", pa.int64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("version_step", pa.int64(), nullable=False),
        pa.field("version_digest", pa.string(), nullable=False),
        pa.field("total", pa.float64(), nullable=False),
        pa.field("weight", pa.float64()),
        pa.field("video", pa.string()),
        pa.field("latents", pa.binary()),
        pa.field("latents_shape", pa.list_(pa.int64())),
        pa.field("latents_dtype", pa.string()),
        pa.field("image", pa.string()),
    ]
)
"""One row per scored candidate; `video` is a path below the archive folder, or null.

`image` is the absolute path of the picture that the prompt carries; null where it carries none, and
in archives of older versions.

`weight` is its factor in the loss where it was learned from alone, outside of a pair, else null.
"""

SCORES = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("dimension", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)
"""One row per candidate and measurement; `kind` is `reward`, or `unseen` if nothing rewards it."""

PAIRS = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("prompt_index", pa.int64(), nullable=False),
        pa.field("chosen_id", pa.string(), nullable=False),
        pa.field("rejected_id", pa.string(), nullable=False),
        pa.field("margin", pa.float64(), nullable=False),
    ]
)
"""One row per preference pair that the learner was given."""

DROPPED = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("prompt_index", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
"""How many candidates of a prompt were lost before they could be chosen from, and why."""

PROMPTS = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("prompt_index", pa.int64(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("prompt_id", pa.string()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("image", pa.string()),
    ]
)
"""The ledger: one row per prompt of the stream; `outcome` is `trained`, or why it was dropped.

`error` is the last error where the whole group was lost. `prompt_id`, `tags` and `image` are those
of the prompt file; null where it has none, and in archives of older versions.
"""

STEPS = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("sampled_step", pa.int64(), nullable=False),
        pa.field("sampled_digest", pa.string(), nullable=False),
        pa.field("published_step", pa.int64(), nullable=False),
        pa.field("published_digest", pa.string(), nullable=False),
        pa.field("reference_step", pa.int64(), nullable=False),
        pa.field("reference_digest", pa.string(), nullable=False),
    ]
)
"""One row per step: the version that sampled its round, the version that it published, and the
reference after it."""

SCHEMAS: dict[str, pa.Schema] = {
    "scores": SCORES,
    "pairs": PAIRS,
    "dropped": DROPPED,
    "prompts": PROMPTS,
    "steps": STEPS,
    "candidates": CANDIDATES,
}


def table_path(directory: Path, name: str, step: int) -> Path:
    """Return the file of a step of a table, whether it is there or not."""
    return directory / name / f"{step_name(step)}.parquet"


def step_tables(
    record: StepRecord, videos: Mapping[str, str], latents: Mapping[str, Any]
) -> dict[str, pa.Table]:
    """Return the tables of one step by name.

    Args:
        record: The step's prompts, scored groups, examples and versions.
        videos: Candidate id -> path of its mp4 below the archive folder, where it was kept.
        latents: Candidate id -> latents [C, T, H, W] (torch or numpy), where they were kept.
    """
    step = record.step
    candidates = [scored for group in record.groups for scored in group.candidates]
    weights = {example.candidate.candidate.id: example.weight for example in record.weighted}
    rows: dict[str, list[dict[str, Any]]] = {
        "candidates": [
            {
                **_candidate_row(step, scored.candidate),
                "total": scored.score.total,
                "weight": weights.get(scored.candidate.id),
                "video": videos.get(scored.candidate.id),
                **pack_latents(latents.get(scored.candidate.id)),
            }
            for scored in candidates
        ],
        "scores": [
            {"candidate_id": scored.candidate.id, "step": step, "kind": kind, "dimension": name}
            | {"value": float(value)}
            for scored in candidates
            for kind, values in (("reward", scored.score.dimensions), ("unseen", scored.unseen))
            for name, value in values.items()
        ],
        "pairs": [
            {
                "step": step,
                "prompt_index": pair.prompt.index,
                "chosen_id": pair.chosen.candidate.id,
                "rejected_id": pair.rejected.candidate.id,
                "margin": pair.margin,
            }
            for pair in record.pairs
        ],
        "dropped": [
            {"step": step, "prompt_index": group.prompt.index, "reason": reason, "count": count}
            for group in record.groups
            for reason, count in group.dropped.items()
        ],
        "prompts": [_prompt_row(step, outcome) for outcome in record.outcomes],
        "steps": [_step_row(record)],
    }
    return {name: pa.Table.from_pylist(rows[name], schema) for name, schema in SCHEMAS.items()}


def _prompt_row(step: int, outcome: PromptOutcome) -> dict[str, Any]:
    return {
        "step": step,
        "prompt_index": outcome.prompt.index,
        "prompt": outcome.prompt.text,
        "outcome": outcome.outcome,
        "error": outcome.error,
        "prompt_id": outcome.prompt.id or None,
        "tags": list(outcome.prompt.tags) or None,
        "image": outcome.prompt.image or None,
    }


def _step_row(record: StepRecord) -> dict[str, Any]:
    return {
        "step": record.step,
        "sampled_step": record.sampled.step,
        "sampled_digest": record.sampled.digest,
        "published_step": record.published.step,
        "published_digest": record.published.digest,
        "reference_step": record.reference.step,
        "reference_digest": record.reference.digest,
    }


def _candidate_row(step: int, candidate: Candidate) -> dict[str, Any]:
    return {
        "candidate_id": candidate.id,
        "step": step,
        "round": candidate.round,
        "prompt_index": candidate.prompt.index,
        "prompt": candidate.prompt.text,
        "image": candidate.prompt.image or None,
        "candidate_index": candidate.index,
        "seed": candidate.seed,
        "version_step": candidate.version.step,
        "version_digest": candidate.version.digest,
    }


def pack_latents(latents: Any) -> dict[str, Any]:
    """Return the three `latents` columns of a tensor, an array, or None; bits are kept as is."""
    if latents is None:
        return {"latents": None, "latents_shape": None, "latents_dtype": None}
    shape = [int(size) for size in latents.shape]
    if isinstance(latents, np.ndarray):
        return {
            "latents": np.ascontiguousarray(latents).tobytes(),
            "latents_shape": shape,
            "latents_dtype": str(latents.dtype),
        }
    import torch

    tensor = latents.detach().cpu().contiguous()
    return {
        "latents": tensor.flatten().view(torch.uint8).numpy().tobytes(),
        "latents_shape": shape,
        "latents_dtype": str(tensor.dtype).removeprefix("torch."),
    }


def unpack_latents(row: Mapping[str, Any]) -> Any:
    """Return the torch tensor [C, T, H, W] of a row of the candidates table, or None."""
    if row["latents"] is None:
        return None
    import torch

    dtype = getattr(torch, row["latents_dtype"])
    return torch.frombuffer(bytearray(row["latents"]), dtype=dtype).view(row["latents_shape"])
