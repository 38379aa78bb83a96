"""What every worker does first in its process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import ray

if TYPE_CHECKING:
    import torch


def hide_gpus() -> None:
    """Hide the GPUs from a worker that was given none, which Ray does not: they are others'."""
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before CUDA is first used in this process


def prepare_process(num_cpus: float) -> torch.device:
    """Let torch use as many threads as this worker has CPUs; return its device.

    GPUs that it was not given are hidden.

    Args:
        num_cpus: Rounded down; at least one thread is used.
    """
    hide_gpus()
    import torch

    torch.set_num_threads(max(1, int(num_cpus)))
    return torch.device("cuda", 0) if ray.get_gpu_ids() else torch.device("cpu")


def own_node() -> str:
    """Return the id of the node that this process runs on."""
    return ray.get_runtime_context().get_node_id()
