"""The plan of a run: memory of each role, the split of the GPUs, the pace, and what to change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from videorl.config import Recipe, RewardConfig
from videorl.objectives.objective import RewardObjective
from videorl.planning.alternatives import Alternative, alternatives
from videorl.planning.cards import GIB, Card
from videorl.planning.checkpoints import checkpoints_bytes
from videorl.planning.fitting import check_sharing_of
from videorl.planning.models import Configs, read_configs
from videorl.planning.rates import RATES
from videorl.planning.rewards import is_known, reward_memory
from videorl.planning.roles import Needs, count_needs
from videorl.planning.shadow import compute_dtype
from videorl.planning.simulate import GENERATOR, LEARNER
from videorl.planning.split import Split, as_recipe, best_split, split_at
from videorl.policies import load_family
from videorl.policies.family import pipeline_kind

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
        return max(1, self.needs.learner.auto) if asked == "auto" else int(asked)

    @property
    def candidates_per_hour(self) -> float:
        """Videos sampled and scored, by generators or by a learner that samples; 0 offline."""
        prompts, per_step = self.recipe.prompts, 0
        if self.recipe.learns_online:
            per_step = prompts.per_round * prompts.candidates_per_prompt
        elif isinstance(self.recipe.objective, RewardObjective):
            per_step = prompts.per_round
        return 3600 * per_step / self.split.pace.step_s

    @property
    def alternatives(self) -> list[Alternative]:
        """Changes whose gain follows from counts, and the pace with each on the same workers."""
        return alternatives(self.recipe, self.needs, self.split)

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
            policy = sum(
                needs.stored_numbers[name] * configs.stored[name] for name in configs.parts
            )
        return policy + sum(reward_memory(each, self.recipe)[0].weights for each in self._rewards)

    @property
    def checkpoint_bytes(self) -> float:
        """Of the checkpoints that are kept, and the one that is being written."""
        itemsize = compute_dtype(self.recipe, on_gpu=True).itemsize
        return checkpoints_bytes(self.recipe, self.needs.sizes, itemsize)

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
        if name == LEARNER:
            return self._learner_remedy()
        if name == GENERATOR:
            return (
                "; sampling.batch_size=1, generators.context_parallel=2 or more, fewer frames or "
                "pixels"
            )
        return "; give its workers a whole GPU, or one with more memory"

    def _learner_remedy(self) -> str:
        needs, objective = self.needs, self.recipe.objective
        limit = f"; {needs.learner.limit} takes the most" if needs.learner.limit else ""
        if isinstance(objective, RewardObjective) and needs.learner.limit != "the policy":
            if not objective.checkpoint_decode:
                return f"{limit}: objective.checkpoint_decode=true"
            if needs.learner.limit == "decoding" and not objective.decode_tile_px:
                return f"{limit}: objective.decode_tile_px=256"
        checked = needs.with_checkpointing
        if not needs.learner.checkpointing and checked.micro_batch_size:
            needed = f"policy.gradient_checkpointing=true needs {checked.memory.peak_gib:.1f}"
            return f"{limit}; {needed}"
        if isinstance(objective, RewardObjective):
            return f"{limit}; fewer frames or pixels, a lower lora.rank"
        is_copied = not self.recipe.policy.lora.rank and self.recipe.policy.frozen_device == "auto"
        if is_copied:
            limit += "; policy.frozen_device=cpu"
        return (
            f"{limit}; learner.context_parallel=2 or more, fewer frames or pixels, a lower "
            "lora.rank, learner.zero_stage=3 on more ranks"
        )

    def _advice(self) -> Iterator[str]:
        needs = self.needs
        most = needs.learner.micro_batch_size
        if self.asked < min(most, needs.num_roles):
            yield (
                f"learner.micro_batch_size={needs.num_roles}: both videos of a pair fit at "
                "once, which saves a forward of each"
            )
        if needs.learner.takes_one and self.asked > 1:
            yield (
                "learner.micro_batch_size=1: with objective.checkpoint_decode more at once cost a "
                "forward of decoding and reward"
            )
        step_s = self.split.pace.step_s
        if self.split.bottleneck == LEARNER or not self.recipe.learns_online:
            yield from self._more_ranks(step_s)
            return
        ahead = f"rollouts.max_staleness={self.recipe.rollouts.max_staleness + 1}"
        (pace,) = (each.pace for each in self.alternatives if each.name == ahead)
        if step_s > _WORTH * pace.step_s:
            yield (
                f"{ahead}: roles work at the same time, "
                f"{pace.step_s:.0f} s per step instead of {step_s:.0f}"
            )

    def _more_ranks(self, step_s: float) -> Iterator[str]:
        """Say what twice as many ranks give, where nobody asked for the best split."""
        ranks = self.split.workers[LEARNER]
        if self.num_gpus != self.split.used or ranks >= self.needs.items_per_step:
            return
        more = min(2 * ranks, self.needs.items_per_step)
        workers = {**self.split.workers, LEARNER: more}
        faster = split_at(self.recipe, self.needs, workers).pace.step_s
        if step_s > _WORTH * faster:
            yield (
                f"learner.num_workers={more}: the learner limits the run, "
                f"{faster:.3g} s per step instead of {step_s:.3g}"
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
            "share_of_rate": {work: rate.share for work, rate in RATES.items()},
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
                    "host_gib": role.memory.host / GIB,
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
            "learner_limit": needs.learner.limit,
            "item_seconds": dict(needs.learner.parts_s),
            "learn_seconds": needs.learn_s(
                split.workers[LEARNER], self.recipe.learner.updates_per_round
            ),
            "step_seconds": split.pace.step_s,
            "candidates_per_hour": self.candidates_per_hour,
            "hours": self.hours,
            "bottleneck": split.bottleneck,
            "alternatives": {
                each.name: {
                    "step_seconds": each.pace.step_s,
                    "bottleneck": each.pace.bottleneck,
                }
                for each in self.alternatives
            },
            "download_gib_per_node": self.download_bytes / GIB,
            "checkpoints_gib": self.checkpoint_bytes / GIB,
            "not_counted": self.not_counted(),
            "problems": self.problems(),
            "advice": self.advice(),
        }

    def not_counted(self) -> list[str]:
        """Return rewards of which nothing is known, which are taken to need nothing."""
        return [reward.key for reward in self._rewards if not is_known(reward)]

    @property
    def _rewards(self) -> list[RewardConfig]:
        """Those that some process loads."""
        recipe = self.recipe
        is_used = recipe.has_pools or recipe.objective.learns_from == "prompts"
        return recipe.rewards if is_used else []


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
    pipeline = pipeline_kind(load_family(recipe.policy.family))
    configs = read_configs(recipe.policy.path, pipeline)
    check_sharing_of(recipe, configs)
    needs = count_needs(recipe, configs, card)
    split = as_recipe(recipe, needs)
    plan = Plan(recipe, configs, card, needs, split, split.used)
    return plan if num_gpus is None else with_gpus(plan, num_gpus)


def with_gpus(plan: Plan, num_gpus: int) -> Plan:
    """Return the plan with the best split of so many GPUs.

    Raises:
        ConfigError: There are too few GPUs.
    """
    recipe, needs = plan.recipe, plan.needs
    split = best_split(recipe, needs, num_gpus)
    if needs.at_ranks is not None:  # what ZeRO shares out depends on the split
        needs = needs.at_ranks(split.workers[LEARNER])
        split = split_at(recipe, needs, split.workers)
    return replace(plan, needs=needs, split=split, num_gpus=num_gpus)
