"""What works on Ray beside a learner that is alone: an encoder, and what watches it where asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial

from ray.actor import ActorHandle

from actors.assembly import named_pools, pools_by_role, start_pools, watched
from actors.encoder import RayEncoder
from actors.naming import run_name
from actors.placement import Placement, wait_until_serving
from actors.pool.control import controlled
from actors.pool.limits import encoder_limits
from actors.pool.places import Places
from actors.pool.pool import ElasticPool
from actors.processes.policy_loading import loader
from actors.seats.booking import Booking
from actors.store.weights import weight_store
from videorl.config import Recipe
from videorl.evaluation.during import DuringTraining, NoEvaluation, open_during
from videorl.protocols import MetricSink
from videorl.run.folder import RunFolder


@dataclass(frozen=True)
class Beside:
    """Who works beside the learner."""

    encoder: RayEncoder
    weights: ActorHandle | None = None
    """The store that the learner publishes to; None = nobody samples from its weights."""
    pools: Mapping[str, ElasticPool] = field(default_factory=dict[str, ElasticPool])
    """By name, those that monitoring shows."""
    wait: Callable[[], None] = lambda: None
    """Returns when all can work, or raises why they never will."""
    watched: Callable[[MetricSink], MetricSink] = lambda sink: sink
    """As in `videorl.learning.loop.Around`."""
    during: Callable[[int], DuringTraining | NoEvaluation] = lambda step: NoEvaluation()
    """Likewise."""


@contextmanager
def beside_learner(
    recipe: Recipe,
    folder: RunFolder,
    placement: Placement,
    booking: Booking,
    places: Places,
    should_stop: Callable[[], bool],
) -> Iterator[Beside]:
    """Start what works beside the learner, inside the block; it loads while the learner does.

    Args:
        recipe: The run; `evaluation.interval` asks for generators and reward workers.
        folder: Its folder.
        placement: What each role needs, by `place_training`.
        booking: The places of the run.
        places: Is told of the pools.
        should_stop: Asked while they are waited for.
    """
    if not recipe.has_pools:
        options, seats = placement.encoder.options(), booking.seats(placement.encoder)
        load, limits = loader(recipe, "text_encoder"), encoder_limits(recipe.encoder)
        with closing(RayEncoder(load, options, limits, run_name(recipe), seats)) as encoder:
            places.pools = {"encoder": encoder.pool}
            yield Beside(encoder)
        return
    with ExitStack() as stack:
        store = stack.enter_context(weight_store(recipe.versions_sampled, run_name(recipe)))
        workers = start_pools(recipe, placement, booking, store, stack)
        places.pools = pools_by_role(placement, *workers)
        pools = named_pools(recipe, *workers)
        stack.enter_context(controlled(folder, pools, places))
        yield Beside(
            workers[0].encoder,
            store,
            pools,
            lambda: wait_until_serving(pools.values(), places, should_stop),
            lambda sink: watched(sink, pools, *workers),
            partial(open_during, recipe, folder.root, workers=workers, is_beside=True),
        )
