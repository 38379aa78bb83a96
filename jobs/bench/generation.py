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
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs import command
from jobs.bench.measuring import add_json, keep_priority, show, write_json

if TYPE_CHECKING:
    import numpy as np

    from actors.generator import RayGenerator
    from videorl.config import Recipe
    from videorl.types import SampleRequest, WeightVersion


@dataclass(frozen=True)
class Throughput:
    """One repeat of a way to sample: the stock pipeline or the pool."""

    seconds: float
    first_video: np.ndarray
    """[F, H, W, 3] in [0, 1], of the first candidate."""
    busy_share: float = 1.0
    """Share of worker time spent on requests while more of them queue."""


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.generation", __doc__)
    command.add_overrides(parser, "recipe settings to change")
    command.add_option(parser, "--recipe", "moving_shapes", "name or path of a recipe")
    command.add_option(parser, "--prompts", 24, "prompts in each of two repeats")
    text = "number of generators; default: one per core, or per GPU"
    parser.add_argument("--workers", type=int, help=text)
    command.add_option(parser, "--steps", 6, "training steps measured; 0 = none")
    add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a table and the same numbers as JSON."""
    options = _parser().parse_intermixed_args(argv)

    from jobs.bench.stages import training
    from videorl.recipes.reading import load_recipe

    keep_priority()  # as the stock pipeline runs
    workers = options.workers or _num_devices()
    sizes = [f"generators.{name}_workers={workers}" for name in ("min", "max")]
    recipe = load_recipe(options.recipe, [*sizes, "generators.num_cpus=1", *options.overrides])
    found = {"machine": machine(), **throughput(recipe, options.prompts)}
    if options.steps:
        for staleness in (0, 1):
            recipe.rollouts.max_staleness = staleness
            found[f"training, max_staleness {staleness}"] = training(recipe, options.steps)
    for title, numbers in found.items():
        show(numbers, title)
    print(f"\n{json.dumps(found, indent=2)}")
    write_json(options.json, found)
    return 0


def machine() -> dict[str, Any]:
    """Return what the numbers depend on; a load above 0 means that other processes worked too."""
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
    """Measure stock, pool, pool, stock, so that a machine that slows down favours neither."""
    from videorl.types import WeightVersion

    unknown = WeightVersion(0, "")
    first = requests(recipe, unknown, 0, num_prompts)
    second = requests(recipe, unknown, num_prompts, num_prompts)
    stock = [run_stock(recipe, first)]
    pool = run_pool(recipe, num_prompts)
    stock.append(run_stock(recipe, second))
    count = num_prompts * recipe.prompts.candidates_per_prompt
    per_s = [2 * count / sum(repeat.seconds for repeat in ways) for ways in (stock, pool)]
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
            "pool workers busy while requests queue": [
                round(repeat.busy_share, 3) for repeat in pool
            ],
            "largest pixel difference, of 1": round(float(difference), 4),
        }
    }


def requests(recipe: Recipe, version: WeightVersion, first: int, count: int) -> list[SampleRequest]:
    """Return requests for consecutive positions of the recipe's prompt stream."""
    from videorl.data.prompts import open_prompts
    from videorl.rollouts import request_for

    prompts = open_prompts(recipe)
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
    import torch

    from actors.assembly import start_pools
    from actors.cluster import connect
    from actors.compute_type import computing_devices
    from actors.placement import live_nodes, place, wait_until_serving
    from actors.pool.places import Places
    from actors.seats.booking import Booking
    from actors.store.weights import create_weight_store, publish
    from videorl.policies import load_policy
    from videorl.policies.devices import compute_type
    from videorl.types import WeightVersion
    from videorl.weights import digest

    num_workers = recipe.generators.max_workers
    with connect("local", num_cpus=place(recipe, []).num_cpus()), ExitStack() as stack:
        nodes = live_nodes()
        if recipe.policy.dtype == "auto":
            recipe.policy.dtype = compute_type(computing_devices(recipe, nodes))
        parts, cpu = frozenset({"transformer"}), torch.device("cpu")
        policy = load_policy(
            recipe.policy, recipe.sampling, parts=parts, device=cpu, seed=recipe.seed
        )
        weights = policy.weights()
        version = WeightVersion(0, digest(weights))
        store, placement = create_weight_store(keep=1), place(recipe, nodes)
        publish(store, version, weights)
        generator, _ = start_pools(
            recipe, placement, Booking(placement, {}, can_grow=True), store, stack
        )
        wait_until_serving([generator.pool], Places(placement))
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


if __name__ == "__main__":
    raise SystemExit(command.run(main))
