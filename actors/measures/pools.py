"""Policies of a comparison on pools of generators."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import ray
from ray import ObjectRef

from actors.assembly import start_generators
from actors.compute_type import computing_devices
from actors.naming import run_name
from actors.placement import beside_driver, check_feasible, live_nodes, place, wait_until_serving
from actors.pool.places import Places
from actors.seats.booking import book
from actors.store.weights import publish, weight_store
from videorl.measures.engines import Engine, sampling_only
from videorl.measures.policies import NamedPolicy
from videorl.policies.devices import compute_type
from videorl.types import Video, WeightVersion
from videorl.weights import digest

logger = logging.getLogger(__name__)


@contextmanager
def on_pools(
    policy: NamedPolicy, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[Engine]:
    """Start the generators and the encoder of a policy, as its recipe says; Ray is connected.

    Raises:
        ResourceError: They do not fit.
        StoppedError: `should_stop` said so while it waited for places.
    """
    nodes = live_nodes()
    recipe = sampling_only(policy.recipe)
    if recipe.policy.dtype == "auto":
        dtype = compute_type(computing_devices(recipe, nodes))
        recipe = replace(recipe, policy=replace(recipe.policy, dtype=dtype))
    placement = place(recipe, nodes)
    check_feasible(placement, nodes, can_grow=recipe.cluster.can_grow)
    with ExitStack() as stack:
        places = Places(placement)
        booking = stack.enter_context(book(recipe, placement, places, should_stop))
        store = stack.enter_context(weight_store(1, run_name(recipe)))
        generator = start_generators(recipe, placement, booking, store, stack)
        places.pools = {
            placement.generators.name: generator.pool,
            placement.encoder.name: generator.encoder.pool,
        }
        wait_until_serving(places.pools.values(), places, should_stop)
        if (weights := policy.weights()) is None:
            version = generator.publish_base()
        else:
            version = WeightVersion(0, digest(weights))
            publish(store, version, weights)
        most = 2 * max(recipe.generators.max_workers, 1)
        yield Engine(generator, version, _save, most)
        if uncompiled := generator.num_uncompiled():
            logger.warning("policy.compile failed for %d requests, sampled uncompiled", uncompiled)


def _save(files: Mapping[Path, ObjectRef]) -> None:
    """Write videos as mp4 files on the driver's node, in a process of their own."""
    task = ray.remote(_write).options(**beside_driver(), max_retries=3)
    ray.get(task.remote(list(files), *files.values()))


def _write(paths: Sequence[Path], *videos: Video) -> None:
    from videorl.data.video_io import write_mp4

    for path, video in zip(paths, videos, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, video)
