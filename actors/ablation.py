"""A sweep of ablation runs; each is a Ray task that runs the loop in its own process."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from videorl.ablation.plan import Run

Outcome = tuple[Run, dict[str, Any] | None, str]
"""The run; its result, or None; "" or what went wrong."""


def run_on_ray(runs: Sequence[Run], folder: Path) -> Iterator[Outcome]:
    """Yield outcomes as they come; Ray must be connected.

    Each task takes a CPU and needs nothing from the others, so a cluster of any size helps. Ray
    tries a task again if its worker or node died; it goes on from its last checkpoint if the
    folder is still there.

    Args:
        runs: What to do, the most important first.
        folder: Where each task keeps its unfinished run, on its own node.
    """
    # New workers now and then, since a run may leave memory behind that is not worth hunting.
    task = ray.remote(num_cpus=1, max_retries=2, max_calls=16)(attempt)
    waiting = {task.remote(run, folder): run for run in runs}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        run = waiting.pop(done)
        try:
            yield (run, *ray.get(done))
        except RayError as error:
            yield run, None, f"the task was lost: {error}"


def run_here(runs: Sequence[Run], folder: Path) -> Iterator[Outcome]:
    """Yield outcomes in order, computed in this process."""
    for run in runs:
        yield (run, *attempt(run, folder))


def attempt(run: Run, folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the result of a run and "", or None and the traceback of its error."""
    from videorl.ablation.runs import execute

    try:
        return execute(run, folder), ""
    except Exception:  # a failed run must not end the sweep; the caller records it
        return None, traceback.format_exc()


def train_all(runs: Sequence[Run], folder: Path, address: str | None, *, is_local: bool) -> bool:
    """Train methods and keep their adapters; return whether all were trained.

    Args:
        runs: See `videorl.ablation.methods.method_run`.
        folder: Gets the adapters; shared by all nodes.
        address: Of a Ray cluster; None = see `actors.cluster.connect`.
        is_local: Train in this process, without Ray.
    """
    if is_local:
        results = [_trained(run, folder) for run in runs]
        return not any(map(_told, results))
    from actors.cluster import connect

    with connect(address):
        task = ray.remote(num_cpus=1, max_retries=2, max_calls=16)(_trained)
        waiting, errors = [task.remote(run, folder) for run in runs], 0
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            errors += _told(ray.get(done[0]))
    return not errors


def _trained(run: Run, folder: Path) -> tuple[str, str]:
    """Return what was trained, and "" or the traceback of its error."""
    from videorl.ablation.methods import train_method

    name = f"{run.label}, seed {run.recipe.seed}"
    try:
        facts = train_method(run, folder)
        return f"{name}: {facts['cpu_seconds']:.0f} s of CPU", ""
    except Exception:  # a failed run must not end the others
        return name, traceback.format_exc()


def _told(result: tuple[str, str]) -> bool:
    """Print an outcome; return whether it is an error."""
    name, error = result
    print(f"{name} FAILED:\n{error}" if error else name, flush=True)
    return bool(error)
