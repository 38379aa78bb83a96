"""Which videos of several folders belong together, and what is left out and why.

Videos with the same path below their folder, whatever the suffix; where no two folders share a
path, videos with the same prompt.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from videorl.data.clips import Clip, find_clips
from videorl.errors import ConfigError

logger = logging.getLogger(__name__)

PLAYABLE = frozenset({".mp4", ".m4v", ".webm", ".ogv", ".mov"})
"""Suffixes of files that browsers play."""


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
    left_out: Counter[str] = Counter()
    clips = [_clips(folder, left_out) for folder in folders]
    combinations = list(itertools.combinations(range(len(folders)), 2))
    paths = [{_stem(clip) for clip in found} for found in clips]
    is_by_path = any(paths[i] & paths[j] for i, j in combinations)
    keyed = [_keyed(found, is_by_path, left_out) for found in clips]
    for place, name in enumerate(names):
        others = set().union(*(keyed[other] for other in range(len(names)) if other != place))
        what = "name" if is_by_path else "prompt"
        left_out[f"of {name}: its {what} is in no other folder"] += len(
            keyed[place].keys() - others
        )
    for i, j in combinations:
        for key in sorted(keyed[i].keys() & keyed[j].keys()):
            first, second = keyed[i][key], keyed[j][key]
            if first.prompt and second.prompt and first.prompt != second.prompt:
                left_out[f"of {names[i]}: the same name has another prompt in {names[j]}"] += 1
                continue
            paths_of_both = str(first.content), str(second.content)
            yield Match(first.prompt or second.prompt, (names[i], names[j]), *paths_of_both)
    for reason, count in left_out.items():
        if count:
            logger.warning("left out: %d videos %s", count, reason)


def _clips(folder: Path, left_out: Counter[str]) -> list[Clip]:
    """Return a folder's videos, those that browsers play first."""
    source = find_clips(folder)
    left_out.update(f"of {folder}: {why}" for why in source.refused.values())
    return sorted(source.read(source.keys), key=lambda clip: not _is_playable(clip))


def _is_playable(clip: Clip) -> bool:
    return Path(str(clip.content)).suffix.lower() in PLAYABLE


def _keyed(clips: Sequence[Clip], is_by_path: bool, left_out: Counter[str]) -> dict[str, Clip]:
    found: dict[str, Clip] = {}
    for clip in clips:
        key = _stem(clip) if is_by_path else clip.prompt
        if not key:
            left_out["without a prompt, where no two folders share a name"] += 1
        elif (taken := found.setdefault(key, clip)) is not clip:
            what = "name" if is_by_path else "prompt"
            left_out[f"of the same {what} as {taken.content}, such as {clip.content}"] += 1
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
