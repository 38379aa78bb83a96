"""Steps of the learner with and without prefetching, in turn: time, and what it changes.

    python -m jobs.bench.learner
    python -m jobs.bench.learner --recipe my_recipe --pairs 8 --steps 20

Two learners of the same policy take the same steps on random latents of the recipe's size, one
with `learner.prefetch`, the other without. A ratio is that of one step's two times, which were
taken one right after the other; the weights must be the same bit for bit at the end.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command
from jobs.bench.measuring import add_json, show, write_json
from videorl.types import Prompt

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from videorl.config import Recipe
    from videorl.learning.learner import Learner
    from videorl.protocols import DifferentiablePolicy
    from videorl.types import PreferencePair

PROMPT = Prompt(0, "a red circle moves left")


def _parser() -> ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.learner", __doc__)
    command.add_overrides(parser, "recipe settings to change")
    command.add_option(parser, "--recipe", "moving_shapes", "name or path of a recipe")
    command.add_option(parser, "--pairs", 4, "pairs per step")
    command.add_option(parser, "--steps", 10, "steps of each learner, after one to warm up")
    add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Take the steps, and print one line for each number."""
    options = _parser().parse_intermixed_args(argv)

    from videorl.recipes.reading import load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    found = measure(recipe, options.pairs, options.steps)
    show(found, f"{options.recipe}, {options.pairs} pairs per step")
    write_json(options.json, found)
    return 0 if found["largest difference of weights"] == 0 else 1


def measure(recipe: Recipe, num_pairs: int, num_steps: int) -> dict[str, float]:
    """Take `num_steps` (>= 1) steps with each learner; return seconds, ratios and differences."""
    with tempfile.TemporaryDirectory() as folder:
        built = {way: _learner(recipe, way, Path(folder)) for way in (True, False)}
        pairs = [_pair(recipe, built[True][1], seed) for seed in range(num_pairs)]
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for step in range(num_steps + 1):
            # Each is as often the first of the two.
            for way in (True, False) if step % 2 else (False, True):
                started = time.perf_counter()
                built[way][0].step(step, pairs)
                seconds[way].append(time.perf_counter() - started)
    after = [policy.weights() for _, policy in built.values()]
    ratios = [without / ahead for ahead, without in zip(seconds[True], seconds[False], strict=True)]
    return {
        "seconds per step with prefetching": statistics.median(seconds[True][1:]),
        "seconds per step without": statistics.median(seconds[False][1:]),
        "without / with, median of pairs": statistics.median(ratios[1:]),
        "without / with, smallest": min(ratios[1:]),
        "without / with, largest": max(ratios[1:]),
        "largest difference of weights": max(
            float((tensor - after[1][name]).abs().max()) for name, tensor in after[0].items()
        ),
    }


def _learner(recipe: Recipe, prefetch: bool, folder: Path) -> tuple[Learner, DifferentiablePolicy]:
    from videorl.learning.build import build_learner
    from videorl.learning.engines.local import LocalEngine

    recipe = replace(
        recipe,
        learner=replace(recipe.learner, prefetch=prefetch),
        checkpoint=replace(recipe.checkpoint, location=str(folder / str(prefetch))),
    )
    learner, policy = build_learner(
        recipe,
        folder,
        lambda module: LocalEngine(module, recipe.optimizer),
        with_text_encoder=True,
    )
    learner.start()
    return learner, policy


def _pair(recipe: Recipe, policy: DifferentiablePolicy, seed: int) -> PreferencePair:
    """Return a pair of random latents of the recipe's size."""
    import torch

    from videorl.planning.models import read_configs
    from videorl.planning.shadow import latent_shape
    from videorl.types import Candidate, PreferencePair, Score, ScoredCandidate, WeightVersion

    shape = latent_shape(recipe, read_configs(recipe.policy.path))
    latents = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))
    version = WeightVersion(0, "random")
    chosen, rejected = (
        ScoredCandidate(Candidate(0, PROMPT, n, n, version, latents[n], None), Score({}, 0.0))
        for n in range(2)
    )
    (embedding,) = policy.encode([PROMPT.text])
    return PreferencePair(PROMPT, embedding, chosen, rejected, margin=1.0)


if __name__ == "__main__":
    raise SystemExit(command.run(main))
