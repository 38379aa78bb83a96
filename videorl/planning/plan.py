"""The plan of a run: memory of each role, the split of the GPUs, the pace, and what to change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from videorl.config import Recipe
from videorl.planning.cards import GIB, SHARE, Card
from videorl.planning.models import Configs, read_configs
from videorl.planning.rewards import is_known
from videorl.planning.roles import Needs, count_needs
from videorl.planning.simulate import GENERATOR, LEARNER, simulate
from videorl.planning.split import Split, as_recipe, best_split, stages_of

_WORTH = 1.15
"""A change is advised where steps take so many times longer without it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run of a recipe will need on a kind of GPU."""

    recipe: Recipe
    configs: Configs
    card: Card
    needs: Needs
    split: Split
    num_gpus: float
    """Given, or what the recipe takes."""

    @property
    def asked(self) -> int:
        """Videos of the recipe's micro-batch; `auto` takes as many as fit, and one in any case."""
        asked = self.recipe.learner.micro_batch_size
        return max(1, self.needs.learner.micro_batch_size) if asked == "auto" else int(asked)

    @property
    def candidates_per_hour(self) -> float:
        """Videos sampled and scored; 0 offline."""
        if GENERATOR not in self.needs.roles:
            return 0.0
        prompts = self.recipe.prompts
        per_step = prompts.per_round * prompts.candidates_per_prompt
        return 3600 * per_step / self.split.pace.step_s

    @property
    def hours(self) -> float:
        """Of all steps of the run, without evaluation."""
        return self.recipe.num_steps * self.split.pace.step_s / 3600

    @property
    def download_bytes(self) -> float:
        """Of the files that a node with every role downloads."""
        configs, needs = self.configs, self.needs
        if configs.is_exact:
            policy = sum(configs.stored.values())
        else:
            encoder = needs.roles.get("encoder")
            numbers = {
                "transformer": needs.sizes.transformer,
                "text_encoder": encoder.memory.weights / 2 if encoder else 0.0,
                "vae": needs.vae_parameters,
            }
            policy = sum(numbers[part] * configs.stored[part] for part in numbers)
        rewards = (role.memory.weights for role in needs.roles.values() if role.is_estimate)
        return policy + sum(rewards)

    @property
    def checkpoint_bytes(self) -> float:
        """Of the checkpoints that are kept: masters, both moments, reference, versions in use."""
        sizes, recipe = self.needs.sizes, self.recipe
        versions = (recipe.rollouts.max_staleness + 1) * 2 * sizes.trained
        return recipe.checkpoint.keep * (12 * sizes.trained + sizes.reference_bytes + versions)

    def problems(self) -> list[str]:
        """Return why the run cannot work as it stands; empty if it can."""
        return list(self._problems())

    def advice(self) -> list[str]:
        """Return settings whose change would help, and by how much."""
        return list(self._advice())

    def _problems(self) -> Iterator[str]:
        room = self.card.usable_gib
        for name, role in self.needs.roles.items():
            share = min(role.gpus, 1.0) or 1.0
            if role.memory.peak_gib > room * share:
                lacks = role.memory.peak_gib - room * share
                of = f" of its {role.gpus:g} GPU" if share < 1 else ""
                yield (
                    f"{name} needs {role.memory.peak_gib:.1f} GiB, {self.card.name} has "
                    f"{room * share:.1f} usable{of}: {lacks:.1f} GiB are missing"
                    + self._remedy(name)
                )
        most = self.needs.learner.micro_batch_size
        if 0 < most < self.asked and self.needs.learner.memory.peak_gib <= room:
            yield (
                f"learner.micro_batch_size={self.asked} does not fit: set it to {most} or less "
                "(same result)"
            )

    def _remedy(self, name: str) -> str:
        needs = self.needs
        if name == LEARNER and not needs.learner.checkpointing:
            checked = needs.with_checkpointing
            if checked.micro_batch_size:
                return f"; policy.gradient_checkpointing=true needs {checked.memory.peak_gib:.1f}"
        if name == LEARNER:
            return "; fewer frames or pixels, a lower lora.rank, learner.zero_stage=3 on more ranks"
        if name == GENERATOR:
            return "; sampling.batch_size=1, fewer frames or pixels"
        return "; give its workers a whole GPU, or one with more memory"

    def _advice(self) -> Iterator[str]:
        most = self.needs.learner.micro_batch_size
        if self.asked < most and self.asked < self.needs.num_roles:
            yield (
                f"learner.micro_batch_size={self.needs.num_roles}: both videos of a pair fit at "
                "once, which saves a forward of each"
            )
        if self.split.bottleneck == LEARNER or GENERATOR not in self.needs.roles:
            return
        step_s = self.split.pace.step_s
        stages = stages_of(self.recipe, self.needs, self.split.workers)
        ahead = simulate(replace(stages, staleness=stages.staleness + 1)).step_s
        if step_s > _WORTH * ahead:
            yield (
                f"rollouts.max_staleness={stages.staleness + 1}: roles work at the same time, "
                f"{ahead:.0f} s per step instead of {step_s:.0f}"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain values; sizes in GiB, times in seconds."""
        needs, split = self.needs, self.split
        choices = {"on": needs.with_checkpointing, "off": needs.without_checkpointing}
        return {
            "recipe": self.recipe.name,
            "configs": self.configs.source,
            "gpu": self.card.name,
            "usable_gib": self.card.usable_gib,
            "share_of_rate": SHARE,
            "num_gpus": self.num_gpus,
            "roles": {
                name: {
                    "peak_gib": role.memory.peak_gib,
                    "weights_gib": role.memory.weights / GIB,
                    "reference_gib": role.memory.reference / GIB,
                    "gradients_gib": role.memory.gradients / GIB,
                    "optimizer_gib": role.memory.optimizer / GIB,
                    "buffers_gib": role.memory.buffers / GIB,
                    "activations_gib": role.memory.activations / GIB,
                    "workers": split.workers[name],
                    "gpus": split.gpus[name],
                    "unit": role.unit,
                    "unit_seconds": role.unit_s,
                    "busy": split.pace.busy.get(name),
                    "is_estimate": role.is_estimate,
                }
                for name, role in needs.roles.items()
            },
            "gradient_checkpointing": {
                name: {
                    "micro_batch_size": choice.micro_batch_size,
                    "one_video_gib": choice.one_video.peak_gib,
                    "item_seconds": choice.item_s,
                }
                for name, choice in choices.items()
            },
            "micro_batch_size": needs.learner.micro_batch_size,
            "learn_seconds": needs.learn_s(split.workers[LEARNER]),
            "step_seconds": split.pace.step_s,
            "candidates_per_hour": self.candidates_per_hour,
            "hours": self.hours,
            "bottleneck": split.bottleneck,
            "download_gib_per_node": self.download_bytes / GIB,
            "checkpoints_gib": self.checkpoint_bytes / GIB,
            "not_counted": self.not_counted(),
            "problems": self.problems(),
            "advice": self.advice(),
        }

    def not_counted(self) -> list[str]:
        """Return rewards of which nothing is known, which are taken to need nothing."""
        rewards = self.recipe.rewards if GENERATOR in self.needs.roles else []
        return [reward.key for reward in rewards if not is_known(reward)]


def make_plan(recipe: Recipe, card: Card, num_gpus: int | None = None) -> Plan:
    """Plan a recipe on a kind of GPU.

    Args:
        recipe: The run.
        card: The GPU.
        num_gpus: How many there are, >= 1; None = as many as the recipe's workers take.

    Raises:
        ConfigError: The recipe cannot be planned, or there are too few GPUs.
        CheckpointError: The policy's configurations cannot be read.
    """
    configs = read_configs(recipe.policy.path)
    needs = count_needs(recipe, configs, card)
    split = as_recipe(recipe, needs) if num_gpus is None else best_split(recipe, needs, num_gpus)
    return Plan(recipe, configs, card, needs, split, num_gpus or split.used)
