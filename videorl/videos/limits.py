"""How much one video may cost, by environment variables, so that every command obeys them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from videorl.errors import ConfigError

MAX_FRAMES = "VIDEORL_VIDEO_MAX_FRAMES"
MAX_MIB = "VIDEORL_VIDEO_MAX_MIB"
DEADLINE_S = "VIDEORL_VIDEO_DEADLINE_S"


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """What is refused, by name, instead of filling the memory or holding up a worker."""

    max_frames: float = 36_000
    """Frames that a video may show: 25 minutes at 24 per second. It may last as many seconds."""
    max_mib: float = 1024
    """MiB of decoded RGB frames that are asked for at once."""
    deadline_s: float = 120
    """Seconds to open and decode one file, all reads together."""


def limits_of_environment() -> VideoLimits:
    """Return the limits that the environment sets, and the defaults of the others.

    Raises:
        ConfigError: A variable is not a number above 0.
    """
    usual = VideoLimits()
    return VideoLimits(
        _number(MAX_FRAMES, usual.max_frames),
        _number(MAX_MIB, usual.max_mib),
        _number(DEADLINE_S, usual.deadline_s),
    )


def _number(variable: str, usual: float) -> float:
    text = os.environ.get(variable, "")
    if not text.strip():
        return usual
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise ConfigError(
            f"environment variable {variable} must be a number above 0, got {text!r}; "
            f"unset it for {usual:g}"
        )
    return value
