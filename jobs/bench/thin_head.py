"""What a wide run costs the driver's node: bytes through it, memory of what runs there, throughput.

Two nodes of Ray on one machine: the driver and what runs beside it on the first, stand-ins for
generators, reward model and learner on the second, which has the media. Videos are really encoded,
by the reward workers. Media have the sizes of 81×480×832, or a fraction of them where the memory is
too small for these.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray.cluster_utils import Cluster

from actors.cluster import prepare_environment
from jobs.bench.driver_probe import node_store, probe
from jobs.bench.stand_in_run import stand_in_recipe, stand_in_run, wait_for_workers
from jobs.bench.stand_ins import Pace, Work
from videorl.loop import train
from videorl.run.folder import open_run

if TYPE_CHECKING:
    from actors.generator import RayGenerator
    from videorl.config import Recipe

_CANDIDATES = 2
_FRAMES, _HEIGHT, _WIDTH = 81, 480, 832
_LATENT_BYTES = 16 * 21 * 60 * 104 * 4
"""[C, T, H, W] of the Wan VAE in float32, as generators hand them out."""
_WORK = "work"
_BESIDE = {
    "GCS": ("gcs_server",),
    "archive writer": ("ray::ArchiveWriter", "/archive"),
    "latent keeper": ("ray::LatentKeeper", "/latents"),
    "weight store": ("ray::WeightStore", "/weights"),
}
"""What could grow beside the driver -> parts of the title of its process."""
_SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """One measurement."""

    num_workers: int = 256
    num_shared: int = 8
    """Processes that the generators share."""
    num_rewards: int = 4
    per_round: int = 64
    steps: int = 200
    generate_s: float = 60.0
    """Of a request."""
    fraction: int = 1
    """Media have so many times fewer bytes than those of 81×480×832."""

    @property
    def staleness(self) -> int:
        """Rounds ahead, so that half as many requests as there are workers queue."""
        return math.ceil(1.5 * self.num_workers / self.per_round)

    @property
    def warm_up(self) -> int:
        """Rounds before the clock starts: about one request per worker, and one more."""
        return math.ceil(self.num_workers / self.per_round) + 1

    def work(self) -> Work:
        """Return sizes and place of the media."""
        side = math.sqrt(self.fraction)
        frame = (round(_HEIGHT / side / 2) * 2, round(_WIDTH / side / 2) * 2)
        options = {"num_cpus": 0, "resources": {_WORK: 0.001}}
        shape = (_FRAMES, *frame, 3)
        return Work(_LATENT_BYTES // self.fraction, shape, options, options, self.num_shared)

    def video_bytes(self) -> int:
        """Return the bytes of a video's pixels."""
        return math.prod(self.work().frame_shape)

    def store_bytes(self) -> int:
        """Return the object store that the node of the media needs: a round is scored at a time."""
        alive = (2 * self.per_round + self.num_workers) * _CANDIDATES
        return round(1.25 * alive * (self.video_bytes() + _LATENT_BYTES // self.fraction))

    def recipe(self, run_dir: str) -> Recipe:
        """Return a recipe with more rounds than are measured, so that requests always queue."""
        return stand_in_recipe(
            run_dir,
            num_steps=self.warm_up + self.steps + self.staleness + 1,
            prompts__per_round=self.per_round,
            prompts__candidates_per_prompt=_CANDIDATES,
            rollouts__max_staleness=self.staleness,
            generators__min_workers=self.num_workers,
            generators__max_workers=self.num_workers,
            rewards__0__num_workers=self.num_rewards,
            cluster__keep_latents_on=_WORK,
            archive__videos="pairs",
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """The head after a step."""

    at: float
    driver_bytes: int
    beside_bytes: Mapping[str, int]
    """Of each of `_BESIDE` that is there; private memory, as of the driver."""
    created_bytes: int
    """Put into the head's object store so far, be it made there or brought there."""
    store_bytes: int
    requests: int
    slept_s: float


@dataclass
class Watch:
    """A metric sink that looks at the head after every step."""

    head: str
    generator: RayGenerator | None = None
    moments: list[Moment] = field(default_factory=list[Moment])

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note one step."""
        assert self.generator is not None
        done, seen, store = self.generator.stages().get("sample_s"), probe(), node_store(self.head)
        self.moments.append(
            Moment(
                seen.at,
                seen.memory_bytes,
                beside_driver_bytes(),
                store.cumulative_created_bytes,
                store.object_store_bytes_used,
                done.count if done else 0,
                done.seconds if done else 0.0,
            )
        )


def beside_driver_bytes() -> dict[str, int]:
    """Return the private memory of GCS and of the actors beside the driver, by their names."""
    found: dict[str, int] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
            for name in (name for name, parts in _BESIDE.items() if any(p in title for p in parts)):
                memory = process.memory_info()
                found[name] = found.get(name, 0) + memory.rss - memory.shared
        except psutil.Error:  # it ended meanwhile
            continue
    return found


@contextmanager
def two_nodes(store_bytes: int) -> Iterator[str]:
    """Be connected to a cluster whose second node has the media; give the id of the first."""
    prepare_environment()
    head = {"num_cpus": 2, "object_store_memory": 256 * 2**20, "include_dashboard": False}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=2, resources={_WORK: 1}, object_store_memory=store_bytes)
        ray.init(address=cluster.address, log_to_driver=True, logging_level=logging.WARNING)
        yield ray.get_runtime_context().get_node_id()
    finally:
        ray.shutdown()
        cluster.shutdown()


def smallest_fraction(load: Load, free_bytes: float) -> int:
    """Return the power of 2 by which media are divided to fit into half of the free memory."""
    fraction = 1
    while load.store_bytes() / fraction > free_bytes / 2:
        fraction *= 2
    return fraction


def thin_head(load: Load) -> dict[str, Any]:
    """Measure in a cluster of its own; return the numbers by name."""
    with (
        two_nodes(max(load.store_bytes(), 128 * 2**20)) as head,
        tempfile.TemporaryDirectory() as folder,
    ):
        watch, recipe = Watch(head), load.recipe(folder)
        pace = Pace(load.generate_s, spread=_SPREAD, stagger=load.num_workers)
        with (
            open_run(recipe) as run,
            stand_in_run(recipe, run, watch, pace, work=load.work()) as parts,
        ):
            watch.generator = parts.generator
            wait_for_workers(parts.generator.pool, load.num_workers, 900.0)
            last = load.warm_up + load.steps
            train(recipe, parts.parts, parts.progress, lambda: len(watch.moments) > last)
            parts.parts.archive.flush()
            files = [path.stat().st_size for path in run.archive.glob("videos/*/*.mp4")]
            lost = parts.generator.pool.stats().retried
    return {**numbers(load, watch.moments, files), "requests repeated": lost}


def numbers(load: Load, moments: list[Moment], files: list[int]) -> dict[str, Any]:
    """Return the numbers of the measured steps; memory as the means of each fifth of them."""
    seen = moments[load.warm_up : load.warm_up + load.steps + 1]
    first, last = seen[0], seen[-1]
    wall_s = last.at - first.at
    pixels = load.per_round * _CANDIDATES * load.video_bytes()

    def grown(of: Callable[[Moment], int]) -> list[float]:
        bounds = [len(seen) * number // 5 for number in range(6)]
        parts = [seen[start : max(stop, start + 1)] for start, stop in pairwise(bounds)]
        return [round(sum(map(of, part)) / len(part) / 2**20, 1) for part in parts]

    beside = {
        f"{name}, MiB, in each fifth": grown(lambda one, name=name: one.beside_bytes.get(name, 0))
        for name in _BESIDE
    }
    return {
        "media, share of the true size": f"1/{load.fraction}",
        "generators": load.num_workers,
        "prompts per step": load.per_round,
        "steps": load.steps,
        "wall, s": wall_s,
        "pixels per step, MiB": pixels / 2**20,
        "into the head's store per step, MiB": (last.created_bytes - first.created_bytes)
        / load.steps
        / 2**20,
        "mp4 files per step, MiB": sum(files) / len(moments) / 2**20,
        "driver, MiB, in each fifth": grown(lambda one: one.driver_bytes),
        **beside,
        "head's store, MiB, in each fifth": grown(lambda one: one.store_bytes),
        "share of the ideal throughput": (last.slept_s - first.slept_s)
        / (load.num_workers * wall_s),
    }
