"""Preference pairs on disk: those that a run archived, or Parquet files that others made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from videorl.data.archive import read_table
from videorl.data.archive_tables import unpack_latents
from videorl.data.arrow_types import fits
from videorl.data.parquet_rows import parquet_schema, values_of
from videorl.errors import ArchiveError, DamagedPairError, TableError
from videorl.files.images import problem_of_image

logger = logging.getLogger(__name__)

_LATENTS = ("latents", "latents_shape", "latents_dtype")
_ROLES = ("chosen", "rejected")
_SHOWN = 5
"""So many pairs that are left out are logged one by one."""

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
order; `_dtype` is the name of a torch type. Other columns are ignored, and columns may be of other
types of Arrow that hold the same (`large_string`, dictionaries, ...). A column `image`, of texts,
may have the path of the picture that the prompt carries, absolute or relative to the folder."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Preferences:
    """Pairs by index; latents are read on demand."""

    prompts: Sequence[str]
    """One text per pair."""
    shape: tuple[int, ...]
    """[C, T, H, W], the same for all latents."""
    load: Callable[[int], tuple[Row, Row]]
    """Return the three `latents` columns of both videos, chosen and rejected, of a pair by its
    number in the archive."""
    numbers: Sequence[int] = ()
    """The number of every pair in the archive, from 0, where some were left out; empty = none."""
    images: Sequence[str] = ()
    """One path per pair, absolute, or empty for none; none at all = no pair has one."""

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.prompts)

    def latents(self, index: int) -> tuple[Any, Any]:
        """Return the latents [C, T, H, W] of the chosen and of the rejected video of a pair.

        Raises:
            DamagedPairError: They are missing, damaged, or not finite.
            ArchiveError: Their file cannot be read.
        """
        number = self.numbers[index] if self.numbers else index
        try:
            chosen, rejected = self.load(number)
        except ArchiveError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise ArchiveError(f"pair {number} cannot be read: {error}") from error
        try:
            both = unpack_latents(chosen), unpack_latents(rejected)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise DamagedPairError(f"the latents of pair {number} are damaged: {error}") from error
        if not all(latents is not None and latents.float().isfinite().all() for latents in both):
            raise DamagedPairError(f"the latents of pair {number} are missing or not finite")
        return both


def read_preferences(path: Path) -> Preferences:
    """Open preference pairs; those without a prompt or without latents are logged and left out.

    Args:
        path: The archive folder of a run with `archive.latents=true`, or a Parquet file, or a
            folder of Parquet files, with the columns of `PREFERENCES`.

    Raises:
        ArchiveError: There is nothing of that kind, columns are missing, no pair can be used, or
            latents differ in shape.
    """
    if not path.exists():
        raise ArchiveError(f"there is no preference archive at {path}")
    if (path / "archive/pairs").is_dir():
        raise ArchiveError(f"{path} is the folder of a run: give {path / 'archive'}")
    try:
        found = _of_run(path) if (path / "pairs").is_dir() else _of_files(path)
    except ArchiveError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path} cannot be read as Parquet: {error}") from error
    prompts, shapes, load, images = found
    if not prompts:
        raise ArchiveError(f"{path} holds no preference pair")
    problems = [_problem(*pair) for pair in zip(prompts, shapes, images, strict=True)]
    numbers = usable_pairs(path, problems)
    shape = _common_shape(path, {number: shapes[number] for number in numbers})
    texts = [prompts[number] for number in numbers]
    kept = [images[number] for number in numbers] if any(images) else []
    return Preferences(texts, shape, load, numbers, kept)


def usable_pairs(path: Path, problems: Sequence[str]) -> list[int]:
    """Return the numbers of the pairs that have no problem; the log names and counts the others.

    Raises:
        ArchiveError: All have one.
    """
    bad = [number for number, problem in enumerate(problems) if problem]
    if len(bad) == len(problems):
        raise ArchiveError(f"{path} holds no pair that can be used: pair 0 {problems[0]}")
    for number in bad[:_SHOWN]:
        logger.warning("%s: pair %d left out: %s", path, number, problems[number])
    if bad:
        logger.warning("%s: %d of %d pairs are left out", path, len(bad), len(problems))
    return [number for number, problem in enumerate(problems) if not problem]


def _problem(prompt: Any, shapes: tuple[Any, Any], image: str) -> str:
    """Return what is wrong with a pair; empty if nothing is."""
    if prompt is None or not isinstance(prompt, str):
        return "has no prompt" if prompt is None else f"has a prompt that {prompt.reason}"
    if None in shapes:
        return "has a video without latents; a run keeps them with archive.latents=true"
    return (problem_of_image(image) if image else None) or ""


def parquet_files(path: Path) -> list[str]:
    """Return the Parquet file itself, or those in a folder, in order of their names."""
    return [str(path)] if path.is_file() else sorted(map(str, path.glob("*.parquet")))


def open_tables(path: Path, schema: pa.Schema) -> ds.Dataset:
    """Open a Parquet file, or those in a folder, as one table of the columns of `schema`.

    Raises:
        ArchiveError: There is no file, or a column is missing or holds something else.
    """
    if not (files := parquet_files(path)):
        raise ArchiveError(f"there is no file *.parquet in {path}")
    for file in files:
        try:
            found = parquet_schema(Path(file))
        except TableError as error:
            raise ArchiveError(str(error)) from error
        for field in schema:
            if field.name not in found.names:
                raise ArchiveError(
                    f"{file} has no column {field.name!r}; needed are {', '.join(schema.names)}"
                )
            if not fits(got := found.field(field.name).type, field.type):
                raise ArchiveError(f"{file}: column {field.name!r} must be {field.type}, got {got}")
    return ds.dataset(files, schema=schema, format="parquet")


_Found = tuple[list[Any], list[tuple[Any, Any]], Callable[[int], tuple[Row, Row]], list[str]]
"""Prompts, None where there is none and `Unreadable` where it is damaged; shapes of both videos of
every pair; `Preferences.load`; paths of pictures, empty where there is none."""


def _of_run(path: Path) -> _Found:
    pairs = read_table(path, "pairs").to_pylist()
    columns = ["candidate_id", "prompt", "image", "latents_shape"]
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
        [known[pair["chosen_id"]]["image"] or "" for pair in pairs],
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
    texts, load = values_of(table["prompt"]), partial(_load_of_files, dataset)
    return texts, list(shapes), load, images_of(path)


def images_of(path: Path) -> list[str]:
    """Return the absolute path of each row's picture in Parquet files; empty where it has none.

    Raises:
        ArchiveError: A column of pictures holds no texts.
    """
    folder = (path if path.is_dir() else path.parent).absolute()
    names: list[str | None] = []
    for file in map(Path, parquet_files(path)):
        if "image" in pq.read_schema(file).names:
            table = open_tables(file, pa.schema([pa.field("image", pa.string())])).to_table()
            names += table["image"].to_pylist()
        else:
            names += [None] * pq.read_metadata(file).num_rows
    return [str(folder / name) if name else "" for name in names]


def _load_of_files(dataset: ds.Dataset, index: int) -> tuple[Row, Row]:
    columns = [f"{role}_{name}" for role in _ROLES for name in _LATENTS]
    (row,) = dataset.take([index], columns=columns).to_pylist()
    chosen, rejected = ({name: row[f"{role}_{name}"] for name in _LATENTS} for role in _ROLES)
    return chosen, rejected


def _common_shape(path: Path, shapes: Mapping[int, tuple[Any, Any]]) -> tuple[int, ...]:
    """Return the shape that all latents share, by the number of the pair."""
    first = next(iter(shapes))
    for number, both in shapes.items():
        if both[0] != both[1]:
            raise ArchiveError(
                f"{path}: the videos of pair {number} have different shapes, latents {both[0]} "
                f"(chosen) and {both[1]} (rejected); both must have the same size and length"
            )
        if both[0] != shapes[first][0]:
            raise ArchiveError(
                f"{path}: pair {number} has latents of shape {both[0]}, but pair {first} of "
                f"{shapes[first][0]}; split the archive by shape"
            )
    return tuple(shapes[first][0])
