"""Each rank opens the examples of its own items, and ranks together do the work of one."""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.groups import random_pair
from tests.tiny_policy import EMBED_WIDTH, LATENT_SHAPE, TinyPolicy
from videorl.learning.from_candidates import FromCandidates
from videorl.learning.items import Item
from videorl.learning.share import Update
from videorl.objectives.dpo import FlowDPO
from videorl.types import PreferencePair

TIMES = 3

Opened = tuple[list[Update[Item]], int, Counter[int]]


class Group:
    """Ranks in threads, which wait for each other to add up numbers."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.barrier = Barrier(world_size)
        self.given: dict[int, Tensor] = {}

    def run(self, pairs: list[PreferencePair]) -> list[tuple[list[Item], int, Counter[int]]]:
        """Return each rank's items, what it left out, and what it fetched, by media."""
        return [
            (updates[0].items if updates else [], num_lost, fetched)
            for updates, num_lost, fetched in self.updates(pairs, 1)
        ]

    def updates(self, pairs: list[PreferencePair], num_updates: int) -> list[Opened]:
        """Return the same with the items of each update."""
        with ThreadPoolExecutor(self.world_size) as threads:
            work = partial(self._open, pairs, num_updates)
            return list(threads.map(work, range(self.world_size)))

    def _open(self, pairs: list[PreferencePair], num_updates: int, rank: int) -> Opened:
        fetched: Counter[int] = Counter()

        def fetch(handles: list[Any]) -> list[Any]:
            fetched.update(map(id, handles))
            return handles

        objective = FlowDPO(timesteps_per_pair=TIMES)
        method = FromCandidates(TinyPolicy(), objective, seed=0, fetch=fetch)
        updates, num_lost = method.items(0, pairs, Member(self, rank), num_updates)
        return updates, num_lost, fetched


class Member:
    """One of them."""

    def __init__(self, group: Group, rank: int) -> None:
        self.group, self.rank, self.world_size = group, rank, group.world_size

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        self.group.given[self.rank] = values
        self.group.barrier.wait(180)
        total = torch.stack(list(self.group.given.values())).sum(0)
        self.group.barrier.wait(180)
        return total


def pairs_of(count: int) -> list[PreferencePair]:
    return [random_pair(index, LATENT_SHAPE, EMBED_WIDTH) for index in range(count)]


def media_of(pair: PreferencePair) -> set[int]:
    media = [scored.candidate.latents for scored in pair.candidates]
    return {id(one) for one in [*media, pair.prompt_embeds]}


def key(item: Item) -> tuple[int, float, float]:
    return item.noise_seed, item.t, item.weight


@pytest.mark.parametrize(
    ("num_pairs", "world_size"), [(1, 1), (1, 4), (2, 3), (4, 2), (4, 4), (5, 3), (8, 8)]
)
def test_ranks_together_have_the_items_of_one_and_open_only_their_own(
    num_pairs: int, world_size: int
) -> None:
    pairs = pairs_of(num_pairs)
    ((whole, _, _),) = Group(1).run(pairs)
    assert sum(item.weight for item in whole) == pytest.approx(1.0)
    found = Group(world_size).run(pairs)
    assert [key(item) for items, _, _ in found for item in items if item.weight] == [
        key(item) for item in whole
    ]
    assert {len(items) for items, _, _ in found} == {math.ceil(num_pairs * TIMES / world_size)}
    for items, _, fetched in found:
        seeds = {item.example.seed for item in items}
        own = [pair for pair, seed in zip(pairs, _seeds(whole), strict=True) if seed in seeds]
        assert set(fetched) == set[int]().union(*map(media_of, own))
        assert set(fetched.values()) == {1}, "each once"
    if num_pairs == world_size:
        assert all(len(fetched) == 3 for _, _, fetched in found), "one pair each: three media"


def _seeds(items: list[Item]) -> list[int]:
    return list(dict.fromkeys(item.example.seed for item in items))


def test_all_leave_out_what_one_finds_to_be_not_finite() -> None:
    pairs = pairs_of(6)
    broken = replace(pairs[3], prompt_embeds=pairs[3].prompt_embeds.map(lambda one: one * math.nan))
    given = [*pairs[:3], broken, *pairs[4:]]
    ((whole, num_lost, _),) = Group(1).run(given)
    assert (len(whole), num_lost) == (5 * TIMES, 1)
    found = Group(3).run(given)
    assert [num_lost for _, num_lost, _ in found] == [1] * 3
    together = [key(item) for items, _, _ in found for item in items if item.weight]
    assert together == [key(item) for item in whole]
    assert sum(key[2] for key in together) == pytest.approx(1.0)


def test_nothing_is_left_where_nothing_is_finite() -> None:
    pairs = [
        replace(one, prompt_embeds=one.prompt_embeds.map(lambda rows: rows * math.inf))
        for one in pairs_of(2)
    ]
    for items, num_lost, _ in Group(2).run(pairs):
        assert (items, num_lost) == ([], 2)


@pytest.mark.parametrize(("num_pairs", "num_updates"), [(4, 2), (5, 3), (3, 4), (1, 8)])
def test_updates_have_the_same_items_on_any_number_of_ranks(
    num_pairs: int, num_updates: int
) -> None:
    pairs = pairs_of(num_pairs)
    ((whole, _, _),) = Group(1).updates(pairs, num_updates)
    assert len(whole) == min(num_updates, num_pairs * TIMES)
    sizes = [len(update.items) for update in whole]
    assert max(sizes) - min(sizes) <= 1
    assert [update.share for update in whole] == [size / sum(sizes) for size in sizes]
    ranks = [updates for updates, _, _ in Group(3).updates(pairs, num_updates)]
    for wanted, *parts in zip(whole, *ranks, strict=True):
        assert len({len(part.items) for part in parts}) == 1
        assert {part.share for part in parts} == {wanted.share}
        together = [key(item) for part in parts for item in part.items if item.weight]
        assert together == [key(item) for item in wanted.items]
