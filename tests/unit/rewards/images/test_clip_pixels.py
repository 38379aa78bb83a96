"""CLIP's preprocessing against transformers' PIL processor and hand-computed crops."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from videorl.rewards.clip_normal import MEAN, STD
from videorl.rewards.images.clip_pixels import (
    float_pixels,
    pil_pixels,
    tensor_pixels,
    torchvision_crop,
    transformers_crop,
)


def smooth(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return one frame of slow waves."""
    y, x = np.mgrid[0 : 3 : height * 1j, 0 : 3 : width * 1j]
    waves = [np.sin(x + 2 * y), np.cos(2 * x), np.sin(x * y)]
    return (127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)[None]


@pytest.mark.parametrize("size", [(48, 83), (83, 48), (30, 30), (17, 40)])
def test_pick_scores_pixels_are_those_of_the_processor(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    wanted = processor(images=list(frames), return_tensors="pt")["pixel_values"]
    got = pil_pixels(frames, 28, transformers_crop)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


def test_margins_are_cut_as_each_library_does() -> None:
    assert [torchvision_crop(margin) for margin in (0, 1, 2, 3, 5, 7)] == [0, 0, 1, 2, 2, 4]
    assert [transformers_crop(margin) for margin in (0, 1, 2, 3, 5, 7)] == [0, 0, 1, 1, 2, 3]


def test_a_square_of_the_right_size_is_only_normalised() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), np.uint8)
    wanted = torch.tensor((frames / 255 - MEAN) / STD, dtype=torch.float32).permute(0, 3, 1, 2)
    for got in (pil_pixels(frames, 28), tensor_pixels(frames, 28)):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("antialias", [True, False])
def test_frames_one_by_one_are_the_same_bits_as_all_at_once(antialias: bool) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 90, 121, 3), np.uint8)
    at_once = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255.0
    wanted = float_pixels(at_once, 28, antialias=antialias)
    assert torch.equal(tensor_pixels(frames, 28, antialias=antialias), wanted)


def test_resizing_as_tensors_is_pils_without_rounding() -> None:
    frames = smooth(90, 121)
    level = 1.01 / 255 / min(STD)  # PIL rounds twice: after the rows and after the columns
    difference = tensor_pixels(frames, 28) - pil_pixels(frames, 28)
    assert 0 < float(difference.abs().max()) < level
    noise = np.random.default_rng(0).integers(0, 256, (1, 90, 121, 3), np.uint8)
    rough = tensor_pixels(noise, 28, antialias=False) - pil_pixels(noise, 28)
    assert float(rough.abs().max()) > 50 * level
