"""Memory of the learner, from given sizes; the sizes are counted in other tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from videorl.config import PolicyConfig
from videorl.errors import ConfigError
from videorl.planning.cards import GIB, find_card
from videorl.planning.counting import Counted, count_halves, without_numbers
from videorl.planning.learning import Candidates
from videorl.planning.memory import PolicyCounts
from videorl.planning.models import Configs, read_configs
from videorl.planning.rates import FLOAT32_PRODUCTS
from videorl.planning.roles import LearnerChoice, _request_s, choice_on
from videorl.planning.sizes import Sizes
from videorl.policies.plain_family import PlainFamily
from videorl.protocols import Role
from videorl.recipes.reading import load_recipe

SIZES = Sizes(1e9, 1e8, 4e8, 9e8, one_block_bytes=7e6)
"""Frozen bytes, trained numbers, bytes of the reference, parameters."""


def counts(*settings: str, roles: frozenset[Role] = frozenset({"reference"})) -> PolicyCounts:
    recipe = load_recipe("moving_shapes", list(settings))
    made = PolicyCounts(recipe, Configs("here", {}, {}, {}, {}), roles)
    vars(made)["sizes"] = SIZES
    return made


@pytest.mark.parametrize(
    ("stage", "weights", "reference", "gradients", "optimizer", "buffers"),
    [
        (0, 1.4e9, 4e8, 4e8, 8e8, 0),
        (1, 1.4e9, 4e8, 4e8, 2e8 + 1e8, 2e9),
        (2, 1.4e9, 4e8, 1e8, 2e8 + 1e8, 2e9),
        (3, 3.5e8, 1e8, 1e8, 2e8, 2e9 + 1.4e9),  # all is less than what may be gathered
    ],
)
def test_what_four_ranks_share(
    stage: int,
    weights: float,
    reference: float,
    gradients: float,
    optimizer: float,
    buffers: float,
) -> None:
    made = counts(f"learner.zero_stage={stage}")
    memory = made.memory(5e9, 4)
    assert memory.weights == pytest.approx(weights)
    assert memory.gradients == pytest.approx(gradients)
    assert memory.optimizer == pytest.approx(optimizer)
    assert memory.buffers == pytest.approx(buffers)
    assert (memory.reference, memory.activations, memory.host) == (reference, 5e9, 0)
    parts = weights + reference + gradients + optimizer + buffers + 5e9
    assert memory.peak == pytest.approx(parts)
    assert made.memory(5e9, 8).peak <= memory.peak


def test_the_reference_in_host_memory() -> None:
    """Of a frozen copy one block is on the GPU; a second copy computes at another time."""
    full = "policy.lora.rank=0", "sampling.merge_lora=false"
    both = frozenset[Role]({"reference", "base"})
    assert counts(*full).memory(0, 1).reference == 4e8
    assert counts(*full, roles=both).memory(0, 1).reference == 8e8
    away = counts(*full, "policy.frozen_device=cpu", roles=both).memory(0, 1)
    assert (away.reference, away.host) == (7e6, 8e8)


class Away(PlainFamily):
    """A family whose transformers wait in host memory, but for the one in use."""

    def offloads_transformers(self, config: PolicyConfig) -> bool:
        return True


class First(PlainFamily):
    """A family that trains the first transformer alone."""

    def trained_transformers(self, names: Sequence[str], config: PolicyConfig) -> Sequence[str]:
        return names[:1]


def of_two(family: type, **second: int) -> PolicyCounts:
    """Return the counts of a checkpoint with two transformers."""
    index = {"transformer_2": ["diffusers", "AnyTransformer"]}
    parts: dict[str, dict[str, int]] = {"transformer": {"num_layers": 2}}
    parts["transformer_2"] = {"num_layers": 2, **second}
    recipe = load_recipe("moving_shapes", ["learner.zero_stage=0"])
    recipe.policy.family = f"{__name__}:{family.__name__}"
    made = PolicyCounts(recipe, Configs("here", index, {}, parts, {}))
    vars(made).update(of_one_transformer=SIZES, vae_bytes=5e8)
    vars(made).update(_steps={1: Counted(3e9, 0)}, decoding=Counted(1e9, 0))
    return made


def test_two_transformers_lie_beside_each_other() -> None:
    both, away, first = of_two(PlainFamily), of_two(Away), of_two(First)
    assert both.memory(0, 1).weights == 2 * 1e9 + 2 * 4e8
    assert both.memory(0, 1).optimizer == 2 * 8e8
    assert away.memory(0, 1).weights == 1e9 + 2 * 4e8
    assert (both.memory(0, 1).host, away.memory(0, 1).host) == (0, 1e9)
    assert first.memory(0, 1).weights == 2 * 1e9 + 4e8
    # While DeepSpeed starts, both are on the GPU, with room where activations will be.
    assert away.memory(0, 1).activations == 1e9 and away.memory(4e9, 1).activations == 4e9
    # Generators hold both, whatever is trained; adapters are small and stay.
    adapters = 2 * 1e8 * both.dtype.itemsize
    assert both.generator(1).weights == first.generator(1).weights == 2 * 1e9 + adapters + 5e8
    assert (away.generator(1).weights, away.generator(1).host) == (1e9 + adapters + 5e8, 1e9)


def test_blocks_of_the_idle_transformer_wait_in_host_memory() -> None:
    """Of each 1e9 bytes a tenth lies outside of the blocks, and stays."""
    for family, number in ((PlainFamily, 2), (First, 1)):
        made = of_two(family)
        made.recipe.policy.idle_expert = "cpu"
        vars(made)["of_one_transformer"] = replace(SIZES, share_in_blocks=0.9)
        memory, generator = made.memory(0, 1), made.generator(1)
        assert (memory.weights, memory.host) == (1.1e9 + number * 4e8, 9e8)
        adapters = 2 * 1e8 * made.dtype.itemsize
        assert (generator.weights, generator.host) == (1.1e9 + adapters + 5e8, 9e8)
    # What is trained whole stays; the other transformer never computes in its learner.
    for family, host in ((PlainFamily, 0), (First, 9e8 * 0.9 * 2)):
        made = of_two(family)
        made.recipe.policy.idle_expert = "cpu"
        made.recipe.policy.dtype = "bfloat16"
        whole = replace(SIZES, frozen_bytes=0.0, share_in_blocks=0.9)
        vars(made)["of_one_transformer"] = whole
        assert made.memory(0, 1).host == host


def test_transformers_that_are_not_alike_cannot_be_planned() -> None:
    with pytest.raises(ConfigError, match="transformer and transformer_2 are not alike"):
        _ = of_two(PlainFamily, num_layers=3).sizes


def choose(*settings: str, ranks: int = 1, share: float = 1.0, one: bool = False) -> LearnerChoice:
    """Return the choice where a video takes 1 GiB, on a card of 10.6 GiB."""
    made = counts("learner.zero_stage=2", "learner.micro_batch_size=auto", *settings)
    way = Candidates(Counted(GIB, 1e12), 2, 1e11, weights=0.5 * GIB, takes_one=one)
    return choice_on(made, find_card("mine", 10.6 / 0.93, 1), (True, way), ranks, share)


def test_what_is_shared_out_makes_room_for_videos() -> None:
    # 5.53 GiB are held by one rank beside activations, 4.23 GiB by each of eight.
    assert choose().micro_batch_size == 4  # five fit, which is no whole number of pairs
    assert choose(ranks=8).micro_batch_size == 6
    assert choose(share=0.8).micro_batch_size == 2
    assert choose(share=0.3).micro_batch_size == 0


def test_a_recipe_may_ask_for_less_than_fits() -> None:
    two = choose("learner.micro_batch_size=2")
    assert two.memory.activations == 2 * GIB
    assert choose().memory.activations == 4 * GIB
    alone = choose(one=True)
    assert (alone.micro_batch_size, alone.auto) == (4, 1)
    assert alone.memory == alone.one_video
    # A pair's videos one by one cost a forward of each more.
    assert alone.item_s / two.item_s == pytest.approx(1.1)


def test_host_memory_is_counted_apart() -> None:
    with without_numbers():
        ones = torch.ones(1000)

        def work() -> object:
            away = (ones * 2).to("meta")
            return lambda: away.to("cpu")

        between, needs = count_halves(work)  # pyright: ignore[reportArgumentType]
    assert (between, needs.num_bytes, needs.host_bytes) == (0, 4000, 4000)


def test_a_policy_in_float32_computes_slower() -> None:
    card, found = find_card("mine", 80.0, 1.0), list[tuple[float, float]]()
    for dtype in ("bfloat16", "float32"):
        made = counts(f"policy.dtype={dtype}", "policy.lora.rank=0", "sampling.merge_lora=false")
        vars(made)["decoding"] = Counted(0.0, 0.0)
        learning = Candidates(Counted(1e9, 1e12), 2, 1e11)
        learner = choice_on(made, card, (True, learning), 1, 1.0)
        found.append((_request_s(made, card, 1e12)[0], learner.item_s))
    (request_s, item_s), slower = found
    assert slower == pytest.approx((request_s * FLOAT32_PRODUCTS, item_s * FLOAT32_PRODUCTS))


def test_decoding_is_counted_in_the_tiles_that_the_recipe_asks_for() -> None:
    sizes = ["sampling.num_frames=5", "sampling.height=512", "sampling.width=512"]
    whole, tiled = (
        PolicyCounts(
            load_recipe("moving_shapes", [*sizes, f"sampling.vae_tiling={tiling}"]),
            read_configs("moving_shapes_wan"),
        ).decoding
        for tiling in (False, True)
    )
    assert tiled.num_bytes < 0.6 * whole.num_bytes
    assert tiled.flops > whole.flops, "tiles overlap"
