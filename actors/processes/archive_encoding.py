"""Stored videos become latents on the cluster's nodes, before anything else is started."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray

from actors.placement import Role
from actors.pool.outcomes import answer
from videorl.config import Recipe
from videorl.data.pair_encoding import Part
from videorl.errors import StoppedError
from videorl.files import write_bytes
from videorl.storage.copies import uri_of

logger = logging.getLogger(__name__)

_ASK_S, _REPORT_S = 0.5, 30.0


def encode_parts(
    role: Role,
    places: Callable[[], str],
    should_stop: Callable[[], bool],
    recipe: Recipe,
    parts: Sequence[Part],
) -> Iterator[None]:
    """Turn stored videos into latents before the text encoder starts, with what it needs for each.

    As many parts at a time as the cluster has room for; a part whose worker died is tried again.

    Args:
        role: Of the text encoder.
        places: Says who has what of the cluster.
        should_stop: Asked while parts are encoded; those that are not written are given up.
        recipe: The run.
        parts: To be written to the run's folder.

    Raises:
        StoppedError: `should_stop` said so; the same command goes on with the parts that are left.
    """
    # Other nodes do not see a working copy, which is of this one.
    is_copy = uri_of(Path(recipe.run_dir)) is not None
    task: Any = ray.remote(_encode_part).options(**role.options())
    waiting: dict[Any, Part] = {task.remote(recipe, part, is_copy): part for part in parts}
    said = time.monotonic()
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=_ASK_S)
            if should_stop():
                raise StoppedError("stopped while stored videos were encoded")
            if (now := time.monotonic()) - said >= _REPORT_S:
                said = now
                logger.warning("%d parts of the archive are left: %s", len(waiting), places())
            for ref in done:
                part = waiting.pop(ref)
                if (content := answer(ref)) is not None:
                    write_bytes(part.file, content)
                yield None
    finally:
        for ref in waiting:
            ray.cancel(ref, force=True)


def _encode_part(recipe: Recipe, part: Part, is_copy: bool) -> bytes | None:
    """Write a part, or return its content where this node cannot write it."""
    import torch

    from videorl.learning.stored_pairs import encode_here

    # Ray does not hide the GPUs from a task that was given none: they belong to others.
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    if not is_copy:
        list(encode_here(recipe, [part], device))
        return None
    with TemporaryDirectory() as folder:
        file = Path(folder, part.file.name)
        list(encode_here(recipe, [replace(part, file=file)], device))
        return file.read_bytes()
