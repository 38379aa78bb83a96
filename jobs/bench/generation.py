"""How fast candidates come: our generator pool against the stock pipeline on the same machine.

    python -m jobs.bench.generation
    python -m jobs.bench.generation --prompts 8 --steps 0 sampling.num_inference_steps=20

Two measurements in one run. Throughput: the stock diffusers `WanPipeline` is called in a plain loop
with all cores, then the pool (one worker per core) is given the same prompts, settings and seeds,
then both again in the opposite order; warm-up is left out. A short training run: the share of wall
time in which each stage works, with max_staleness 0 and 1, and what publishing weights costs.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from actors.generator import RayGenerator
    from videorl.config import Recipe
    from videorl.types import SampleRequest, WeightVersion


@dataclass(frozen=True)
class Throughput:
    """One repeat of one way to sample."""

    seconds: float
    first_video: np.ndarray
    """[F, H, W, 3] in [0, 1], of the first candidate."""
    busy_share: float = 1.0
    """Share of worker time spent on requests while more of them queue."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.bench.generation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("overrides", nargs="*", metavar="key=value", help="recipe settings to change")
    made.add_argument(
        "--recipe", default="moving_shapes", help="name or path of a recipe (default: %(default)s)"
    )
    made.add_argument(
        "--prompts",
        type=int,
        default=24,
        help="prompts in each of two repeats (default: %(default)s)",
    )
    made.add_argument("--workers", type=int, help="generators; default: one per core, or per GPU")
    made.add_argument(
        "--steps",
        type=int,
        default=6,
        help="training steps measured; 0 = none (default: %(default)s)",
    )
    made.add_argument("--json", type=Path, help="write the numbers to this file too")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a table and the same numbers as JSON."""
    chosen = parser().parse_intermixed_args(argv)

    from jobs.bench.stages import training
    from videorl.recipes.reading import load_recipe

    # Ray's workers give way to every other process by default; the stock pipeline does not.
    os.environ.setdefault("RAY_worker_niceness", "0")
    workers = chosen.workers or _num_devices()
    sizes = [f"generators.{name}_workers={workers}" for name in ("min", "max")]
    recipe = load_recipe(chosen.recipe, [*sizes, "generators.num_cpus=1", *chosen.overrides])
    found = {"machine": machine(), **throughput(recipe, chosen.prompts)}
    if chosen.steps:
        for staleness in (0, 1):
            recipe.rollouts.max_staleness = staleness
            found[f"training, max_staleness {staleness}"] = training(recipe, chosen.steps)
    show(found)
    text = json.dumps(found, indent=2)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")
    return 0


def machine() -> dict[str, Any]:
    """Return what the numbers depend on; a load above 0 means that others were working too."""
    import torch

    return {
        "cores": len(os.sched_getaffinity(0)),
        "gpus": torch.cuda.device_count(),
        "threads of the stock pipeline": torch.get_num_threads(),
        "load before": round(os.getloadavg()[0], 2),
    }


def _num_devices() -> int:
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def throughput(recipe: Recipe, num_prompts: int) -> dict[str, Any]:
    """Measure stock, pool, pool, stock: a machine that slows down meanwhile favours neither."""
    from videorl.types import WeightVersion

    unknown = WeightVersion(0, "")
    first = requests(recipe, unknown, 0, num_prompts)
    second = requests(recipe, unknown, num_prompts, num_prompts)
    stock = [run_stock(recipe, first)]
    pool = run_pool(recipe, num_prompts)
    stock.append(run_stock(recipe, second))
    count = num_prompts * recipe.prompts.candidates_per_prompt
    per_s = [2 * count / sum(one.seconds for one in ways) for ways in (stock, pool)]
    difference = abs(stock[0].first_video - pool[0].first_video).max()
    return {
        "throughput": {
            "candidates per repeat": count,
            "stock pipeline, candidates/s": round(per_s[0], 3),
            "generator pool, candidates/s": round(per_s[1], 3),
            "pool / stock": round(per_s[1] / per_s[0], 3),
            "pool / stock, by repeat": [
                round(a.seconds / b.seconds, 3) for a, b in zip(stock, pool, strict=True)
            ],
            "pool workers": recipe.generators.max_workers,
            "pool workers busy while requests queue": [round(one.busy_share, 3) for one in pool],
            "largest pixel difference, of 1": round(float(difference), 4),
        }
    }


def requests(recipe: Recipe, version: WeightVersion, first: int, count: int) -> list[SampleRequest]:
    """Return requests for consecutive positions of the recipe's prompt stream."""
    from videorl.data.prompts import open_prompts
    from videorl.rollouts import request_for

    prompts = open_prompts(recipe.prompts, recipe.seed)
    return [request_for(recipe, prompts, first + place, version) for place in range(count)]


def run_stock(recipe: Recipe, wanted: Sequence[SampleRequest]) -> Throughput:
    """Call the stock pipeline once per prompt, in this process."""
    import torch
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline
    from diffusers.utils.logging import disable_progress_bar

    from videorl.policies.checkpoints import PARTS, locate

    folder = locate(recipe.policy.path, PARTS)
    on_gpu = torch.cuda.is_available()
    disable_progress_bar()
    pipeline: Any = WanPipeline.from_pretrained(
        folder, dtype=torch.bfloat16 if on_gpu else torch.float32
    )
    pipeline.to("cuda" if on_gpu else "cpu")
    pipeline.set_progress_bar_config(disable=True)
    _call_stock(pipeline, recipe, wanted[-1])
    started = time.perf_counter()
    videos = [_call_stock(pipeline, recipe, request) for request in wanted]
    return Throughput(time.perf_counter() - started, videos[0][0])


def _call_stock(pipeline: Any, recipe: Recipe, request: SampleRequest) -> np.ndarray:
    import torch

    sampling = recipe.sampling
    return pipeline(
        prompt=request.prompt.text,
        negative_prompt=sampling.negative_prompt,
        num_videos_per_prompt=len(request.seeds),
        generator=[torch.Generator().manual_seed(seed) for seed in request.seeds],
        num_frames=sampling.num_frames,
        height=sampling.height,
        width=sampling.width,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        max_sequence_length=sampling.max_sequence_length,
        output_type="np",
    ).frames


def run_pool(recipe: Recipe, num_prompts: int) -> list[Throughput]:
    """Give two repeats of requests to our generators, fed with version 0."""
    from actors.assembly import start_pools
    from actors.cluster import connect
    from actors.placement import live_nodes, place, wait_until_serving
    from actors.store.weights import create_weight_store, publish
    from videorl.policies import load_policy
    from videorl.types import WeightVersion
    from videorl.weights import digest

    weights = load_policy(
        recipe.policy, recipe.sampling, parts=frozenset({"transformer"}), seed=recipe.seed
    ).weights()
    version = WeightVersion(0, digest(weights))
    num_workers = recipe.generators.max_workers
    with connect("local", num_cpus=place(recipe, []).num_cpus()), ExitStack() as stack:
        store, placement = create_weight_store(keep=1), place(recipe, live_nodes())
        publish(store, version, weights)
        generator, _ = start_pools(recipe, placement, store, stack)
        wait_until_serving([generator.pool], placement)
        while generator.pool.stats().workers < num_workers:
            time.sleep(0.05)
        # Every worker loads the weights and samples at least once before the clock starts.
        _run_repeat(generator, requests(recipe, version, 2 * num_prompts, 2 * num_workers))
        return [
            _run_repeat(generator, requests(recipe, version, first, num_prompts))
            for first in (0, num_prompts)
        ]


def _run_repeat(generator: RayGenerator, wanted: Sequence[SampleRequest]) -> Throughput:
    from actors.store.media import fetch
    from jobs.bench.stages import busy_share

    started, before = time.perf_counter(), generator.pool.stats()
    futures = [generator.submit(request) for request in wanted]
    queueing = before
    while not all(future.done() for future in futures):
        time.sleep(0.01)
        if (now := generator.pool.stats()).queued:
            queueing = now
    groups = [future.result() for future in futures]
    seconds = time.perf_counter() - started
    (video,) = fetch([groups[0].candidates[0].video])
    return Throughput(seconds, video.frames / 255.0, busy_share(before, queueing))


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the table."""
    for title, numbers in found.items():
        print(f"\n{title}")
        for name, value in numbers.items():
            listed = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"  {name:<44}{listed}")
    print()


if __name__ == "__main__":
    raise SystemExit(main())
