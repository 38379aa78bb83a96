"""Sampling, resizing and patches of Qwen2-VL videos, by hand and against transformers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from videorl.errors import VideoError
from videorl.rewards.video_reward.qwen_video import cut, resize, resized_hw, sample_indices


@pytest.mark.parametrize(
    ("num_frames", "fps", "count"),
    [
        (81, 16.0, 10),  # 10.125 wanted
        (20, 8.0, 4),  # 5 wanted: half of it rounds to the even 2
        (28, 8.0, 8),  # 7 wanted: half of it rounds to the even 4
        (24, 24.0, 4),  # 2 wanted, 4 is the least
        (3, 8.0, 2),  # as many pairs as there are
        (2000, 2.0, 768),  # the most
        (2000, 1.0, 768),
    ],
)
def test_an_even_number_of_frames_is_sampled(num_frames: int, fps: float, count: int) -> None:
    indices = sample_indices(num_frames, fps, 2.0)
    assert len(indices) == count
    assert (indices[0], indices[-1]) == (0, num_frames - 1)


def test_sampled_frames_are_evenly_spread_and_rounded() -> None:
    assert sample_indices(5, 25.0, 2.0) == [0, 1, 3, 4]  # 0, 1.33, 2.67, 4


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((480, 832), (336, 588)),  # too many pixels
        ((64, 96), (280, 392)),  # too few
        ((400, 400), (392, 392)),  # only rounded: 14.29 units
    ],
)
def test_frames_are_resized_to_multiples_of_28(
    size: tuple[int, int], resized: tuple[int, int]
) -> None:
    assert resized_hw(*size, 200704) == resized


def test_sampling_is_that_of_the_description_for_any_length_and_rate() -> None:
    """Reckoned in exact fractions from the specification, apart from the code's own steps."""
    for fps in (1.0, 2.0, 8.0, 12.5, 15.0, 24.0, 25.0, 30.0, 60.0, 240.0):
        for num_frames in (*range(2, 130), 191, 767, 768, 769, 1001, 5000):
            wanted = Fraction(num_frames) / Fraction(fps) * 2
            wanted = min(max(wanted, Fraction(4)), Fraction(min(768, num_frames) // 2 * 2))
            count = 2 * round(wanted / 2)  # fractions round halves to even, as the authors' code
            indices = sample_indices(num_frames, fps, 2.0)
            assert len(indices) == count, (num_frames, fps)
            exact = [Fraction(i * (num_frames - 1), count - 1) for i in range(count)]
            distances = [abs(got - at) for got, at in zip(indices, exact, strict=True)]
            assert max(distances) <= Fraction(1, 2) + Fraction(1, 10_000), (num_frames, fps)
            assert indices == sorted(set(indices)), (num_frames, fps)


def test_rates_that_are_no_whole_number_are_taken_as_they_are() -> None:
    assert len(sample_indices(150, 30000 / 1001, 2.0)) == 10  # 10.01 wanted
    assert len(sample_indices(33, 9.99, 2.0)) == 6  # 6.6 wanted, half of it rounds to 3
    assert len(sample_indices(33, 9.4, 2.0)) == 8  # 7.02 wanted, half of it rounds to 4


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((28, 5600), (28, 5600)),  # 200 times as wide is still taken: 156,800 pixels
        ((1920, 1080), (588, 336)),  # a portrait, by 448/1440: 597.3 rounded down, and 336 exactly
        ((42, 14), (560, 196)),  # 42/28 and 14/28 round to even: 56 × 28; then up by 13.06
        ((448, 448), (448, 448)),  # exactly the most: 200,704
        ((2, 2), (336, 336)),  # 2 · √(100352/4) = 316.8, rounded up
        ((350, 350), (336, 336)),  # 12.5 units round to the even 12
        ((378, 378), (392, 392)),  # 13.5 units round to the even 14
    ],
)
def test_extreme_sizes_by_hand(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert resized_hw(*size, 200704) == resized


def test_extreme_shapes_are_refused() -> None:
    with pytest.raises(VideoError, match="603×3 pixels"):
        resized_hw(3, 603, 200704)


def test_resizing_keeps_flat_colours_and_stays_within_8_bits() -> None:
    frames = np.zeros((2, 30, 40, 3), np.uint8)
    frames[:, :, 20:] = 255  # a hard edge makes a bicubic filter overshoot
    frames[1] = 77
    resized = resize(frames, 56, 84)
    assert resized.dtype == torch.uint8
    assert (resized[0, :, :, 0] == 0).all()
    assert (resized[0, :, :, -1] == 255).all()
    assert (resized[1] == 77).all()


def bicubic_weights(old: int, new: int) -> np.ndarray:
    """Return the antialiased Keys kernel (a = -1/2) as a matrix [new, old], from its definition."""
    scale = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new
    t = np.abs(np.arange(old) + 0.5 - centres[:, None]) / scale
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (28, 56), (133, 301), (7, 5)])
def test_resizing_is_the_antialiased_bicubic_filter(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    tall, wide = bicubic_weights(size[0], 56), bicubic_weights(size[1], 84)
    exact = tall @ frames[0].transpose(2, 0, 1).astype(np.float64) @ wide.T
    got = resize(frames, 56, 84)[0].double().numpy()
    # Rounded to the nearest level; float32 sums may tip what lies in the middle.
    assert np.abs(got - exact.clip(0, 255)).max() < 0.5 + 1e-3


def test_patches_are_those_of_the_stock_image_processor() -> None:
    from PIL import Image
    from transformers import Qwen2VLImageProcessorPil

    picture = torch.randint(0, 256, (3, 56, 84), dtype=torch.uint8)
    stock = Qwen2VLImageProcessorPil(min_pixels=56 * 84, max_pixels=56 * 84)
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    wanted = stock(images=[image], return_tensors="pt")
    # It repeats an image to fill a pair of frames, as `cut` does with an odd last frame.
    patches = cut(picture[None])
    assert patches.grid_thw == tuple(wanted["image_grid_thw"][0].tolist()) == (1, 4, 6)
    assert patches.num_tokens == 6
    torch.testing.assert_close(patches.pixels, wanted["pixel_values"], rtol=0, atol=1e-6)


def test_patches_of_videos_go_pair_by_pair() -> None:
    frames = torch.randint(0, 256, (4, 3, 28, 56), dtype=torch.uint8)
    whole = cut(frames)
    assert whole.grid_thw == (2, 2, 4)
    halves = torch.cat([cut(frames[:2]).pixels, cut(frames[2:]).pixels])
    assert torch.equal(whole.pixels, halves)
