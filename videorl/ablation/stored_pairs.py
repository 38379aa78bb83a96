"""Pairs for offline training: what the base samples where an online run would sample its policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from videorl.config import Recipe, RolloutsConfig
from videorl.data.archive import Archive, committed_steps
from videorl.data.prompts import open_prompts
from videorl.evaluation.unseen import UnseenMetrics
from videorl.policies import load_policy
from videorl.rewards import load
from videorl.rollouts import Rollouts
from videorl.sampling.local import LocalGenerator, LocalScorer
from videorl.step_record import record_step
from videorl.types import WeightVersion
from videorl.weights import digest

_ALL_PARTS = frozenset({"transformer", "vae", "text_encoder"})


def sample_pairs(recipe: Recipe, directory: Path) -> None:
    """Fill an archive with `num_steps` rounds of the base, or with those that it lacks.

    Prompts, candidates' seeds, rewards and selection are those of the recipe's online run, so that
    only the weights that sample differ.
    """
    missing = sorted({*range(recipe.num_steps)} - {*committed_steps(directory)})
    if not missing:
        return
    policy = load_policy(recipe.policy, recipe.sampling, parts=_ALL_PARTS, seed=recipe.seed)
    weights = policy.weights()
    base = WeightVersion(0, digest(weights))
    generator = LocalGenerator(policy, recipe.sampling.negative_prompt, lambda _: weights)
    models = {one.key: load(one.name, one.path, **one.options) for one in recipe.rewards}
    scorer = LocalScorer(models, recipe.rewards, UnseenMetrics(tuple(recipe.metrics.unseen)))
    prompts = open_prompts(recipe.prompts, recipe.seed)
    select = recipe.example_source()
    archive = Archive(directory, "none", keep_latents=True)
    archive.truncate(recipe.num_steps)
    for step in missing:
        # So stale that this round, the only one, is sampled by version 0.
        stale = replace(recipe, num_steps=step + 1, rollouts=RolloutsConfig(max_staleness=step))
        rollouts = Rollouts(stale, prompts, generator, scorer, step)
        rollouts.admit([base])
        taken = rollouts.take(step)
        examples = [one for group in taken.groups for one in select(group)]
        archive.write(record_step(step, taken, examples, base, base, recipe.selection))
