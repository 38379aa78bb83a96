"""Preference pairs on disk: those that a run archived, or Parquet files that others made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from videorl.data.archive import read_table
from videorl.data.archive_tables import unpack_latents
from videorl.errors import ArchiveError

_LATENTS = ("latents", "latents_shape", "latents_dtype")
_ROLES = ("chosen", "rejected")

PREFERENCES = pa.schema(
    [
        pa.field("prompt", pa.string(), nullable=False),
        *(
            pa.field(f"{role}_{name}", kind, nullable=False)
            for role in _ROLES
            for name, kind in zip(
                _LATENTS, (pa.binary(), pa.list_(pa.int64()), pa.string()), strict=True
            )
        ),
    ]
)
"""One row per pair. Latents are those of the policy's pipeline before decoding, [C, T, H, W] in C
order; `_dtype` is the name of a torch type. Other columns are ignored."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Preferences:
    """Pairs by index; latents are read on demand."""

    prompts: Sequence[str]
    """One text per pair."""
    shape: tuple[int, ...]
    """[C, T, H, W], the same for all latents."""
    load: Callable[[int], tuple[Row, Row]]
    """Return the three `latents` columns of the chosen and of the rejected video of a pair."""

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.prompts)

    def latents(self, index: int, *, finite: bool = True) -> tuple[Any, Any]:
        """Return the latents [C, T, H, W] of the chosen and of the rejected video of a pair.

        Args:
            index: Of the pair.
            finite: Refuse NaN and infinity too.

        Raises:
            ArchiveError: They are missing, damaged, or not finite.
        """
        chosen, rejected = self.load(index)
        try:
            both = unpack_latents(chosen), unpack_latents(rejected)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise ArchiveError(f"the latents of pair {index} are damaged: {error}") from error
        if any(each is None or (finite and not each.float().isfinite().all()) for each in both):
            raise ArchiveError(
                f"the latents of pair {index} are missing or not finite: leave the pair out"
            )
        return both


def read_preferences(path: Path) -> Preferences:
    """Open preference pairs.

    Args:
        path: The archive folder of a run with `archive.latents=true`, or a Parquet file, or a
            folder of Parquet files, with the columns of `PREFERENCES`.

    Raises:
        ArchiveError: There is nothing of that kind, columns are missing, a video has no latents, or
            latents differ in shape.
    """
    if not path.exists():
        raise ArchiveError(f"there is no preference archive at {path}")
    if (path / "archive/pairs").is_dir():
        raise ArchiveError(f"{path} is the folder of a run: give {path / 'archive'}")
    try:
        found = _of_run(path) if (path / "pairs").is_dir() else _of_files(path)
    except pa.ArrowException as error:
        raise ArchiveError(f"{path} cannot be read as Parquet: {error}") from error
    prompts, shapes, load = found
    if not prompts:
        raise ArchiveError(f"{path} holds no preference pair")
    if None in prompts:
        raise ArchiveError(f"{path}: pair {prompts.index(None)} has no prompt")
    return Preferences(prompts, _common_shape(path, shapes), load)


def parquet_files(path: Path) -> list[str]:
    """Return the Parquet file itself, or those in a folder, in order of their names."""
    return [str(path)] if path.is_file() else sorted(map(str, path.glob("*.parquet")))


def open_tables(path: Path, schema: pa.Schema) -> ds.Dataset:
    """Open a Parquet file, or those in a folder, as one table that has the columns of `schema`.

    Raises:
        ArchiveError: There is no file, or a column is missing or of another type.
    """
    if not (files := parquet_files(path)):
        raise ArchiveError(f"there is no file *.parquet in {path}")
    dataset = ds.dataset(files, format="parquet")
    for field in schema:
        if field.name not in dataset.schema.names:
            raise ArchiveError(
                f"{path} has no column {field.name!r}; needed are {', '.join(schema.names)}"
            )
        if not (got := dataset.schema.field(field.name).type).equals(field.type):
            raise ArchiveError(f"{path}: column {field.name!r} must be {field.type}, got {got}")
    return dataset


_Found = tuple[list[Any], list[tuple[Any, Any]], Callable[[int], tuple[Row, Row]]]
"""Prompts, None where there is none; shapes of both videos of every pair; `Preferences.load`."""


def _of_run(path: Path) -> _Found:
    pairs = read_table(path, "pairs").to_pylist()
    columns = ["candidate_id", "prompt", "latents_shape"]
    rows = read_table(path, "candidates", columns).to_pylist()
    known = {row["candidate_id"]: row for row in rows}
    for pair in pairs:
        for name in (pair["chosen_id"], pair["rejected_id"]):
            if name not in known:
                raise ArchiveError(f"{path} is damaged: {name} is in a pair but is no candidate")
    return (
        [known[pair["chosen_id"]]["prompt"] for pair in pairs],
        [
            (known[pair["chosen_id"]]["latents_shape"], known[pair["rejected_id"]]["latents_shape"])
            for pair in pairs
        ],
        partial(_load_of_run, path, pairs),
    )


def _load_of_run(path: Path, pairs: Sequence[Row], index: int) -> tuple[Row, Row]:
    pair = pairs[index]
    table = read_table(path, "candidates", ["candidate_id", *_LATENTS], [pair["step"]])
    ids = (pair["chosen_id"], pair["rejected_id"])
    kept = table.filter(ds.field("candidate_id").isin(ids)).to_pylist()
    rows = {row["candidate_id"]: row for row in kept}
    return rows[ids[0]], rows[ids[1]]


def _of_files(path: Path) -> _Found:
    dataset = open_tables(path, PREFERENCES)
    columns = ["prompt", *(f"{role}_latents_shape" for role in _ROLES)]
    table = dataset.to_table(columns)
    shapes = zip(*(table[name].to_pylist() for name in columns[1:]), strict=True)
    return table["prompt"].to_pylist(), list(shapes), partial(_load_of_files, dataset)


def _load_of_files(dataset: ds.Dataset, index: int) -> tuple[Row, Row]:
    columns = [f"{role}_{name}" for role in _ROLES for name in _LATENTS]
    (row,) = dataset.take([index], columns=columns).to_pylist()
    chosen, rejected = ({name: row[f"{role}_{name}"] for name in _LATENTS} for role in _ROLES)
    return chosen, rejected


def _common_shape(path: Path, shapes: Sequence[tuple[Any, Any]]) -> tuple[int, ...]:
    """Return the shape that all latents share."""
    for index, both in enumerate(shapes):
        if None in both:
            raise ArchiveError(
                f"{path}: a video of pair {index} has no latents; a run keeps them with "
                "archive.latents=true"
            )
        if both[0] != both[1]:
            raise ArchiveError(
                f"{path}: the videos of pair {index} have different shapes, latents {both[0]} "
                f"(chosen) and {both[1]} (rejected); both must have the same size and length"
            )
        if both[0] != shapes[0][0]:
            raise ArchiveError(
                f"{path}: pair {index} has latents of shape {both[0]}, but pair 0 of "
                f"{shapes[0][0]}; split the archive by shape"
            )
    return tuple(shapes[0][0])
