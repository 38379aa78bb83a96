"""The command log by hand: what a driver and ranks that come and go see of each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actors.learner.command_log import CommandLog
from actors.learner.commands import (
    Export,
    Nothing,
    RehearseCheckpoint,
    RehearseStep,
    Restored,
    Save,
    Step,
    Stop,
)
from actors.learner.deadlines import LOADING, Deadlines, policy_deadlines
from actors.learner.notices import Notices
from actors.learner.policy_rank import PolicyRank
from tests.learners import tiny_learner, tiny_pairs, tiny_recipe
from videorl.config import PromptsConfig, Recipe
from videorl.errors import CheckpointError, LearnerFailedError, LearnerLostError, RehearsalError
from videorl.objectives.refl import ReFL
from videorl.types import WeightVersion
from videorl.weights import digest

VERSION = WeightVersion(0, "digest")


def at(index: int) -> Restored:
    return Restored(index, (VERSION,), None)


QUICK = Deadlines(start_s=0.05, step_s=0.05, sample_s=60.0, save_s=0.05, other_s=60.0)
SLOW = policy_deadlines(Recipe(name="slow"))


def with_log(
    max_failures: int = 5, deadlines: Deadlines = SLOW
) -> Callable[[Callable[[CommandLog], Awaitable[None]]], None]:
    """Run an async story with a new log; a story that waits for ever fails."""

    def run(story: Callable[[CommandLog], Awaitable[None]]) -> None:
        async def main() -> None:
            await asyncio.wait_for(story(CommandLog(max_failures, deadlines)), timeout=60)

        asyncio.run(main())

    return run


async def start(log: CommandLog, index: int = 0) -> None:
    await log.starting(1)
    await log.restored(at(index))


async def give(log: CommandLog, index: int, command: Any, result: Any = "done") -> Any:
    await log.append(index, command)
    assert await log.command(index) == command
    await log.answer(index, result)
    return await log.result(index)


async def is_waiting(awaitable: Awaitable[Any]) -> bool:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(awaitable, timeout=0.05)
    return True


def test_a_command_is_answered_once() -> None:
    async def story(log: CommandLog) -> None:
        assert await is_waiting(log.wait_restored())
        await start(log, 7)
        assert await log.wait_restored() == at(7)
        assert await give(log, 7, Step(0, ()), "output") == "output"
        assert await is_waiting(log.command(8))

    with_log()(story)


def test_a_restarted_group_replays_what_no_checkpoint_covers() -> None:
    async def story(log: CommandLog) -> None:
        await start(log)
        for index, command in enumerate([Step(0, ()), Save({}), Step(1, ()), Step(2, ())]):
            await give(log, index, command, f"first {index}")
        await start(log, 2)
        assert await log.command(2) == Step(1, ())
        await log.answer(2, "again")
        assert await log.command(3) == Step(2, ())
        assert await is_waiting(log.command(1)), "the checkpoint covers it"
        assert await log.starts() == 2

    with_log()(story)


def test_a_group_that_dies_between_writing_a_checkpoint_and_saying_so() -> None:
    async def story(log: CommandLog) -> None:
        await start(log)
        await give(log, 0, Step(0, ()))
        await log.append(1, Save({}))
        waiting = asyncio.ensure_future(log.result(1))
        await start(log, 2)
        assert await waiting is None, "the save was done"

    with_log()(story)


def test_a_failed_save_covers_nothing() -> None:
    async def story(log: CommandLog) -> None:
        await start(log)
        await give(log, 0, Step(0, ()))
        error = await give(log, 1, Save({}), CheckpointError("disk full"))
        assert isinstance(error, CheckpointError)
        await start(log, 0)
        assert await log.command(0) == Step(0, ())

    with_log()(story)


def test_a_save_is_answered_after_the_commands_that_follow_it() -> None:
    """It is written in the background, and the group may die before it is."""

    async def story(log: CommandLog) -> None:
        await start(log)
        await give(log, 0, Step(0, ()))
        await log.append(1, Save({}))
        waiting = asyncio.ensure_future(log.result(1))
        assert await give(log, 2, Step(1, ()), "output") == "output"
        assert not waiting.done()
        await start(log, 0)
        for index in (0, 1, 2):
            await log.answer(index, "again" if index != 1 else None)
        assert await waiting is None
        await start(log, 2)
        assert await log.command(2) == Step(1, ())

    with_log()(story)


def test_a_checkpoint_older_than_the_oldest_command_is_an_error() -> None:
    async def story(log: CommandLog) -> None:
        await start(log)
        await give(log, 0, Step(0, ()))
        await give(log, 1, Save({}))
        with pytest.raises(LearnerFailedError, match="commands before 2 are no longer kept"):
            await start(log, 0)

    with_log()(story)


def test_without_checkpoints_a_command_goes_when_all_ranks_are_past_it() -> None:
    async def story(log: CommandLog) -> None:
        await log.keep_none()
        for rank in (0, 1):
            await log.joined(rank, 2, None)
        await log.starting(2)
        await log.restored(at(0))
        await log.append(0, Save({}))  # written in the background while others follow
        saved = asyncio.ensure_future(log.result(0))
        for index in (1, 2):
            await log.append(index, Step(index, ()))
            await log.command(index, 0, 1)
            await log.answer(index, "output")
            assert await log.result(index) == "output"
        assert await log.command(1, 1, 2) == Step(1, ()), "the other rank is behind"
        await log.command(2, 1, 2)
        await log.answer(0, None)
        assert await saved is None
        await log.append(3, Step(3, ()))
        await log.command(3, 0, 1)
        assert await log.command(2, 1, 2) == Step(2, ())
        await log.command(3, 1, 2)
        assert await is_waiting(log.command(2, 0, 0)), "all are past it"
        with pytest.raises(LearnerFailedError, match=r"begin anew, with checkpoint.interval above"):
            await start(log, 0)

    with_log()(story)


def test_failures_are_counted_per_start_and_not_per_rank() -> None:
    async def story(log: CommandLog) -> None:
        await start(log)
        await log.append(0, Step(0, ()))
        waiting = asyncio.ensure_future(log.result(0))
        for _ in range(2):
            await log.failed("RuntimeError: rank 1 is out of memory")
            await log.failed("RuntimeError: connection reset by peer")
            assert not waiting.done()
            await start(log, 0)
        await log.failed("RuntimeError: rank 1 is out of memory")
        with pytest.raises(LearnerFailedError, match=r"failed 3 times.*rank 1 is out of memory"):
            await waiting

    with_log(max_failures=2)(story)


def test_processes_that_die_without_a_word_are_counted() -> None:
    async def story(log: CommandLog) -> None:
        await log.starting(1)
        await log.starting(1)
        with pytest.raises(LearnerFailedError, match=r"failed 2 times.*its processes died"):
            await asyncio.gather(log.wait_restored(), log.starting(1))

    with_log(max_failures=1)(story)


def test_replaying_is_no_progress() -> None:
    """A command that always fails is found out, however many work before it."""

    async def story(log: CommandLog) -> None:
        await start(log)
        await give(log, 0, Step(0, ()))
        await log.append(1, Step(1, ()))
        waiting = asyncio.ensure_future(log.result(1))
        for _ in range(3):
            await log.failed("ValueError: poison")
            await start(log, 0)
            await log.answer(0, "again")
        with pytest.raises(LearnerFailedError, match="poison"):
            await waiting

    with_log(max_failures=2)(story)


def test_progress_forgives_failures() -> None:
    async def story(log: CommandLog) -> None:
        await start(log)
        for index in range(4):
            await log.failed("RuntimeError: bad luck")
            await start(log, 0)
            assert await give(log, index, Step(index, ()), index) == index

    with_log(max_failures=1)(story)


def test_lost_media_end_a_learner_that_works() -> None:
    async def story(log: CommandLog) -> None:
        await start(log)
        await log.append(0, Step(0, ()))
        await log.failed("latents are gone", is_final=True)
        with pytest.raises(LearnerFailedError, match="cannot go on: latents are gone"):
            await log.result(0)

    with_log(max_failures=5)(story)


def test_an_error_that_would_come_again_is_final_at_once() -> None:
    async def story(log: CommandLog) -> None:
        await log.starting(1)
        await log.failed("ConfigError: no such folder", is_final=True)
        with pytest.raises(LearnerFailedError, match="cannot start: ConfigError: no such folder"):
            await log.wait_restored()

    with_log()(story)


async def late(log: CommandLog) -> None:
    await asyncio.sleep(0.1)
    await log.look()


def test_a_rank_that_hangs_in_a_step_counts_as_failed_and_is_named() -> None:
    async def story(log: CommandLog) -> None:
        zero, one = await log.joined(0, 2, None), await log.joined(1, 2, None)
        await start(log)
        await log.append(0, Step(7, ()))
        await log.command(0, 0, zero)
        await log.command(0, 1, one)
        await log.answer(0, "output")
        assert await is_waiting(log.command(1, 0, zero))  # rank 0 is done, rank 1 is not
        await late(log)
        with pytest.raises(LearnerLostError, match=r"it hung \(rank 1: Step 7, for .* at most 0 s"):
            await log.result(1)

    with_log(max_failures=0, deadlines=QUICK)(story)


def test_a_rank_that_hangs_while_it_loads_is_found_out() -> None:
    async def story(log: CommandLog) -> None:
        await log.joined(0, 1, None)
        await log.starting(1)
        doing = await log.doing()
        assert doing is not None
        assert doing.what == LOADING
        await late(log)
        with pytest.raises(LearnerLostError, match="rank 0: loading its model"):
            await log.wait_restored()

    with_log(max_failures=0, deadlines=QUICK)(story)


def test_ranks_that_wait_or_have_gone_are_never_late() -> None:
    async def story(log: CommandLog) -> None:
        await log.joined(1, 2, None)
        ticket = await log.joined(0, 1, None)  # a group of one follows that of two
        await start(log)
        assert await is_waiting(log.command(0, 0, ticket))
        await late(log)
        assert await log.doing() is None
        assert await give(log, 0, Export("x")) == "done"

    with_log(max_failures=0, deadlines=QUICK)(story)


def test_what_a_dead_group_waited_for_is_no_work_of_the_next() -> None:
    async def story(log: CommandLog) -> None:
        tickets = [await log.joined(rank, 2, None) for rank in (0, 1)]
        await start(log)
        dead = [asyncio.create_task(log.command(0, n, tickets[n])) for n in (0, 1)]
        await asyncio.sleep(0)
        ticket = await log.joined(0, 1, None)
        await log.append(0, Step(0, ()))
        await asyncio.gather(*dead)
        doing = await log.doing()
        assert doing is not None
        assert doing.what == LOADING, "not the step, whose deadline may be shorter"
        await start(log)
        await log.command(0, 0, ticket)
        await log.answer(0, "output")
        assert await is_waiting(log.command(1, 0, ticket))
        assert await log.doing() is None, "there is no rank 1 that could be late"

    with_log()(story)


def test_a_rank_that_is_done_while_it_is_asked_whether_it_lives_is_not_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[object] = []
    monkeypatch.setattr("actors.learner.command_log.ray.kill", killed.append)
    ready = SimpleNamespace(remote=lambda: asyncio.sleep(0.4))
    process = SimpleNamespace(__ray_ready__=ready)

    async def story(log: CommandLog) -> None:
        ticket = await log.joined(0, 1, process)
        await start(log)
        await log.append(0, Step(0, ()))
        await log.command(0, 0, ticket)
        looking = asyncio.create_task(late(log))
        await asyncio.sleep(0.2)
        await log.answer(0, "output")
        assert await is_waiting(log.command(1, 0, ticket))
        await looking
        assert await log.result(0) == "output"

    with_log(max_failures=0, deadlines=QUICK)(story)
    assert killed == []


def test_a_checkpoint_that_hangs_is_answered_and_the_run_goes_on() -> None:
    async def story(log: CommandLog) -> None:
        await start(log)
        await log.append(0, Save({}))
        await log.command(0)
        assert await is_waiting(log.command(1))  # it is written in the background
        doing = await log.doing()
        assert doing is not None
        assert doing.what == "writing a checkpoint"
        await late(log)
        assert "not written within 0 s" in str(await log.result(0))
        await start(log, 0)
        assert await log.command(0) == Save({}), "nothing is covered"
        await log.answer(0, None)  # after all
        await start(log, 1)

    with_log(max_failures=1, deadlines=QUICK)(story)


def test_deadlines_grow_with_what_is_asked() -> None:
    recipe = Recipe(name="large")
    recipe.prompts = PromptsConfig(per_round=64, candidates_per_prompt=4)
    recipe.learner.num_workers = 8
    recipe.learner.worker_timeout_s = 100.0
    recipe.checkpoint.timeout_s = 7.0
    found = policy_deadlines(recipe)
    assert (
        found.of(Step(0, ()))
        == found.of(RehearseStep(()))
        == pytest.approx(100 + 100 * 64 * 4 / 8 / 30)
    )
    assert found.of(Save({})) == found.of(RehearseCheckpoint()) == 7.0
    assert found.of(Export("x")) == 100.0
    assert found.start_s == 1800.0


def test_a_learner_that_samples_in_its_steps_has_the_time_for_it() -> None:
    recipe = Recipe(name="alone", objective=ReFL())
    recipe.prompts = PromptsConfig(per_round=8, candidates_per_prompt=3)
    recipe.sampling.num_inference_steps = 45
    recipe.learner.num_workers = 4
    recipe.learner.worker_timeout_s = 100.0
    wanted = 100 + 100 * 8 * 3 / 4 / 30 + 100 * 2 * 45 / 180
    assert policy_deadlines(recipe).of(Step(0, ())) == pytest.approx(wanted)


def test_a_notice_is_news_once_and_only_where_the_learner_is() -> None:
    class Learner:
        def nodes(self) -> frozenset[str]:
            return frozenset({"a", "b"})

    leaving: frozenset[str] = frozenset()
    notices = Notices(Learner(), lambda: leaving)

    def asked() -> bool:
        notices._looked -= 1.0  # as if a second later
        return notices()

    assert not asked()
    leaving = frozenset({"c"})
    assert not asked(), "a node without a rank"
    leaving = frozenset({"b", "c"})
    assert not notices(), "it looks twice a second at most"
    assert asked()
    assert not asked()
    leaving = frozenset({"a", "b", "c"})
    assert asked(), "another node of the learner's"


def test_ranks_that_go_on_from_a_checkpoint_end_when_the_run_does() -> None:
    async def story(log: CommandLog) -> None:
        await log.append(40, Nothing())
        waiting = asyncio.create_task(log.command(41))
        await asyncio.sleep(0)
        await log.stop()
        assert isinstance(await log.command(40), Nothing), "what was asked for comes first"
        assert isinstance(await waiting, Stop)

    with_log()(story)


def test_the_log_knows_the_nodes_of_the_ranks_that_there_are() -> None:
    async def story(log: CommandLog) -> None:
        await log.joined(0, 2, None, "a")
        await log.joined(1, 2, None, "b")
        assert await log.nodes() == {"a", "b"}
        await log.joined(0, 1, None, "c")
        assert await log.nodes() == {"c"}

    with_log()(story)


def test_resizes_are_no_failures_however_many_but_errors_of_resized_groups_are() -> None:
    async def story(log: CommandLog) -> None:
        await start(log)
        waiting = asyncio.ensure_future(log.result(0))
        await log.append(0, Step(0, ()))
        for number in range(8):
            await log.starting(2 - number % 2)
            await log.restored(at(0))
        assert await is_waiting(asyncio.shield(waiting))
        for number in range(3):
            await log.failed("out of memory")
            await log.starting(1 + number % 2)
        with pytest.raises(LearnerFailedError, match=r"3 times in a row.*out of memory"):
            await waiting

    with_log(max_failures=2)(story)


def test_a_rehearsal_is_not_replayed() -> None:
    async def story(log: CommandLog) -> None:
        await start(log)
        assert await give(log, 0, RehearseStep(()), 1.5) == 1.5
        await log.append(0, Nothing())
        await start(log, 0)
        assert await log.command(0) == Nothing()

    with_log()(story)


def test_a_rank_that_fails_in_a_rehearsal_says_that_it_would_fail_again(tmp_path: Path) -> None:
    learner, policy = tiny_learner(tiny_recipe(), tmp_path)
    rank = PolicyRank(learner, None)
    before = digest(policy.weights())
    assert rank.apply(RehearseStep(tuple(tiny_pairs(0)))) == 0.0
    assert rank.apply(Nothing()) is None
    assert digest(policy.weights()) == before
    with pytest.raises(RehearsalError, match=r"VideoError: .*different shapes"):
        pair, other = tiny_pairs(0, 2)
        small = replace(other.chosen.candidate, latents=torch.zeros(2, 1, 4, 4))
        rank.apply(RehearseStep((replace(pair, chosen=replace(pair.chosen, candidate=small)),)))
