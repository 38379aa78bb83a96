"""Clips spoiled on purpose, which a reward model must score lower.

A reward that ignores its prompt, or prefers frozen clips, teaches a policy to do the same. Each
spoiling harms what is shown in one respect alone, of those that VideoReward has (arXiv
2501.13918): visual quality (VQ), motion quality (MQ) and text alignment (TA).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from videorl.data.clips import Clip, ClipSource, Key
from videorl.data.video_io import encode_mp4, read_video
from videorl.errors import ConfigError, VideoError
from videorl.types import Video

logger = logging.getLogger(__name__)

Frames: TypeAlias = npt.NDArray[np.uint8]
"""uint8 [F, H, W, 3]."""

AS_IS = "as it is"
_BLUR_SHARE = 1 / 32
"""Radius of the blur, in shorter sides of the picture."""
_BLOCKS = 12
"""Blocks along the shorter side of the picture."""


@dataclass(frozen=True, slots=True)
class Spoiling:
    """One way to spoil a clip."""

    name: str
    about: str
    """What must score lower: VQ, MQ or TA."""
    spoil: Callable[[Frames, np.random.Generator], Frames] | None
    """Of the pixels; None = the clip gets the prompt of another."""


def frozen(frames: Frames, _: np.random.Generator) -> Frames:
    """Return the middle frame, repeated."""
    return np.repeat(frames[len(frames) // 2 : len(frames) // 2 + 1], len(frames), axis=0)


def shuffled(frames: Frames, rng: np.random.Generator) -> Frames:
    """Return the frames in random order, no frame next to its former successor if possible."""
    order = rng.permutation(len(frames))
    for _ in range(20):
        if not (np.diff(order) == 1).any():
            break
        order = rng.permutation(len(frames))
    return frames[order]


def blurred(frames: Frames, _: np.random.Generator) -> Frames:
    """Return every frame behind a Gaussian blur of a 32nd of the shorter side."""
    from PIL import Image, ImageFilter

    radius = min(frames.shape[1:3]) * _BLUR_SHARE
    blur = ImageFilter.GaussianBlur(radius)
    return np.stack([np.asarray(Image.fromarray(frame).filter(blur)) for frame in frames])


def in_blocks(frames: Frames, _: np.random.Generator) -> Frames:
    """Return every frame as a mosaic, twelve blocks along the shorter side."""
    height, width = frames.shape[1:3]
    side = max(2, min(height, width) // _BLOCKS)
    rows, columns = np.arange(height) // side, np.arange(width) // side
    sums = np.add.reduceat(frames.astype(np.float64), np.arange(0, height, side), axis=1)
    sums = np.add.reduceat(sums, np.arange(0, width, side), axis=2)
    area = np.bincount(rows)[:, None] * np.bincount(columns)[None, :]
    means = np.rint(sums / area[..., None]).astype(np.uint8)
    return means[:, rows][:, :, columns]


SPOILINGS = (
    Spoiling("the prompt of another clip", "TA", None),
    Spoiling("a frozen frame", "MQ", frozen),
    Spoiling("shuffled frames", "MQ", shuffled),
    Spoiling("a blur", "VQ", blurred),
    Spoiling("blocks", "VQ", in_blocks),
)


def other_prompts(prompts: Sequence[str], seed: int) -> dict[str, str]:
    """Return prompt -> a different prompt of the same list, a random cycle through all of them.

    Empty ones, of clips without a prompt, stay as they are.

    Raises:
        ConfigError: There are not two different prompts.
    """
    unique = sorted(set(prompts) - {""})
    if len(unique) < 2:
        raise ConfigError(
            f"a check of what a prompt changes needs clips of two prompts or more, got {unique}"
        )
    order = np.random.default_rng(seed).permutation(len(unique))
    ring = [unique[place] for place in order]
    return {"": "", **dict(zip(ring, ring[1:] + ring[:1], strict=True))}


def spoiled(source: ClipSource, seed: int = 0) -> ClipSource:
    """Return every clip as it is and spoiled in each way, all encoded alike.

    Pixels are spoiled when they are read; equal arguments give equal files. A clip that cannot be
    decoded whole is handed on as it is, also with the prompt of another: a reward that reads some
    of its frames may score it, and others refuse it with their reason. In place of its spoiled
    pixels are files without content, which every reward refuses.

    Args:
        source: The clips.
        seed: Of the order of shuffled frames, and of who gets whose prompt.

    Raises:
        ConfigError: There are not two different prompts.
    """
    others = other_prompts([prompt for _, prompt in source.keys], seed)
    names = [AS_IS, *(spoiling.name for spoiling in SPOILINGS)]
    keys = tuple(key_of(key, name, others) for key in source.keys for name in names)

    def read(wanted: Collection[Key]) -> Iterator[Clip]:
        chosen = set(wanted)
        ways = {
            key: [name for name in names if key_of(key, name, others) in chosen]
            for key in source.keys
        }
        for clip in source.read([key for key, found in ways.items() if found]):
            yield from _spoilt(clip, ways[clip.key], others, seed)

    return ClipSource(keys, read, source.refused)


def key_of(key: Key, name: str, others: Mapping[str, str]) -> Key:
    """Return the key of a clip that was spoiled in a way; `others` is of `other_prompts`."""
    exchanged = any(way.name == name and way.spoil is None for way in SPOILINGS)
    return f"{key[0]} [{name}]", others[key[1]] if exchanged else key[1]


def _spoilt(
    clip: Clip, names: Sequence[str], others: Mapping[str, str], seed: int
) -> Iterator[Clip]:
    ways = {way.name: way.spoil for way in SPOILINGS}
    places = {name: place for place, name in enumerate((AS_IS, *ways))}
    try:
        video = _decoded(clip.content)
    except VideoError as error:
        video = None
        logger.warning("its pixels cannot be spoiled: %s", error)
    for name in names:
        spoil = ways.get(name)
        content: str | bytes = b"" if spoil else clip.content
        if video is not None:
            rng = np.random.default_rng([seed, places[name], len(video.frames)])
            frames = spoil(video.frames, rng) if spoil else video.frames
            content = encode_mp4(Video(frames, video.fps))
        yield Clip(*key_of(clip.key, name, others), content)


def _decoded(content: str | bytes) -> Video:
    if isinstance(content, str):
        return read_video(Path(content))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"
        path.write_bytes(content)
        return read_video(path)
