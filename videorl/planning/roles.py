"""What each role of a run needs: memory on its GPU, and seconds of work per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from videorl.config import Recipe
from videorl.objectives.objective import CandidateObjective, RewardObjective
from videorl.planning.cards import GIB, Card
from videorl.planning.encoder import Encoders, count_encoder
from videorl.planning.learning import Candidates, Learning
from videorl.planning.memory import PolicyCounts, has_checkpointing
from videorl.planning.models import Configs
from videorl.planning.rates import FLOAT32, FLOAT32_PRODUCTS
from videorl.planning.reward_learning import Chain, count_chain
from videorl.planning.rewards import reward_memory
from videorl.planning.simulate import GENERATOR, LEARNER
from videorl.planning.sizes import Memory, Sizes

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
    takes_one: bool = False
    """More videos at once would be slower."""
    limit: str = ""
    """What takes the most memory beside the weights, where there is more than one thing."""
    parts_s: Mapping[str, float] = field(default_factory=dict[str, float])
    """What `item_s` is for."""

    @property
    def auto(self) -> int:
        """What `learner.micro_batch_size=auto` is; 0 = not even one fits."""
        return min(1, self.micro_batch_size) if self.takes_one else self.micro_batch_size


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
    stored_numbers: Mapping[str, float]
    """Numbers in the files of each model of the policy."""
    at_ranks: Callable[[int], Needs] | None = None
    """Returns the same for another number of learner ranks, which share out what ZeRO shares."""
    merged_s: float | None = None
    """`unit_s` of a generator whose adapters are merged; None = it has none."""
    ranks_per_item: int = 1
    """Learner ranks that share every video."""

    def learn_s(self, num_ranks: int, num_updates: int = 1) -> float:
        """Return the seconds of one step of so many updates, one after the other, on all ranks."""
        items, num_groups = self.items_per_step / num_updates, num_ranks // self.ranks_per_item
        return num_updates * math.ceil(items / num_groups) * self.learner.item_s


def count_needs(recipe: Recipe, configs: Configs, card: Card, *, on_gpu: bool = True) -> Needs:
    """Count every role of a recipe on a card; `on_gpu` decides what `policy.dtype=auto` is.

    Raises:
        ConfigError: The recipe does not fit the model.
    """
    counts = _counts(recipe, configs, on_gpu)
    encoder = count_encoder(counts)
    pools, forward_flops, merged_s = _pools(counts, card, encoder)
    checked = _learning(counts, True, forward_flops)
    ways = {True: checked, False: _learning(counts, False, forward_flops, checked)}
    gpus = 1.0 if recipe.learner.num_gpus is None else recipe.learner.num_gpus
    stored_numbers = {
        **dict.fromkeys(counts.transformers, counts.sizes.transformer),
        **encoder.numbers,
        "vae": counts.vae_bytes / counts.vae_dtype.itemsize,
    }

    def at_ranks(ranks: int) -> Needs:
        on, off = (
            choice_on(counts, card, (way, ways[way]), ranks, min(gpus, 1.0) or 1.0)
            for way in (True, False)
        )
        learner = on if has_checkpointing(recipe, counts.sizes.transformer) else off
        unit = ("a video" if _samples(recipe) else "an example at one time", learner.item_s)
        role = _role(LEARNER, learner.memory, gpus, recipe.learner.num_workers, unit)
        return Needs(
            counts.sizes,
            on,
            off,
            learner,
            {LEARNER: role, **pools},
            _items(recipe),
            counts.num_roles,
            stored_numbers,
            at_ranks,
            merged_s,
            recipe.learner.context_parallel,
        )

    return at_ranks(recipe.learner.num_workers)


def choose_learner(recipe: Recipe, configs: Configs, card: Card) -> LearnerChoice:
    """Count the learner alone, as the recipe asks for it; its `item_s` is not exact.

    Args:
        recipe: The run.
        configs: Of its policy.
        card: What a rank has: a GPU, or its share of one.

    Raises:
        ConfigError: As `count_needs`.
    """
    counts = _counts(recipe, configs, on_gpu=True)
    checkpointing = has_checkpointing(recipe, counts.sizes.transformer)
    way = (checkpointing, _learning(counts, checkpointing, 0.0))
    return choice_on(counts, card, way, recipe.learner.num_workers, 1.0)


def _counts(recipe: Recipe, configs: Configs, on_gpu: bool) -> PolicyCounts:
    objective = recipe.objective
    if not isinstance(objective, CandidateObjective):
        return PolicyCounts(recipe, configs, frozenset(), on_gpu)
    frozen = frozenset(objective.frozen_roles(recipe.video_pixels))
    return PolicyCounts(recipe, configs, frozen, on_gpu)


def _learning(
    counts: PolicyCounts, checkpointing: bool, forward_flops: float, like: Learning | None = None
) -> Learning:
    objective = counts.recipe.objective
    if isinstance(objective, RewardObjective):
        known = like if isinstance(like, Chain) else None
        return count_chain(counts, objective, checkpointing, known)
    forward_flops /= counts.recipe.learner.context_parallel
    return Candidates(counts.learner(checkpointing), counts.num_roles, forward_flops)


def _pools(
    counts: PolicyCounts, card: Card, encoder: Encoders
) -> tuple[dict[str, Role], float, float | None]:
    """Return all roles but the learner, the operations of a forward, and `Needs.merged_s`."""
    recipe = counts.recipe
    roles: dict[str, Role] = {}
    forward_flops = counts.denoise(1).flops / counts.guided
    merged_s = None
    if recipe.has_pools:
        unit_s, merged_s = _request_s(counts, card, forward_flops)
        if recipe.sampling.merge_lora and merged_s is not None:
            unit_s, merged_s = merged_s, None  # nothing left to gain
        pool = recipe.generators
        unit = ("the candidates of a prompt", unit_s)
        memory = counts.generator(recipe.videos_denoised_at_once)
        process = _role(GENERATOR, memory, pool.num_gpus, pool.max_workers, unit)
        roles[GENERATOR] = replace(process, gpus=process.gpus * pool.context_parallel)
        for reward in recipe.rewards:
            memory, clip = reward_memory(reward, recipe)
            score_s = recipe.prompts.candidates_per_prompt * card.seconds(clip.flops, "scoring")
            unit = ("the candidates of a prompt", score_s)
            role = _role(reward.key, memory, reward.num_gpus, reward.most_workers, unit)
            roles[reward.key] = replace(role, is_estimate=True)
    unit = ("a prompt", card.seconds(_slower(counts) * encoder.prompt.flops, "encoding"))
    pool = recipe.encoder
    roles["encoder"] = _role("encoder", encoder.memory, pool.num_gpus, pool.most_workers, unit)
    return roles, forward_flops, merged_s


def _request_s(
    counts: PolicyCounts, card: Card, forward_flops: float
) -> tuple[float, float | None]:
    """Return the seconds of the candidates of a prompt, as they are and with merged adapters."""
    recipe = counts.recipe
    steps = recipe.sampling.num_inference_steps * counts.forwards
    slower = FLOAT32 if counts.vae_dtype.itemsize == 4 else 1.0
    decode_s = card.seconds(slower * counts.decoding.flops, "decoding")

    def request_s(flops: float) -> float:
        # Of the processes that share a video each does its part.
        shared = _slower(counts) * steps * flops / recipe.generators.context_parallel
        sample_s = card.seconds(shared, "sampling")
        return recipe.prompts.candidates_per_prompt * (sample_s + decode_s)

    has_adapters = recipe.policy.lora.rank > 0
    merged_s = request_s(counts.without_adapters.flops) if has_adapters else None
    return request_s(forward_flops), merged_s


def _slower(counts: PolicyCounts) -> float:
    """Return how many times longer transformers take than in bfloat16."""
    return FLOAT32_PRODUCTS if counts.dtype.itemsize == 4 else 1.0


def _role(
    name: str, memory: Memory, gpus: float | None, workers: int, unit: tuple[str, float]
) -> Role:
    takes = (1.0 if memory.peak else 0.0) if gpus is None else gpus
    return Role(name, memory, takes, workers, *unit)


def choice_on(
    counts: PolicyCounts, card: Card, way: tuple[bool, Learning], ranks: int, share: float
) -> LearnerChoice:
    """Return the learner's memory and time.

    Args:
        counts: Of its policy.
        card: The GPU.
        way: Whether activations are computed again, and what is counted of learning so.
        ranks: Learner ranks, which share out what ZeRO shares.
        share: Of a card that each rank has, in (0, 1].
    """
    checkpointing, learning = way
    room = card.usable_gib * share * GIB

    def memory(num_videos: int) -> Memory:
        base = counts.memory(learning.activations(num_videos), ranks)
        host = base.host + learning.host_bytes(num_videos)
        return replace(base, weights=base.weights + learning.weights, host=host)

    fits = (number for number in range(MOST_VIDEOS, 0, -1) if memory(number).peak <= room)
    most, roles = next(fits, 0), learning.num_roles
    if most > roles:
        most -= most % roles
    asked = counts.recipe.learner.micro_batch_size
    auto = min(1, most) if learning.takes_one else most
    used = max(1, auto if asked == "auto" else min(most, int(asked)))
    of_transformer, slower = ("sampling", "the policy"), _slower(counts)
    parts_s = {
        name: seconds * (slower if name in of_transformer else 1.0)
        for name, seconds in learning.seconds(card, used).items()
    }
    return LearnerChoice(
        checkpointing,
        most,
        memory(used),
        memory(1),
        sum(parts_s.values()),
        learning.takes_one,
        learning.limit(used),
        parts_s,
    )


def _samples(recipe: Recipe) -> bool:
    """Tell whether the learner samples by itself."""
    return recipe.objective.learns_from == "prompts"


def _items(recipe: Recipe) -> int:
    """Return the items of a step: a pair per prompt, or all candidates, at several times each.

    A learner that samples takes one video per prompt.
    """
    objective, prompts = recipe.objective, recipe.prompts
    if not isinstance(objective, CandidateObjective):
        return prompts.per_round
    is_pair = objective.learns_from == "pairs" or not recipe.learns_online
    examples = prompts.per_round * (1 if is_pair else prompts.candidates_per_prompt)
    return examples * objective.timesteps_per_pair
