"""Which videos of several folders belong together, and what is left out and why.

Videos with the same path below their folder, whatever the suffix; where no two folders share a
path, videos with the same prompt.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from videorl.data.clips import Clip, find_clips
from videorl.errors import ConfigError

logger = logging.getLogger(__name__)

PLAYABLE = frozenset({".mp4", ".m4v", ".webm", ".ogv", ".mov"})
"""Suffixes of files that browsers play."""
_WHAT = {True: "name", False: "prompt"}
"""By what videos are paired."""
_SHOWN = 3
"""So much that is left out is named for each reason."""
_LeftOut: TypeAlias = defaultdict[str, list[str]]
"""What is left out and why -> which."""


@dataclass(frozen=True, slots=True)
class Match:
    """A video of each of two folders."""

    prompt: str
    """May be empty."""
    names: tuple[str, str]
    """Of the folders."""
    first: str
    """Absolute path."""
    second: str


def matches(folders: Sequence[Path]) -> Iterator[Match]:
    """Yield the videos of every two folders that belong together; see above.

    Raises:
        ConfigError: A folder is named twice.
        VideoError, PromptError: A folder holds no video, or its prompts cannot be read.
    """
    names = _names(folders)
    left_out: _LeftOut = defaultdict(list)
    clips = [_clips(folder, left_out) for folder in folders]
    combinations = list(itertools.combinations(range(len(folders)), 2))
    paths = [{_stem(clip) for clip in found} for found in clips]
    is_by_path = any(paths[i] & paths[j] for i, j in combinations)
    keyed = [_keyed(found, is_by_path, left_out) for found in clips]
    folders_of = Counter(key for found in keyed for key in found)
    for by_key in keyed:
        lonely = [str(clip.content) for key, clip in by_key.items() if folders_of[key] == 1]
        left_out[f"videos whose {_WHAT[is_by_path]} no other folder has"] += lonely
    for i, j in combinations:
        for key in sorted(keyed[i].keys() & keyed[j].keys()):
            first, second = keyed[i][key], keyed[j][key]
            if first.prompt and second.prompt and first.prompt != second.prompt:
                both = f"{first.content} ({first.prompt:.60}) and {second.content}"
                left_out["pairs of the same name with different prompts"].append(both)
                continue
            videos = str(first.content), str(second.content)
            yield Match(first.prompt or second.prompt, (names[i], names[j]), *videos)
    for what, which in left_out.items():
        if which:
            more = ", ..." if len(which) > _SHOWN else ""
            shown = ", ".join(which[:_SHOWN])
            logger.warning("left out: %d %s: %s%s", len(which), what, shown, more)


def _clips(folder: Path, left_out: _LeftOut) -> list[Clip]:
    """Return a folder's videos, those that browsers play first."""
    source = find_clips(folder)
    left_out["videos whose prompt cannot be read"] += [
        f"{folder}: {w}" for w in source.refused.values()
    ]
    return sorted(source.read(source.keys), key=lambda clip: not _is_playable(clip))


def _is_playable(clip: Clip) -> bool:
    return Path(str(clip.content)).suffix.lower() in PLAYABLE


def _keyed(clips: Sequence[Clip], is_by_path: bool, left_out: _LeftOut) -> dict[str, Clip]:
    found: dict[str, Clip] = {}
    for clip in clips:
        key = _stem(clip) if is_by_path else clip.prompt
        if not key:
            left_out["videos without a prompt, where no two folders share a name"].append(clip.id)
        elif (taken := found.setdefault(key, clip)) is not clip:
            both = f"{clip.content} beside {taken.content}"
            left_out[f"videos with the {_WHAT[is_by_path]} of another in their folder"].append(both)
    return found


def _stem(clip: Clip) -> str:
    return str(Path(clip.id).with_suffix(""))


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the folders' paths by which they differ."""
    if len({folder.resolve() for folder in folders}) == len(folders):
        for length in range(1, max(len(folder.parts) for folder in folders) + 1):
            names = ["/".join(folder.parts[-length:]) for folder in folders]
            if len(set(names)) == len(names):
                return names
    raise ConfigError(f"{folders[0]} is named twice; name different folders")
