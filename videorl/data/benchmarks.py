"""Benchmarks of reward models: human preferences between two videos, or ratings of single videos.

Each reader expects the files as published, unpacked below one folder; `docs/rewards.md` says where
each layout was read.
"""

from __future__ import annotations

import difflib
import logging
import os
import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from videorl.data.clips import Clip, ClipSource, Key
from videorl.data.label_rows import name_of, numbers_of, read_labels, texts_of
from videorl.data.table_rows import Row
from videorl.errors import ConfigError, DatasetError

V = TypeVar("V")
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
        DatasetError: A file or column is missing, or no row can be used. Single rows that cannot
            be (a label is none of the published ones) are logged and left out.
    """
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1, cutoff=0.0)
        raise ConfigError(
            f"unknown benchmark {name!r}; did you mean {near[0]!r}? Known: {', '.join(BENCHMARKS)}"
        )
    return BENCHMARKS[name](folder)


def find_benchmark_clips(benchmark: Benchmark) -> ClipSource:
    """Return the videos to score, each once with each of its prompts.

    Missing videos stay in the list, and are counted as damaged videos are.

    Raises:
        DatasetError: None of the videos is there.
    """
    keys = benchmark.keys()
    missing = [video for video, _ in keys if not os.path.isfile(benchmark.folder / video)]
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
    answers = {"A": 1, "B": -1, "same": 0, "invalid": None}

    def read(row: Row) -> Pair:
        texts = texts_of(row, ("path_A", "path_B", *dimensions))
        said = {name: texts[name] for name in dimensions}
        prompt = _prompt(row, "prompt")
        return Pair((texts["path_A"], prompt), (texts["path_B"], prompt), _labels(said, answers))

    return tuple(read_labels(path, ["path_A", "path_B", "prompt", *dimensions], read)[0])


def _videogen_rewardbench(folder: Path) -> Benchmark:
    dimensions = ("VQ", "MQ", "TA", OVERALL)
    pairs = read_pairs_csv(folder / "videogen-rewardbench.csv", dimensions)
    return Benchmark("videogen_rewardbench", folder, dimensions, pairs)


def _genai_bench(folder: Path) -> Benchmark:
    columns = ["prompt", "left_model", "left_video", "right_model", "right_video", "vote_type"]
    answers = {"leftvote": 1, "rightvote": -1, "tievote": 0, "bothbad_vote": 0}

    def read(row: Row) -> Pair:
        texts, prompt = texts_of(row, columns[1:]), _prompt(row, "prompt")
        left, right = (
            _downloaded(texts[f"{side}_video"], texts[f"{side}_model"])
            for side in ("left", "right")
        )
        return Pair(
            (left, prompt), (right, prompt), _labels({OVERALL: texts["vote_type"]}, answers)
        )

    pairs = _read_all(folder, "video_generation/test-*.parquet", columns, read)
    return Benchmark("genai_bench", folder, (OVERALL,), pairs)


def _downloaded(link: str, model: str) -> str:
    """Return the path of a video; it is published as a link, and file names repeat."""
    return link if "://" not in link else f"videos/{model}/{posixpath.basename(link)}"


def _vision_reward_pairs(name: str, pattern: str) -> Callable[[Path], Benchmark]:
    columns = ["prompt", "standard_answer", "video1_path", "video2_path"]
    answers = {"video1": 1, "video2": -1, "tie": 0}

    def read(row: Row) -> Pair:
        texts, prompt = texts_of(row, columns[1:]), _prompt(row, "prompt")
        labels = _labels({OVERALL: texts["standard_answer"]}, answers)
        return Pair((texts["video1_path"], prompt), (texts["video2_path"], prompt), labels)

    def benchmark(folder: Path) -> Benchmark:
        return Benchmark(name, folder, (OVERALL,), _read_all(folder, pattern, columns, read))

    return benchmark


def _video_feedback(folder: Path) -> Benchmark:
    dimensions = (
        "visual quality",
        "temporal consistency",
        "dynamic degree",
        "text-to-video alignment",
        "factual consistency",
    )

    def read(row: Row) -> Rating:
        key = f"videos/{name_of(row, 'id')}.mp4", _prompt(row, "text prompt")
        return Rating(key, numbers_of(row, dimensions))

    columns = ["id", "text prompt", *dimensions]
    ratings = _read_all(folder, "*/test-*.parquet", columns, read)
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


def _read_all(
    folder: Path, pattern: str, columns: Sequence[str], read: Callable[[Row], V]
) -> tuple[V, ...]:
    """Return what `read` makes of the rows of every file that `pattern` finds, by their names."""
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise DatasetError(f"no file {pattern} in {folder}; unpack the benchmark as published")
    return tuple(found for path in paths for found in read_labels(path, columns, read)[0])


def _prompt(row: Row, column: str) -> str:
    """Return the prompt of a row as it is published, with the spaces around it."""
    texts_of(row, [column])
    return row[column]


def _labels(said: Mapping[str, str], answers: Mapping[str, int | None]) -> dict[str, int]:
    """Return label by dimension; those whose answer stands for no judgement are left out."""
    labels: dict[str, int] = {}
    for dimension, answer in said.items():
        if answer not in answers:
            raise DatasetError(f"{dimension} is {answer!r}, expected one of {', '.join(answers)}")
        if (label := answers[answer]) is not None:
            labels[dimension] = label
    return labels
