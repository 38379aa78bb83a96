"""Policies of a comparison on pools of generators."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from actors.assembly import start_generators
from actors.compute_type import computing_devices
from actors.naming import run_name
from actors.placement import check_feasible, live_nodes, place, wait_until_serving
from actors.pool.places import Places
from actors.store.media import save_videos
from actors.store.weights import create_weight_store, publish
from videorl.measures.engines import Engine, sampling_only
from videorl.measures.policies import NamedPolicy
from videorl.policies.devices import compute_type
from videorl.types import WeightVersion
from videorl.weights import digest

logger = logging.getLogger(__name__)


@contextmanager
def on_pools(policy: NamedPolicy) -> Iterator[Engine]:
    """Start the generators and the encoder of a policy, as its recipe says; Ray is connected.

    Raises:
        ResourceError: They do not fit.
    """
    nodes = live_nodes()
    recipe = sampling_only(policy.recipe)
    if recipe.policy.dtype == "auto":
        dtype = compute_type(computing_devices(recipe, nodes))
        recipe = replace(recipe, policy=replace(recipe.policy, dtype=dtype))
    placement = place(recipe, nodes)
    check_feasible(placement, nodes, can_grow=recipe.cluster.can_grow)
    with ExitStack() as stack:
        store = create_weight_store(1, run_name(recipe))
        generator = start_generators(recipe, placement, store, stack)
        pools = {
            placement.generators.name: generator.pool,
            placement.encoder.name: generator.encoder.pool,
        }
        wait_until_serving(pools.values(), Places(placement, pools))
        if (weights := policy.weights()) is None:
            version = generator.publish_base()
        else:
            version = WeightVersion(0, digest(weights))
            publish(store, version, weights)
        most = 2 * max(recipe.generators.max_workers, 1)
        yield Engine(generator, version, save_videos, most)
        if uncompiled := generator.num_uncompiled():
            logger.warning("policy.compile failed for %d requests, sampled uncompiled", uncompiled)
