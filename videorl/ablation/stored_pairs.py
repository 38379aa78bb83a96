"""Pairs for offline training: what the base samples in place of an online run's policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from videorl.config import Recipe, RolloutsConfig
from videorl.data.archive import Archive, committed_steps
from videorl.data.prompts import open_prompts
from videorl.one_process import local_pools
from videorl.rollouts import Rollouts
from videorl.step_record import record_step
from videorl.types import WeightVersion
from videorl.weights import digest


def sample_pairs(recipe: Recipe, directory: Path) -> None:
    """Fill an archive with `num_steps` rounds of the base, leaving out those it already has.

    Prompts, candidates' seeds, rewards and selection are those of the recipe's online run, so that
    only the weights that sample differ.
    """
    missing = sorted({*range(recipe.num_steps)} - {*committed_steps(directory)})
    if not missing:
        return
    generator, scorer, weights = local_pools(recipe, lambda _: weights)
    base = WeightVersion(0, digest(weights))
    prompts = open_prompts(recipe)
    select = recipe.example_source()
    archive = Archive(directory, "none", keep_latents=True)
    archive.truncate(recipe.num_steps)
    for step in missing:
        # So stale that the only round, this one, is sampled by version 0.
        stale = replace(recipe, num_steps=step + 1, rollouts=RolloutsConfig(max_staleness=step))
        rollouts = Rollouts(stale, prompts, generator, scorer, step)
        rollouts.admit([base])
        taken = rollouts.take(step)
        examples = [example for group in taken.groups for example in select(group)]
        archive.write(record_step(step, taken, examples, base, base, recipe.pair_rule))
