"""From pairs to the items of one optimizer step."""

from __future__ import annotations

import pytest
import torch

from videorl.embedding import plain
from videorl.learning.items import (
    Example,
    Item,
    make_batch,
    make_items,
    micro_batches,
    spread_times,
)
from videorl.processes.rectified_flow import RectifiedFlow

PROCESS = RectifiedFlow()


def example(seed: int) -> Example:
    generator = torch.Generator().manual_seed(seed)
    latents_RCTHW = torch.randn(2, 2, 3, 4, 4, generator=generator).to(torch.bfloat16)
    return Example(latents_RCTHW, plain(torch.full((seed + 1, 4), float(seed))), seed)


def items(num_examples: int, times: int) -> list[Item]:
    examples = [example(seed) for seed in range(num_examples)]
    return make_items(examples, times, PROCESS, num_examples)


def test_each_stratum_gets_one_time() -> None:
    for seed in range(50):
        times = spread_times(seed, 4)
        assert [int(4 * t) for t in times] == [0, 1, 2, 3]


def test_times_are_uniform_within_their_stratum() -> None:
    first = torch.tensor([spread_times(seed, 4)[0] for seed in range(2000)]) * 4
    # Mean 1/2 and variance 1/12 of a uniform variable; 4 standard errors are 0.026 and 0.007.
    assert first.mean().item() == pytest.approx(0.5, abs=0.026)
    assert first.var().item() == pytest.approx(1 / 12, abs=0.007)


def test_the_process_maps_the_times() -> None:
    shifted = make_items([example(0)], 3, RectifiedFlow(shift=5.0), 1)
    for unshifted, moved in zip(items(1, 3), shifted, strict=True):
        assert moved.t == pytest.approx(5 * unshifted.t / (1 + 4 * unshifted.t), abs=1e-6)


def test_weights_of_a_step_sum_to_1_and_every_item_has_its_own_noise() -> None:
    found = items(3, 4)
    assert len(found) == 12
    assert sum(item.weight for item in found) == pytest.approx(1.0)
    assert len({item.noise_seed for item in found}) == 12
    assert len({item.t for item in found}) == 12


def test_items_depend_on_the_seed_of_their_example_alone() -> None:
    alone = make_items([example(2)], 4, PROCESS, 3)
    among_others = items(3, 4)[8:]
    assert [(i.t, i.noise_seed) for i in alone] == [(i.t, i.noise_seed) for i in among_others]


@pytest.mark.parametrize("videos", [1, 2, 5, 100])
def test_a_micro_batch_has_whole_items(videos: int) -> None:
    """Each item has two videos."""
    whole = items(5, 1)
    found = micro_batches(whole, videos)
    assert [item for batch in found for item in batch] == whole
    assert {len(batch) for batch in found[:-1]} <= {max(1, videos // 2)}
    assert len(found) == {1: 5, 2: 5, 5: 3, 100: 1}[videos]
    assert micro_batches([], videos) == []


def test_a_batch_by_hand() -> None:
    first, second = items(2, 1)
    batch = make_batch([first, second], PROCESS, torch.device("cpu"))
    assert batch.x_t_NRCTHW.shape == (2, 2, 2, 3, 4, 4)
    assert batch.x_t_NRCTHW.dtype == torch.float32, "in float32 even if latents are stored in less"
    torch.testing.assert_close(batch.t_N, torch.tensor([first.t, second.t]))
    assert batch.weight_N.tolist() == [0.5, 0.5]
    assert [embeds.num_tokens for embeds in batch.prompt_embeds] == [1, 2]
    x0_RCTHW = second.example.latents_RCTHW.float()
    noise_CTHW = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(second.noise_seed))
    torch.testing.assert_close(batch.target_NRCTHW[1], noise_CTHW - x0_RCTHW)
    torch.testing.assert_close(
        batch.x_t_NRCTHW[1], (1 - second.t) * x0_RCTHW + second.t * noise_CTHW
    )


def test_roles_share_noise_and_items_do_not() -> None:
    batch = make_batch(items(2, 1), PROCESS, torch.device("cpu"))
    x0 = torch.stack([example(seed).latents_RCTHW.float() for seed in range(2)])
    noise_NRCTHW = batch.target_NRCTHW + x0
    torch.testing.assert_close(noise_NRCTHW[:, 0], noise_NRCTHW[:, 1])
    assert not torch.allclose(noise_NRCTHW[0], noise_NRCTHW[1])
