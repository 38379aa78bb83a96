"""Waits that end or speak, and failures that pass: what Ray answers is made up here."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ObjectFetchTimedOutError, ObjectLostError, RayActorError

from actors import evaluation, learner_run, scoring
from actors.evaluation import comparison_placement
from actors.learner import rank_group, rank_worker
from actors.learner.learner import RayLearner
from actors.learner.rank_group import RankGroup
from actors.learner.rank_worker import RankSettings, run_rank
from actors.placement import Node, Role, check_feasible, place, wait_until_serving
from actors.pool import control
from actors.pool.control import PoolControl
from actors.pool.dispatcher import Dispatcher
from actors.pool.outcomes import Outcome, judge
from actors.pool.pool import ElasticPool
from actors.pool.state import PoolStats
from actors.processes import archive_encoding
from actors.processes.archive_encoding import encode_parts
from actors.seats.seats import Seats
from actors.store import archive, weights
from actors.store.archive import RayArchive
from tests.ray.roles import LIMITS
from videorl.config import ArchiveConfig, Recipe, RewardConfig
from videorl.data.pair_encoding import Part
from videorl.errors import (
    ArchiveError,
    CheckpointError,
    PoolFailedError,
    StoppedError,
    StoreLostError,
)
from videorl.futures import completed
from videorl.measures.engines import sampling_only
from videorl.run.folder import RunFolder
from videorl.settings.workers import LearnerConfig
from videorl.storage.copies import write_note

SLOW, LOST = ObjectFetchTimedOutError("ab", None, ""), ObjectLostError("ab", None, "")


class Answer:
    """A method of an actor that answers at once."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def remote(self, *arguments: Any) -> Any:
        return SimpleNamespace(future=lambda: completed(lambda: self.value))


def actor() -> Any:
    return SimpleNamespace(__ray_ready__=Answer(True), ready=Answer("node"))


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(ray, "kill", lambda actor, **options: found.append(actor))
    return found


@pytest.mark.usefixtures("killed")
def test_an_actor_that_cannot_be_made_for_a_moment_does_not_end_the_pool() -> None:
    failures = [ConnectionError("the head does not answer")]

    def create(number: int) -> Any:
        if failures:
            raise failures.pop()
        return actor()

    pool = ElasticPool("generator", create, LIMITS)
    try:
        assert pool.wait_until_serving(10)
    finally:
        pool.close()


@pytest.mark.usefixtures("killed")
def test_a_pool_none_of_whose_actors_can_be_made_says_why() -> None:
    def create(number: int) -> Any:
        raise ValueError("no such place")

    pool = ElasticPool("generator", create, replace(LIMITS, min_workers=2))
    try:
        with pytest.raises(PoolFailedError, match=r"3 workers in a row .* no such place"):
            for _ in range(20):
                pool.wait_until_serving(1)
    finally:
        pool.close()


def test_a_pool_with_nothing_to_start_sleeps_when_its_pause_is_over() -> None:
    limits = replace(LIMITS, min_workers=0)
    pool = Dispatcher("generator", lambda number: actor(), limits, lambda act: None, Seats())
    pool._starts.failed(is_serving=True)
    pool._starts.next -= 60.0  # as if a minute later
    pool.look()
    assert pool.seconds_to_next_deadline() is None


@pytest.mark.usefixtures("killed")
def test_a_request_loses_no_attempt_with_a_node_that_its_cloud_takes_back() -> None:
    errors: list[Exception] = [RayActorError(preempted=True) for _ in range(4)]
    pool = ElasticPool("generator", lambda number: actor(), replace(LIMITS, max_retries=0))

    def fail() -> int:
        if errors:
            raise errors.pop()
        return 7

    def call(worker: Any) -> Any:
        return [SimpleNamespace(future=lambda: completed(fail))]

    try:
        assert pool.submit(call).result(180).value == 7
        assert pool.stats().retried == 4
    finally:
        pool.close()


def test_a_store_of_weights_ends_with_what_it_was_for(
    killed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "create_weight_store", lambda keep, run: "the store")
    with weights.weight_store(1) as store:
        assert (store, killed) == ("the store", [])
    assert killed == ["the store"]


def test_what_comes_late_is_tried_again_and_what_is_lost_is_not() -> None:
    assert judge(SLOW) is Outcome.RETRY
    assert judge(LOST) is Outcome.GIVE_UP


@pytest.mark.parametrize(("error", "is_final"), [(SLOW, False), (LOST, True)])
def test_ranks_start_again_when_latents_come_late(
    error: Exception, is_final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, bool]] = []

    def serve(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(rank_worker, "_start", lambda settings: (None, 0, 0))
    monkeypatch.setattr(rank_worker, "_serve", serve)
    monkeypatch.setattr(ray, "get", lambda ref: ref)
    failed = SimpleNamespace(remote=lambda text, **kind: said.append(kind))
    settings = RankSettings(lambda device: None, 1.0, SimpleNamespace(failed=failed))  # pyright: ignore
    if is_final:
        run_rank(settings)
    else:
        with pytest.raises(ObjectFetchTimedOutError):
            run_rank(settings)
    assert [kind.get("is_final", False) for kind in said] == [is_final]


@pytest.mark.parametrize("where", ["_start", "_serve"])
@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (StoreLostError("cannot use s3://bucket/run"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
    ],
)
def test_a_store_that_stayed_away_and_a_full_disk_may_be_well_the_next_time(
    error: OSError, is_lost: bool, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[dict[str, bool]] = []

    def lost(*arguments: Any) -> None:
        if isinstance(error, StoreLostError):
            raise error
        raise CheckpointError("a checkpoint cannot be copied") from error

    monkeypatch.setattr(rank_worker, "_start", lambda settings: (None, 0, 0))
    monkeypatch.setattr(rank_worker, where, lost)
    monkeypatch.setattr(ray, "get", lambda ref: ref)
    failed = SimpleNamespace(remote=lambda text, **kind: said.append(kind))
    run_rank(RankSettings(lambda device: None, 1.0, SimpleNamespace(failed=failed)))  # pyright: ignore
    assert said == [{"is_final": True, "is_lost": is_lost}]


def test_a_verdict_that_comes_as_ray_train_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([([], ["ref"]), (["ref"], []), (["ref"], [])])
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: next(answers))
    monkeypatch.setattr(rank_group, "answer", lambda ref: "the verdict")
    group = object.__new__(RankGroup)
    group._thread = threading.Thread()  # it has ended
    group._error = None
    assert group._wait("ref") == "the verdict"


def stats_of(workers: int, queued: int) -> PoolStats:
    return PoolStats(workers, 2, 1, 0, queued, 0, 0, 0, 0, 0, 0.0, 0.0)


def test_requests_that_nobody_works_on_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    monkeypatch.setattr(control, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(control, "draining_nodes", frozenset)
    pool = SimpleNamespace(limits=LIMITS, stats=lambda: stats_of(0, 3))
    pools: dict[str, Any] = {"generator": pool}
    one = PoolControl(RunFolder(tmp_path), pools, lambda: "CPU 5 / 8 / 0")

    def at(*times: float) -> None:
        for clock[0] in times:
            one.once()

    at(100.0, 129.0)
    assert not caplog.text
    at(130.0, 131.0)
    assert caplog.text.count("generator: 3 requests wait, and for 30 s no worker was ready") == 1
    assert "1 load, 1 have no place); CPU 5 / 8 / 0" in caplog.text
    pool.stats = lambda: stats_of(1, 3)
    at(132.0, 170.0)
    assert caplog.text.count("requests wait") == 1, "somebody works"


def test_a_writer_that_waits_for_files_is_not_killed_for_it(
    killed: list[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_REPORT_S", 0.01)
    held: Any = object.__new__(RayArchive)
    held._config, held._actor = ArchiveConfig(timeout_s=0.05), "the writer"
    held._unwritten = {7: archive._Write(Future(), Future())}
    with pytest.raises(ArchiveError, match="videos of step 7 were not made into mp4 files"):
        held.flush()
    assert not killed
    assert "waiting for the mp4 files of step 7" in caplog.text


def test_starting_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    pool: Any = SimpleNamespace(wait_until_serving=lambda timeout_s: False)
    asked = iter([False, True])
    with pytest.raises(StoppedError):
        wait_until_serving([pool], str, lambda: next(asked))
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: ([], refs))
    group: Any = object.__new__(RankGroup)
    group._thread = threading.current_thread()  # Ray Train is at work
    group._log = SimpleNamespace(wait_restored=SimpleNamespace(remote=object))
    with pytest.raises(StoppedError):
        group.restored(lambda: True)
    # One that is alone is told once, when it is made.
    learner: Any = object.__new__(RayLearner)
    learner._ranks, learner._should_stop = group, lambda: True
    group._thread = threading.Thread()
    with pytest.raises(StoppedError, match="before the learner was up"):
        learner.start()


def test_who_compares_needs_nothing_of_the_learner_s() -> None:
    recipe = Recipe(name="any", rewards=[RewardConfig(name="one")])
    recipe.learner = LearnerConfig(num_workers=2, resources={"learner": 1.0})
    nodes = [Node(8, 0)]
    assert comparison_placement(recipe, nodes).learner.bundle() == {}
    check_feasible(place(sampling_only(recipe), nodes), nodes, can_grow=False)


def stopped(*arguments: Any, **named: Any) -> Any:
    raise StoppedError("stopped while it waited for places on the cluster")


def test_a_stop_while_places_are_waited_for_is_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("newest_weights", "comparison_placement", "live_nodes", "Places"):
        monkeypatch.setattr(evaluation, name, lambda *arguments: (None, None))
    monkeypatch.setattr(evaluation, "book", stopped)
    recipe, folder = Recipe(name="any"), RunFolder(tmp_path)
    kept: Any = None
    assert evaluation.compare(recipe, folder, kept, lambda: True) is None
    monkeypatch.setattr(learner_run, "_train", stopped)
    assert not learner_run.run_learner_only(recipe, folder, lambda: True)
    monkeypatch.setattr(scoring, "connect", lambda address, num_cpus: nullcontext())
    monkeypatch.setattr(scoring, "score_on_cluster", stopped)
    monkeypatch.setattr(scoring, "stop_on_signal", lambda: nullcontext(lambda: True))
    assert not scoring.score_missing(kept, [], kept, 1, None)


class Tasks:
    """Tasks that end when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.cancelled: list[str] = []
        self.begun: list[str] = []
        monkeypatch.setattr(ray, "remote", lambda function: self)
        monkeypatch.setattr(ray, "wait", self._wait)
        monkeypatch.setattr(ray, "cancel", lambda ref, force: self.cancelled.append(ref))
        monkeypatch.setattr(ray, "get", lambda ref: None)

    def options(self, **options: Any) -> Tasks:
        return self

    def remote(self, recipe: Recipe, part: Part, *rest: Any) -> str:
        self.begun.append(part.file.name)
        return part.file.name

    def _wait(
        self, refs: list[str], num_returns: int, timeout: float | None = None
    ) -> tuple[list[str], list[str]]:
        assert timeout is not None, "nobody may be waited for without an end"
        done = [ref for ref in refs if ref in self.done][:1]
        return done, [ref for ref in refs if ref not in done]


def test_encoding_of_an_archive_speaks_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archive_encoding, "_REPORT_S", 0.0)
    tasks, parts = Tasks(monkeypatch), [Part((), tmp_path / name, False) for name in "abc"]
    recipe, asked = Recipe(name="any", run_dir=str(tmp_path)), iter([False, False, True])
    role = Role("encoder", 1, 1.0, 0.0)
    tasks.done = ["b"]
    encoding = encode_parts(role, lambda: "CPU 1 / 1 / 0", lambda: next(asked), recipe, parts)
    next(encoding)
    with pytest.raises(StoppedError):
        next(encoding)
    assert tasks.cancelled == ["a", "c"]
    assert "2 parts of the archive are left: CPU 1 / 1 / 0" in caplog.text


def test_what_other_nodes_encode_for_a_run_in_a_store_is_written_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_note(tmp_path, {"uri": "s3://bucket/run"})
    tasks, part = Tasks(monkeypatch), Part((), tmp_path / "latents" / "part", False)
    tasks.done, recipe = ["part"], Recipe(name="any", run_dir=str(tmp_path))
    monkeypatch.setattr(ray, "get", lambda ref: b"latents")
    role = Role("encoder", 1, 1.0, 0.0)
    list(encode_parts(role, str, lambda: False, recipe, [part]))
    assert part.file.read_bytes() == b"latents"
    assert not tasks.cancelled
