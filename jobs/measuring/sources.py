"""Where the clips and scores of `videorl measure` come from: policies and reward models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command
from videorl.errors import ConfigError, StoppedError

if TYPE_CHECKING:
    from videorl.config import Recipe, RewardConfig
    from videorl.measures.engines import Open
    from videorl.measures.folders import Folder
    from videorl.measures.policies import NamedPolicy
    from videorl.measures.rewards import Score
    from videorl.measures.suites import Suite

DEFAULT_RECIPE = "moving_shapes"
ShouldStop = Callable[[], bool]


def read_policies(
    options: argparse.Namespace,
) -> tuple[Recipe, list[NamedPolicy], Suite] | None:
    """Return recipe, policies and prompts; None without `--policy`.

    Raises:
        ConfigError: Something of them cannot be used.
    """
    if not options.policy:
        return None
    from videorl.files.pins import pin_settings
    from videorl.measures.engines import check_images
    from videorl.measures.policies import named_policies
    from videorl.measures.suites import read_suite, suite_of
    from videorl.recipes.reading import load_recipe
    from videorl.run.pins import policy_settings

    recipe = load_recipe(options.recipe or DEFAULT_RECIPE, options.set)
    if not (options.suite or recipe.evaluation.source):
        raise ConfigError("--suite: the recipe has no evaluation.source, so prompts must be given")
    samples, seed = options.samples or 1, options.seed or 0
    read = partial(read_suite, options.suite) if options.suite else partial(suite_of, recipe)
    suite = read(samples, seed=seed, most=options.num_prompts or 0)
    policies = named_policies(options.policy, recipe)
    for policy in policies:
        pin_settings(policy_settings(policy.recipe), {})
    check_images(policies, suite)
    return recipe, policies, suite


def read_rewards(options: argparse.Namespace) -> list[RewardConfig]:
    """Return the reward models that are to score all folders.

    Raises:
        ConfigError: As `load_rewards`.
    """
    if not (options.reward or options.rewards):
        return []
    from videorl.recipes.reading import load_rewards

    return [command.located(reward) for reward in load_rewards(options.reward, options.rewards)]


def places_of(read: tuple[Recipe, list[NamedPolicy], Suite] | None, out: Path) -> list[str]:
    """Return `NAME=FOLDER` of every policy, sampled or not."""
    from videorl.measures.sampling import folders_of

    labels = [policy.label for policy in read[1]] if read else []
    return [f"{label}={place}" for label, place in folders_of(out, labels).items()]


def sampled(
    read: tuple[Recipe, list[NamedPolicy], Suite] | None, options: argparse.Namespace, out: Path
) -> list[str]:
    """Return `NAME=FOLDER` of every policy, sampled as far as that was not done.

    Raises:
        StoppedError: It was stopped; the same call goes on.
    """
    if read is None:
        return []
    from videorl.measures.engines import sample_policies
    from videorl.measures.sampling import folders_of, num_missing

    _, policies, suite = read
    places = folders_of(out, [policy.label for policy in policies])
    left = sum(num_missing(suite, place) for place in places.values())
    print(f"{len(policies)} policies, {left} videos to sample", file=sys.stderr)
    num_cpus = max(_cpus_of(policy) for policy in policies)
    with _workplace(options, num_cpus, needed=left > 0) as (should_stop, is_here):
        found = sample_policies(policies, suite, out, _engine(is_here, should_stop), should_stop)
    if found is None:
        raise StoppedError("stopped")
    return places_of(read, out)


def _engine(is_here: bool, should_stop: ShouldStop) -> Open:
    if is_here:
        from videorl.measures.engines import here

        return here
    from actors.measures.pools import on_pools

    return partial(on_pools, should_stop=should_stop)


def _cpus_of(policy: NamedPolicy) -> float:
    pools = policy.recipe.generators, policy.recipe.encoder
    return pools[0].max_workers * pools[0].num_cpus + pools[1].num_workers * pools[1].num_cpus


@contextmanager
def _workplace(
    options: argparse.Namespace, num_cpus: float, *, needed: bool
) -> Iterator[tuple[ShouldStop, bool]]:
    """Yield what says when to stop, and whether work is done in this process."""
    from videorl.run.stopping import stop_on_signal

    if options.local or not needed:
        with stop_on_signal() as should_stop:
            yield should_stop, True
        return
    from actors.cluster import connect

    # In this order: connecting replaces the handler of SIGTERM by one that exits at once.
    with connect(options.address, num_cpus=num_cpus), stop_on_signal() as should_stop:
        yield should_stop, False


def scored(
    folders: Sequence[Folder],
    rewards: Sequence[RewardConfig],
    options: argparse.Namespace,
    out: Path,
) -> dict[tuple[str, str], Path]:
    """Return the score file of every folder and reward model.

    Raises:
        StoppedError: It was stopped; the same call goes on.
    """
    if not rewards:
        return {}
    from videorl.measures.rewards import score_folders

    num_cpus = max(reward.num_workers * reward.num_cpus for reward in rewards)
    with _workplace(options, num_cpus, needed=True) as (should_stop, is_here):
        score = _scorer(should_stop, is_here)
        found = score_folders(folders, rewards, out, score, should_stop)
    if found is None:
        raise StoppedError("stopped")
    return found


def _scorer(should_stop: ShouldStop, is_here: bool) -> Score:
    from videorl.measures import rewards

    if is_here:
        return rewards.score_here(should_stop)
    from actors.scoring import score_on_cluster

    return lambda source, reward, table: score_on_cluster(
        source, [reward], table, rewards.BATCH, should_stop
    )
