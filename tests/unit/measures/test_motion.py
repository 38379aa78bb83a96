"""Optical flow of a texture that is moved by hand."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from videorl.errors import ConfigError, VideoError
from videorl.measures.motion import motion_magnitude


def moved(pixels: int, count: int = 3) -> np.ndarray:
    """Return frames of a smooth texture that goes so many pixels to the right each time."""
    y, x = np.mgrid[0:64, 0:96]
    frames = []
    for number in range(count):
        at = x - pixels * number
        wave = np.sin(at / 5.0) + np.sin(y / 4.0) + np.sin((at + y) / 7.0)
        frames.append(np.repeat((128 + 40 * wave)[..., None], 3, axis=2))
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("pixels", [1, 3])
def test_a_texture_that_moves(pixels: int) -> None:
    assert motion_magnitude(iter([moved(pixels)])) == pytest.approx(pixels, rel=0.1)


def test_still_frames_do_not_move() -> None:
    frames = moved(0)
    assert motion_magnitude(iter([frames[:1], frames[1:]])) == pytest.approx(0.0, abs=1e-3)
    with pytest.raises(VideoError, match="two frames"):
        motion_magnitude(iter([frames[:1]]))
    with pytest.raises(VideoError, match="16 pixels"):
        motion_magnitude(iter([frames[:, :8]]))


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"videorl\[measure\]"):
        motion_magnitude(iter([moved(1)]))
