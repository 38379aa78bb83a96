"""Scoring video files with reward workers, a bounded number of files at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, suppress
from itertools import islice

from actors.cluster import connect
from actors.placement import check_feasible, live_nodes, place_rewards, wait_until_serving
from actors.pool.places import Places
from actors.reward import RayScorer, start_scorer
from actors.seats.booking import booked
from videorl.config import RewardConfig
from videorl.data.clips import Clip, ClipSource
from videorl.data.score_table import ScoreTable
from videorl.errors import StoppedError
from videorl.rewards.scoring import Result
from videorl.run.progress import progress
from videorl.run.stopping import stop_on_signal

_LOOK_S = 1.0
"""While no batch comes back, look so often whether to stop."""


def score_missing(
    source: ClipSource,
    rewards: Sequence[RewardConfig],
    table: ScoreTable,
    batch_size: int,
    address: str | None,
) -> bool:
    """Score the clips that have no score in the table yet; return False if stopped early.

    Args:
        source: All clips.
        rewards: The models.
        table: Holds the scores so far, and gets the new ones.
        batch_size: Clips that a worker gets at once.
        address: Address of a Ray cluster; None = see `actors.cluster.connect`.

    Raises:
        ResourceError: The cluster does not answer, or can never hold the workers.
        PoolFailedError: The workers of a model cannot start.
    """
    num_cpus = sum(reward.num_workers * reward.num_cpus for reward in rewards)
    with connect(address, num_cpus=num_cpus), stop_on_signal() as should_stop:
        # Where it was stopped while it waited for places or workers, it says so too.
        with suppress(StoppedError):
            score_on_cluster(source, rewards, table, batch_size, should_stop)
        return not should_stop()


def score_on_cluster(
    source: ClipSource,
    rewards: Sequence[RewardConfig],
    table: ScoreTable,
    batch_size: int,
    should_stop: Callable[[], bool],
) -> None:
    """Do what `score_missing` does on the Ray that is connected.

    Raises:
        ResourceError: The cluster can never hold the workers.
        PoolFailedError: The workers of a model cannot start.
        StoppedError: `should_stop` said so while it waited for places or workers.
    """
    nodes = live_nodes()
    placement = place_rewards(rewards, nodes)
    check_feasible(placement, nodes, can_grow=False)
    places = Places(placement)
    with booked(placement, "score", places, should_stop, can_grow=False) as booking:
        seats = [booking.seats(role) for role in placement.rewards]
        scorer = start_scorer(rewards, placement.rewards, None, "score", seats)
        with closing(scorer):
            roles = zip(placement.rewards, scorer.pools, strict=True)
            places.pools = {role.name: pool for role, pool in roles}
            wait_until_serving(scorer.pools, places, should_stop)
            _score(source, rewards, scorer, table, batch_size, should_stop)


def _score(
    source: ClipSource,
    rewards: Sequence[RewardConfig],
    scorer: RayScorer,
    table: ScoreTable,
    batch_size: int,
    should_stop: Callable[[], bool],
) -> None:
    missing = set(source.keys) - table.scored
    batches = score_clips(
        source.read(missing),
        scorer,
        batch_size=batch_size,
        max_batches=2 * max(reward.most_workers for reward in rewards),
        should_stop=should_stop,
    )
    num_done = 0
    with progress("videos", len(missing)) as reach:
        for clips, results in batches:
            table.add(clips, results)
            num_done += len(clips)
            reach(num_done)


def score_clips(
    clips: Iterable[Clip],
    scorer: RayScorer,
    *,
    batch_size: int,
    max_batches: int,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[Sequence[Clip], Mapping[str, Sequence[Result]]]]:
    """Yield every batch with its results, by model, as soon as they are there.

    Args:
        clips: Read only as far as there is room for them.
        scorer: The models.
        batch_size: Clips that a worker gets at once.
        max_batches: Batches that wait for an answer at the same time.
        should_stop: Asked between answers; batches in flight are then dropped.

    Raises:
        PoolFailedError: The workers of a model cannot start.
    """
    source = iter(clips)
    in_flight: dict[Future[dict[str, list[Result]]], list[Clip]] = {}
    while not should_stop():
        while len(in_flight) < max_batches and (batch := list(islice(source, batch_size))):
            in_flight[scorer.submit_clips(batch)] = batch
        if not in_flight:
            return
        done, _ = wait(in_flight, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
        for future in done:
            yield in_flight.pop(future), future.result()
