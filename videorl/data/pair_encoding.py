"""Pairs of video files are encoded to latents once, in parts that any process may write.

A part that is written stays: an encoding that was stopped goes on with the others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from videorl.data.archive_tables import pack_latents
from videorl.data.preference_videos import VideoPair
from videorl.data.preferences import PREFERENCES
from videorl.data.video_io import read_video
from videorl.errors import ArchiveError, VideoError

if TYPE_CHECKING:
    from torch import Tensor

    from videorl.types import Video

logger = logging.getLogger(__name__)

PAIRS_OF_A_PART = 64
_OF = "pairs.json"
_PROBLEMS = b"problems"


@dataclass(frozen=True)
class Part:
    """Some consecutive pairs, and the file that they become."""

    pairs: tuple[VideoPair, ...]
    file: Path
    has_images: bool
    """Some pair of the whole has a picture, so that all files have that column."""

    def write(self, encode: Callable[[Video], Tensor]) -> None:
        """Encode every video, and write the file, whole or not at all.

        Pairs with a video that is damaged, or of another size than the policy makes, are left out
        and logged.

        Args:
            encode: Video -> latents [C, T, H, W].
        """
        schema = PREFERENCES
        if self.has_images:
            schema = schema.append(pa.field("image", pa.string()))
        beside, problems = self.file.with_name(f".{self.file.name}"), list[str]()
        with pq.ParquetWriter(beside, schema) as writer:
            for pair in self.pairs:
                try:
                    row = _encoded(pair, encode)
                except VideoError as error:
                    problems.append(str(error))
                    logger.warning("a pair is left out: %s", error)
                else:
                    writer.write_table(pa.Table.from_pylist([row], schema))
            writer.add_key_value_metadata({_PROBLEMS: json.dumps(problems).encode()})
        os.replace(beside, self.file)


class PairEncoding:
    """The latents of a table of pairs in the making.

    Args:
        pairs: From `read_video_pairs`.
        folder: Will have what `read_preferences` reads, in the order of the pairs; replaced if it
            exists.
        pairs_of_a_part: How many pairs are written at a time.
    """

    def __init__(
        self, pairs: Sequence[VideoPair], folder: Path, pairs_of_a_part: int = PAIRS_OF_A_PART
    ) -> None:
        self._folder, self._num_pairs = folder, len(pairs)
        self._partial = folder.with_name(f".{folder.name}.partial")
        has_images = any(pair.image for pair in pairs)
        self._parts = [
            Part(
                tuple(pairs[start : start + pairs_of_a_part]),
                self._partial / f"part-{start:08d}.parquet",
                has_images,
            )
            for start in range(0, len(pairs), pairs_of_a_part)
        ]
        self._keep_if_of(pairs_of_a_part)

    def _keep_if_of(self, pairs_of_a_part: int) -> None:
        """Remove parts of other pairs, which an earlier encoding left."""
        known = hashlib.sha256(f"{pairs_of_a_part}".encode())
        for part in self._parts:
            known.update(repr(part.pairs).encode())
        of = {"pairs": self._num_pairs, "sha256": known.hexdigest()}
        note = self._partial / _OF
        if not note.exists() or json.loads(note.read_text()) != of:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
            note.write_text(json.dumps(of))

    def missing(self) -> list[Part]:
        """Return the parts that are not written yet."""
        return [part for part in self._parts if not part.file.exists()]

    def finish(self) -> None:
        """Make the folder of the parts, which are all written.

        Raises:
            ArchiveError: No pair can be used.
        """
        problems: list[str] = []
        for part in self._parts:
            found = pq.read_metadata(part.file).metadata or {}
            problems += json.loads(found.get(_PROBLEMS, b"[]"))
        if len(problems) == self._num_pairs:
            shutil.rmtree(self._partial)
            raise ArchiveError(f"none of {self._num_pairs} pairs can be used: {problems[0]}")
        if problems:
            logger.warning("%d of %d pairs are left out", len(problems), self._num_pairs)
        (self._partial / _OF).unlink()
        shutil.rmtree(self._folder, ignore_errors=True)
        os.replace(self._partial, self._folder)


def _encoded(pair: VideoPair, encode: Callable[[Video], Tensor]) -> dict[str, object]:
    """Return a row of `PREFERENCES`.

    Raises:
        VideoError: A video is damaged, or of another size.
    """
    row: dict[str, object] = {"prompt": pair.prompt, "image": pair.image}
    for role, path in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        try:
            packed = pack_latents(encode(read_video(path)))
        except VideoError as error:
            raise VideoError(f"{path}, the {role} video of {pair.prompt!r:.60}: {error}") from error
        row |= {f"{role}_{name}": value for name, value in packed.items()}
    return row
