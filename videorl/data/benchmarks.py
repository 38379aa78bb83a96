"""Benchmarks of reward models: human preferences between two videos, or ratings of single videos.

Each reader expects the files as published, unpacked below one folder; `docs/rewards.md` says where
each layout was read.
"""

from __future__ import annotations

import csv
import difflib
import logging
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.data.clips import Clip, ClipSource, Key
from videorl.errors import ConfigError, DatasetError

logger = logging.getLogger(__name__)

OVERALL = "Overall"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two videos of one prompt; `labels` is 1 where people prefer `a`, -1 for `b`, 0 for neither.

    A dimension that people could not judge is not in it.
    """

    a: Key
    b: Key
    labels: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Rating:
    """People's ratings of one video, by dimension."""

    key: Key
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Either pairs or ratings, in the order of the files.

    The id of a video is its path below `folder`.
    """

    name: str
    folder: Path
    dimensions: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()
    ratings: tuple[Rating, ...] = ()

    def keys(self) -> list[Key]:
        """Return each distinct video and prompt once, in order of first use."""
        of_pairs = [key for pair in self.pairs for key in (pair.a, pair.b)]
        return list(dict.fromkeys([*of_pairs, *(rating.key for rating in self.ratings)]))


def read_benchmark(name: str, folder: Path) -> Benchmark:
    """Read one of `BENCHMARKS`.

    Args:
        name: A key of `BENCHMARKS`.
        folder: Where its files were unpacked.

    Raises:
        ConfigError: The name is unknown.
        DatasetError: A file or column is missing, a label is none of the published ones, or there
            are no rows at all.
    """
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1, cutoff=0.0)
        raise ConfigError(
            f"unknown benchmark {name!r}; did you mean {near[0]!r}? Known: {', '.join(BENCHMARKS)}"
        )
    found = BENCHMARKS[name](folder)
    if not found.keys():
        raise DatasetError(f"{folder} holds no row of {name}")
    return found


def find_benchmark_clips(benchmark: Benchmark) -> ClipSource:
    """Return the videos to score, each once with each of its prompts.

    Missing videos stay in the list, and are counted as damaged videos are.

    Raises:
        DatasetError: None of the videos is there.
    """
    keys = benchmark.keys()
    missing = [video for video, _ in keys if not (benchmark.folder / video).is_file()]
    if len(missing) == len(keys):
        raise DatasetError(
            f"none of the {len(keys)} videos of {benchmark.name} is in {benchmark.folder}; "
            f"the first should be {benchmark.folder / missing[0]}"
        )
    if missing:
        logger.warning("%d of %d videos are missing, e.g. %s", len(missing), len(keys), missing[0])

    def read(wanted: Collection[Key]) -> Iterator[Clip]:
        return (Clip(*key, str(benchmark.folder / key[0])) for key in keys if key in wanted)

    return ClipSource(tuple(keys), read)


def read_pairs_csv(path: Path, dimensions: Sequence[str]) -> tuple[Pair, ...]:
    """Read labelled pairs: columns path_A, path_B, prompt, and A, B, same or invalid per dimension.

    Raises:
        DatasetError: See `read_benchmark`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"cannot read pairs from {path}: {error}") from error
    _check_columns(path, columns, ["path_A", "path_B", "prompt", *dimensions])
    if short := [number for number, row in enumerate(rows, start=2) if None in row.values()]:
        raise DatasetError(f"{path}, row {short[0]} has fewer values than the header has columns")
    answers = {"A": 1, "B": -1, "same": 0, "invalid": None}
    return tuple(
        Pair(
            (row["path_A"], row["prompt"]),
            (row["path_B"], row["prompt"]),
            _labels(path, number, {name: row[name] for name in dimensions}, answers),
        )
        for number, row in enumerate(rows, start=2)
    )


def _videogen_rewardbench(folder: Path) -> Benchmark:
    dimensions = ("VQ", "MQ", "TA", OVERALL)
    pairs = read_pairs_csv(folder / "videogen-rewardbench.csv", dimensions)
    return Benchmark("videogen_rewardbench", folder, dimensions, pairs)


def _genai_bench(folder: Path) -> Benchmark:
    columns = ["prompt", "left_model", "left_video", "right_model", "right_video", "vote_type"]
    answers = {"leftvote": 1, "rightvote": -1, "tievote": 0, "bothbad_vote": 0}
    pairs = tuple(
        Pair(
            (_downloaded(row["left_video"], row["left_model"]), row["prompt"]),
            (_downloaded(row["right_video"], row["right_model"]), row["prompt"]),
            _labels(path, number, {OVERALL: row["vote_type"]}, answers),
        )
        for path, number, row in _parquet_rows(folder, "video_generation/test-*.parquet", columns)
    )
    return Benchmark("genai_bench", folder, (OVERALL,), pairs)


def _downloaded(link: str, model: str) -> str:
    """Return the path of a video; it is published as a link, and file names repeat."""
    return link if "://" not in link else f"videos/{model}/{posixpath.basename(link)}"


def _vision_reward_pairs(name: str, pattern: str) -> Callable[[Path], Benchmark]:
    def read(folder: Path) -> Benchmark:
        columns = ["prompt", "standard_answer", "video1_path", "video2_path"]
        answers = {"video1": 1, "video2": -1, "tie": 0}
        pairs = tuple(
            Pair(
                (row["video1_path"], row["prompt"]),
                (row["video2_path"], row["prompt"]),
                _labels(path, number, {OVERALL: row["standard_answer"]}, answers),
            )
            for path, number, row in _parquet_rows(folder, pattern, columns)
        )
        return Benchmark(name, folder, (OVERALL,), pairs)

    return read


def _video_feedback(folder: Path) -> Benchmark:
    dimensions = (
        "visual quality",
        "temporal consistency",
        "dynamic degree",
        "text-to-video alignment",
        "factual consistency",
    )
    columns = ["id", "text prompt", *dimensions]
    ratings = tuple(
        Rating(
            (f"videos/{row['id']}.mp4", row["text prompt"]),
            {name: float(row[name]) for name in dimensions},
        )
        for _, _, row in _parquet_rows(folder, "*/test-*.parquet", columns)
    )
    return Benchmark("video_feedback", folder, dimensions, ratings=ratings)


BENCHMARKS: dict[str, Callable[[Path], Benchmark]] = {
    "videogen_rewardbench": _videogen_rewardbench,
    "genai_bench": _genai_bench,
    "monetbench": _vision_reward_pairs("monetbench", "monetbench/test-*.parquet"),
    "vision_reward_regression": _vision_reward_pairs(
        "vision_reward_regression", "regression/train-*.parquet"
    ),
    "video_feedback": _video_feedback,
}
"""Name -> reader of its folder."""


def _parquet_rows(
    folder: Path, pattern: str, columns: Sequence[str]
) -> Iterable[tuple[Path, int, dict[str, Any]]]:
    """Yield (file, row from 1, values) of every file that `pattern` finds, in order of names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(folder.glob(pattern))
    if not paths:
        raise DatasetError(f"no file {pattern} in {folder}; unpack the benchmark as published")
    for path in paths:
        try:
            schema = pq.read_schema(path)
            _check_columns(path, schema.names, columns)
            rows = pq.read_table(path, columns=list(columns)).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"cannot read {path}: {error}") from error
        for number, row in enumerate(rows, start=1):
            empty = [name for name in columns if row[name] is None]
            if empty:
                raise DatasetError(f"{path}, row {number}: {empty[0]!r} is empty")
            yield path, number, row


def _check_columns(path: Path, found: Iterable[str], wanted: Sequence[str]) -> None:
    names = list(found)
    if missing := [name for name in wanted if name not in names]:
        raise DatasetError(f"{path} lacks column {missing[0]!r}; it has {', '.join(names) or '-'}")


def _labels(
    path: Path, number: int, said: Mapping[str, str], answers: Mapping[str, int | None]
) -> dict[str, int]:
    """Return label by dimension; those whose answer stands for no judgement are left out."""
    labels: dict[str, int] = {}
    for dimension, answer in said.items():
        if answer not in answers:
            raise DatasetError(
                f"{path}, row {number}: {dimension} is {answer!r}, "
                f"expected one of {', '.join(answers)}"
            )
        if (label := answers[answer]) is not None:
            labels[dimension] = label
    return labels
