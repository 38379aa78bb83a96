"""How to divide GPUs among the roles, so that none waits long for another."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.planning.roles import Needs
from videorl.planning.simulate import GENERATOR, LEARNER, Pace, Stages, simulate


@dataclass(frozen=True, slots=True)
class Split:
    """Workers of each role, and the pace that the model of the loop gives them."""

    workers: Mapping[str, int]
    gpus: Mapping[str, float]
    """GPUs of all workers of a role."""
    pace: Pace

    @property
    def used(self) -> float:
        """GPUs that work at all."""
        return sum(self.gpus.values())

    @property
    def bottleneck(self) -> str:
        """The role whose workers work most of the time."""
        return self.pace.bottleneck


def as_recipe(recipe: Recipe, needs: Needs) -> Split:
    """Return the split that the recipe states."""
    return split_at(recipe, needs, {name: role.workers for name, role in needs.roles.items()})


def best_split(recipe: Recipe, needs: Needs, num_gpus: int) -> Split:
    """Return the split of `num_gpus` GPUs with the fewest seconds per step.

    Learner ranks are tried in steps of about a quarter; what is left goes, worker by worker, to the
    pool with the most work for each of its own. Nobody gets workers that could never be busy.

    Raises:
        ConfigError: There are too few GPUs for one worker of each role.
    """
    group = needs.roles[LEARNER].gpus * needs.ranks_per_item
    others = sum(role.gpus for name, role in needs.roles.items() if name != LEARNER)
    least = group + others
    if num_gpus < math.ceil(least):
        shares = ", ".join(f"{name} {role.gpus:g}" for name, role in needs.roles.items())
        raise ConfigError(
            f"--gpus must be at least {math.ceil(least)}, one worker of each role ({shares}), "
            f"got {num_gpus}"
        )
    items = math.ceil(needs.items_per_step / recipe.learner.updates_per_round)
    found = [
        split_at(recipe, needs, _filled(recipe, needs, num_gpus, ranks))
        for ranks in _ranks(needs, num_gpus - others, items)
    ]
    return min(found, key=lambda split: (round(split.pace.step_s, 6), split.used))


def stages_of(recipe: Recipe, needs: Needs, workers: Mapping[str, int]) -> Stages:
    """Return the times of the model of the loop for so many workers."""
    rewards = [reward.key for reward in recipe.rewards] if recipe.learns_online else []
    # What samples held-out prompts now and then is of no step.
    generator = needs.roles.get(GENERATOR) if recipe.learns_online else None
    return Stages(
        per_round=recipe.prompts.per_round,
        staleness=recipe.rollouts.max_staleness,
        generate_s=generator.unit_s if generator else 0.0,
        score_s={name: needs.roles[name].unit_s for name in rewards},
        learn_s=needs.learn_s(workers[LEARNER], recipe.learner.updates_per_round),
        generators=workers.get(GENERATOR, 1),
        scorers={name: workers[name] for name in rewards},
        parts=recipe.parts_per_prompt(workers.get(GENERATOR, 1)),
    )


def split_at(recipe: Recipe, needs: Needs, workers: Mapping[str, int]) -> Split:
    """Return the split with so many workers of each role."""
    gpus = {name: role.gpus * workers[name] for name, role in needs.roles.items()}
    return Split(workers, gpus, simulate(stages_of(recipe, needs, workers)))


def _ranks(needs: Needs, room: float, items: int) -> list[int]:
    """Return numbers of learner ranks to try: no more than the items of an update keep busy."""
    size = needs.ranks_per_item
    most = min(int(room / (needs.roles[LEARNER].gpus * size or 1.0)), items)
    found, ranks = {1}, 1  # groups of ranks that share videos
    while ranks < most:
        ranks = min(max(ranks + 1, math.ceil(ranks * 1.25)), most)
        found.add(ranks)
    # As many items per rank with fewer ranks: the others would only wait.
    rounds = {math.ceil(items / ranks) for ranks in found}
    return sorted({size * math.ceil(items / count) for count in rounds})


def _filled(recipe: Recipe, needs: Needs, num_gpus: int, ranks: int) -> dict[str, int]:
    workers = {name: ranks if name == LEARNER else 1 for name in needs.roles}
    left = num_gpus - sum(needs.roles[name].gpus * count for name, count in workers.items())
    is_online = recipe.learns_online
    growing = {n: r for n, r in needs.roles.items() if is_online and n not in (LEARNER, "encoder")}
    most = dict.fromkeys(growing, recipe.prompts_in_flight)
    if GENERATOR in most:
        most[GENERATOR] *= recipe.parts_per_prompt(num_gpus)
    heap = [(-role.unit_s, name) for name, role in growing.items()]
    heapq.heapify(heap)
    while heap:
        _, name = heapq.heappop(heap)
        if growing[name].gpus > left or workers[name] >= most[name] or not growing[name].gpus:
            continue  # no room, or no use, for more of these
        workers[name] += 1
        left -= growing[name].gpus
        heapq.heappush(heap, (-growing[name].unit_s / workers[name], name))
    return workers
