"""What each role of a run needs: memory on its GPU, and seconds of work per step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.objectives.objective import CandidateObjective
from videorl.planning.cards import GIB, Card
from videorl.planning.memory import Memory, PolicyCounts, Sizes, has_checkpointing
from videorl.planning.models import Configs
from videorl.planning.rewards import reward_memory

FLOAT32 = 2.0
"""How many times longer float32 convolutions (as TF32) take than bfloat16 ones."""
MOST_VIDEOS = 64
"""Larger micro-batches gain nothing at real sizes."""


@dataclass(frozen=True, slots=True)
class Role:
    """One worker of a role: its memory, and the time of a unit of its work."""

    name: str
    memory: Memory
    gpus: float
    """GPUs of one worker; below 1 it shares a GPU."""
    workers: int
    """As the recipe says."""
    unit: str
    """What `unit_s` is the time of."""
    unit_s: float
    is_estimate: bool = False
    """From published sizes, not counted."""


@dataclass(frozen=True, slots=True)
class LearnerChoice:
    """The learner's memory with and without gradient checkpointing."""

    checkpointing: bool
    micro_batch_size: int
    """The most videos at once that fit, 1 ... 64; 0 = not even one does."""
    memory: Memory
    """At the recipe's micro-batch, or at the largest that fits if that is smaller."""
    one_video: Memory
    item_s: float
    """Seconds of one example at one time."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Everything that the plan of a recipe rests on."""

    sizes: Sizes
    with_checkpointing: LearnerChoice
    without_checkpointing: LearnerChoice
    learner: LearnerChoice
    """The one that the recipe asks for."""
    roles: dict[str, Role]
    items_per_step: int
    """Examples times times per example, of one step."""
    num_roles: int
    """Videos of one example."""
    vae_parameters: float

    def learn_s(self, num_ranks: int) -> float:
        """Return the seconds of one optimizer step on so many ranks."""
        return math.ceil(self.items_per_step / num_ranks) * self.learner.item_s


def count_needs(recipe: Recipe, configs: Configs, card: Card) -> Needs:
    """Count every role of a recipe on a card.

    Raises:
        ConfigError: The recipe does not fit the model, or its objective cannot be planned.
    """
    objective, counts = _counts(recipe, configs)
    sizes = counts.sizes()
    generator, step, decode, vae_bytes = counts.generator(_at_once(recipe))
    forward_flops = step.flops / (_at_once(recipe) * _guided(recipe))
    choices = {
        checkpointing: _choice(counts, card, checkpointing, forward_flops)
        for checkpointing in (True, False)
    }
    learner = choices[has_checkpointing(recipe, sizes.transformer)]
    gpus = recipe.learner.num_gpus
    roles = {
        "learner": Role(
            "learner",
            learner.memory,
            1.0 if gpus is None else gpus,
            recipe.learner.num_workers,
            "an example at one time",
            learner.item_s,
        )
    }
    if recipe.learns_online:
        candidates = recipe.prompts.candidates_per_prompt
        steps = recipe.sampling.num_inference_steps * _guided(recipe)
        slower = FLOAT32 if _decodes_in_float32(counts) else 1.0
        sample_s = card.seconds(forward_flops * steps + slower * decode.flops)
        roles["generator"] = _role(
            "generator",
            generator,
            recipe.generators.num_gpus,
            recipe.generators.max_workers,
            ("the candidates of a prompt", candidates * sample_s),
        )
        for reward in recipe.rewards:
            memory, clip = reward_memory(reward, recipe)
            score_s = candidates * card.seconds(clip.flops)
            roles[reward.key] = _role(
                reward.key,
                memory,
                reward.num_gpus,
                reward.most_workers,
                ("the candidates of a prompt", score_s),
                is_estimate=True,
            )
        encoder, prompt = counts.encoder()
        roles["encoder"] = _role(
            "encoder", encoder, recipe.encoder.num_gpus, 1, ("a prompt", card.seconds(prompt.flops))
        )
    items = _examples(recipe) * objective.timesteps_per_pair
    return Needs(
        sizes,
        choices[True],
        choices[False],
        learner,
        roles,
        items,
        counts.num_roles,
        vae_bytes / counts.vae_dtype.itemsize,
    )


def choose_learner(recipe: Recipe, configs: Configs, card: Card) -> LearnerChoice:
    """Count the learner alone, as the recipe asks for it; `item_s` is not counted.

    Raises:
        ConfigError: As `count_needs`.
    """
    _, counts = _counts(recipe, configs)
    return _choice(counts, card, has_checkpointing(recipe, counts.sizes().transformer), 0.0)


def _counts(recipe: Recipe, configs: Configs) -> tuple[CandidateObjective, PolicyCounts]:
    objective = recipe.objective
    if not isinstance(objective, CandidateObjective):
        raise ConfigError(
            f"objective.name={objective.name} samples and decodes in the learner, which is not "
            "planned; docs/benchmarks.md has what was measured"
        )
    frozen = frozenset(objective.frozen_roles(recipe.video_pixels))
    return objective, PolicyCounts(recipe, configs, frozen)


def _role(
    name: str,
    memory: Memory,
    gpus: float | None,
    workers: int,
    unit: tuple[str, float],
    *,
    is_estimate: bool = False,
) -> Role:
    takes = (1.0 if memory.peak else 0.0) if gpus is None else gpus
    return Role(name, memory, takes, workers, *unit, is_estimate)


def _choice(
    counts: PolicyCounts, card: Card, checkpointing: bool, forward_flops: float
) -> LearnerChoice:
    one = counts.learner(checkpointing)
    ranks, roles = counts.recipe.learner.num_workers, counts.num_roles
    fixed = counts.memory(0.0, ranks)
    room = (card.usable_gib * GIB - (fixed.peak - fixed.activations)) / one.num_bytes
    most = max(0, min(int(room), MOST_VIDEOS))
    if most > roles:
        most -= most % roles
    asked = counts.recipe.learner.micro_batch_size
    used = max(1, most if asked == "auto" else min(most, int(asked)))
    # Videos of a pair one after the other cost one more forward each.
    extra = forward_flops if used < roles else 0.0
    return LearnerChoice(
        checkpointing,
        most,
        counts.memory(one.num_bytes * used, ranks),
        counts.memory(one.num_bytes, ranks),
        card.seconds(roles * (one.flops + extra)),
    )


def _at_once(recipe: Recipe) -> int:
    return recipe.sampling.batch_size or recipe.prompts.candidates_per_prompt


def _guided(recipe: Recipe) -> int:
    return 2 if recipe.sampling.guidance_scale > 1 else 1


def _decodes_in_float32(counts: PolicyCounts) -> bool:
    return counts.vae_dtype.itemsize == 4


def _examples(recipe: Recipe) -> int:
    """Return examples of a step: a pair per prompt, or all candidates."""
    per_prompt = recipe.prompts.candidates_per_prompt
    is_pair = recipe.objective.learns_from == "pairs" or not recipe.learns_online
    return recipe.prompts.per_round * (1 if is_pair else per_prompt)
