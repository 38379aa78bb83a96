"""The renderer and the defects of the training data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from videorl.worlds.grammar import COLOURS, MOTIONS, SHAPES, SIZES, Scene, scenes
from videorl.worlds.moving_shapes import (
    BACKGROUND,
    CLEAN,
    FPS,
    MAX_SPEED_PX,
    MIN_SPEED_PX,
    NUM_FRAMES,
    SIZE_PX,
    TIP,
    WEB,
    DefectRates,
    film,
    random_path,
    render,
    training_clip,
)

SCENE = Scene("large", "red", "circle", "left")


def _only(*, flicker: float = 0.0, wrong_colour: float = 0.0) -> DefectRates:
    return DefectRates(flicker=flicker, jitter=0.0, wrong_colour=wrong_colour, wrong_direction=0.0)


def test_a_clip_has_the_size_and_rate_of_the_domain() -> None:
    clip = training_clip(np.random.default_rng(0), SCENE)
    assert clip.frames.shape == (NUM_FRAMES, SIZE_PX, SIZE_PX, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.fps == FPS


def test_a_disc_is_full_inside_background_outside_and_soft_between() -> None:
    frame = render("circle", torch.tensor([[16.0, 16.0]]), torch.tensor([0.9, 0.1, 0.1]), 5.0)[0]
    assert frame[:, 16, 16].tolist() == pytest.approx([0.9, 0.1, 0.1], abs=1e-3)
    assert frame[:, 0, 0].tolist() == pytest.approx([BACKGROUND] * 3, abs=1e-6)
    # The outline, where alpha is one half, is five pixels from the centre.
    assert float(frame[0, 16, 21]) == pytest.approx((0.9 + BACKGROUND) / 2, abs=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_have_about_the_area_of_the_disc(shape: str) -> None:
    alpha = render(shape, torch.tensor([[15.5, 15.5]]), torch.ones(3), 5.0)[0, 0]
    area = float(((alpha - BACKGROUND) / (1 - BACKGROUND)).sum())
    assert area == pytest.approx(np.pi * 25, rel=0.25)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_renderer_is_differentiable(shape: str) -> None:
    centres = torch.full((NUM_FRAMES, 2), 15.3, requires_grad=True)
    colour = torch.tensor([0.9, 0.2, 0.1], requires_grad=True)
    radius = torch.tensor(5.0, requires_grad=True)
    right_half = render(shape, centres, colour, radius)[..., SIZE_PX // 2 :].sum()
    right_half.backward()
    assert centres.grad is not None and colour.grad is not None and radius.grad is not None
    # More light on the right when the object moves right, gets brighter or grows.
    assert bool((centres.grad[:, 0] > 0).all())
    assert bool((colour.grad > 0).all())
    assert float(radius.grad) > 0


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="hexagon"):
        render("hexagon", torch.zeros(1, 2), torch.ones(3), 5.0)


def test_paths_are_straight_steady_and_inside() -> None:
    rng = np.random.default_rng(0)
    for scene in scenes():
        path = random_path(rng, scene)
        steps = np.diff(path, axis=0)
        assert np.allclose(steps, steps[0])
        speed = float(steps[0] @ np.asarray(MOTIONS[scene.motion]))
        assert MIN_SPEED_PX <= speed <= MAX_SPEED_PX
        reach = TIP * SIZES[scene.size] - 0.5
        assert path.min() >= reach - 0.5
        assert path.max() <= SIZE_PX - reach


def test_a_clean_clip_is_what_its_scene_says() -> None:
    clip = training_clip(np.random.default_rng(0), SCENE, CLEAN)
    brightest = clip.frames[0].reshape(-1, 3)[clip.frames[0].max(axis=-1).argmax()]
    assert brightest / 255 == pytest.approx(COLOURS["red"], abs=0.02)
    assert clip.frames[0][..., 0].argmax() % SIZE_PX > clip.frames[-1][..., 0].argmax() % SIZE_PX


def test_the_same_seed_films_the_same_clip() -> None:
    first, second = (training_clip(np.random.default_rng(7), SCENE) for _ in range(2))
    assert np.array_equal(first.frames, second.frames)


def test_defects_come_at_the_stated_rates() -> None:
    rng = np.random.default_rng(0)
    rates = _only(wrong_colour=WEB.wrong_colour)
    wrong = 0
    for _ in range(400):
        clip = training_clip(rng, SCENE, rates)
        peak = clip.frames.reshape(-1, 3).max(axis=0) / 255
        wrong += not np.allclose(peak, COLOURS["red"], atol=0.03)
    assert wrong / 400 == pytest.approx(WEB.wrong_colour, abs=0.06)


def test_flicker_scales_whole_frames() -> None:
    clip = training_clip(np.random.default_rng(0), SCENE, _only(flicker=1.0))
    peaks = clip.frames.max(axis=(1, 2, 3)).astype(float)
    assert peaks.std() / peaks.mean() > 0.05
    assert np.all(peaks <= 0.9 * 255 + 1)


def test_film_uses_the_given_path() -> None:
    centres = np.stack([np.arange(NUM_FRAMES) + 10.0, np.full(NUM_FRAMES, 12.0)], axis=1)
    frames = film(SCENE, centres, np.ones(NUM_FRAMES)).frames.astype(float)[..., 0]
    light = frames - frames.min()
    x = (light.sum(axis=1) @ np.arange(SIZE_PX)) / light.sum(axis=(1, 2))
    assert x == pytest.approx(centres[:, 0], abs=0.05)
