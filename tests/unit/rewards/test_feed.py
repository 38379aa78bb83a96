"""Clips made ready ahead of a network: their order, their number, their errors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from threading import Event, Lock
from typing import Any

import pytest

from videorl.config import RewardConfig
from videorl.errors import ConfigError, VideoError
from videorl.rewards.feed import Feed, load_configured
from videorl.rewards.per_frame import PerFrameReward


def test_results_come_in_order_and_no_more_than_allowed_are_begun() -> None:
    begun: list[int] = []
    first_may_end = Event()

    def prepare(item: int) -> int:
        begun.append(item)
        assert item != 0 or first_may_end.wait(180)
        if item == 2:
            first_may_end.set()  # the first ends last of the three
        return item * item

    made = Feed(3).map(prepare, range(8))
    assert next(made) == 0
    assert sorted(begun) == [0, 1, 2]
    assert list(made) == [1, 4, 9, 16, 25, 36, 49]
    assert list(Feed().map(prepare, [3, 4])) == [9, 16]


@pytest.mark.parametrize("num_threads", [0, 2])
def test_an_error_comes_in_its_turn_and_nothing_far_beyond_it_is_begun(num_threads: int) -> None:
    begun: list[int] = []

    def prepare(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise VideoError("damaged")
        return item

    made = Feed(num_threads).map(prepare, range(100))
    assert next(made) == 0
    with pytest.raises(VideoError, match="damaged"):
        next(made)
    assert max(begun) <= 1 + num_threads


def test_a_recipe_s_section_gives_a_model_its_threads_and_turns(
    load_tiny: Callable[..., Any],
) -> None:
    clip = RewardConfig(
        name=f"{__name__}:make_reward", options={"made_by": load_tiny}, decode_threads=2, prefetch=1
    )
    model = load_configured(clip)
    assert isinstance(model, PerFrameReward)
    assert model.feed.num_threads == 2
    assert isinstance(model.feed.turn, type(Lock()))
    clip.prefetch = 0
    model = load_configured(clip)
    assert isinstance(model, PerFrameReward)
    assert isinstance(model.feed.turn, nullcontext)
    with pytest.raises(ConfigError, match=r"moving_shapes has no attribute `feed`"):
        load_configured(RewardConfig(name="moving_shapes", decode_threads=1))


def make_reward(made_by: Callable[[str], PerFrameReward]) -> PerFrameReward:
    return made_by("laion_aesthetic")
