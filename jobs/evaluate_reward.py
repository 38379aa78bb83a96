r"""`videorl evaluate_reward`: whether reward models see what people see.

    videorl evaluate_reward --benchmark videogen_rewardbench --data VideoGen-RewardBench \
        --model video_reward=checkpoints/VideoReward --model vision_reward
    videorl evaluate_reward --benchmark video_feedback --data VideoFeedback \
        --scores evaluation/video_feedback-video_score.parquet
    videorl evaluate_reward --sanity clips --model video_reward

With `--sanity` no people are asked: clips are spoiled on purpose, and must score lower.
Every video is scored once, on Ray. Stop it at any moment and start the same command again: it goes
on with what has no score yet. With `--scores` nothing is scored.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command
from jobs.results import Show, add_json, results
from videorl.errors import ConfigError

if TYPE_CHECKING:
    from videorl.config import RewardConfig
    from videorl.data.benchmarks import Benchmark
    from videorl.data.clips import ClipSource
    from videorl.data.score_reading import ScoredClips


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("videorl evaluate_reward", __doc__)
    command.add_overrides(parser, "settings of model N, counted from 0: rewards.N.key=value")
    parser.add_argument(
        "--benchmark",
        help="videogen_rewardbench, genai_bench, monetbench, vision_reward_regression or "
        "video_feedback",
    )
    text = "folder of the benchmark, unpacked as published"
    parser.add_argument("--data", type=Path, help=text)
    text = "clips to spoil: a folder of videos, a table or a run, as in `videorl score`"
    parser.add_argument("--sanity", type=Path, metavar="CLIPS", help=text)
    command.add_models(parser, "--model")
    parser.add_argument(
        "--scores",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="scores of one model, from this command or `videorl score`; may be repeated",
    )
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="DIMENSION=A[+B]",
        help="which of the models' dimensions, or `total`, stand for one of the benchmark; may be "
        "repeated",
    )
    command.add_option(parser, "--out", Path("evaluation"), "folder of the results")
    command.add_option(parser, "--batch-size", 8, "videos that a worker gets at once")
    command.add_address(parser)
    add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the agreement, and write it and every judgement to `--out`. Exit code 130 = stopped."""
    parser = _parser()
    options = parser.parse_intermixed_args(argv)
    if not options.model and not options.scores:
        parser.error("give reward models (--model), or files of scores (--scores)")
    if options.sanity and (options.benchmark or options.data or options.scores or options.map):
        parser.error("--sanity goes without --benchmark, --data, --scores and --map")
    if not options.sanity and not (options.benchmark and options.data):
        parser.error("give a benchmark (--benchmark and --data), or clips to spoil (--sanity)")
    if options.batch_size < 1:
        parser.error(f"--batch-size must be >= 1, got {options.batch_size}")
    command.start_logging()
    with results(options) as show:
        return _sanity(options, show) if options.sanity else _benchmark(options, show)


def _benchmark(options: argparse.Namespace, show: Show) -> int:
    """Compare reward models with what people said."""
    from videorl.data.benchmarks import find_benchmark_clips, read_benchmark
    from videorl.data.score_reading import read_scores
    from videorl.data.score_table import open_scores
    from videorl.evaluation.reward_benchmark import map_dimensions

    benchmark = read_benchmark(options.benchmark, options.data.absolute())
    out = command.output_folder(command.lasting(options.out))
    mapping = _mapping(options.map)
    rewards = _rewards(options)
    paths = [out / f"{benchmark.name}-{reward.key}.parquet" for reward in rewards]
    # What is wrong with the last model is an error before hours of scoring with the first: a
    # dimension without a counterpart, a checkpoint that the hub refuses, scores of something else.
    for reward, path in zip(rewards, paths, strict=True):
        map_dimensions(benchmark, reward.name, mapping)
        with open_scores(path, [copy.deepcopy(reward)]):
            pass
    scored = [read_scores(path) for path in options.scores]
    for reward, path in zip(rewards, paths, strict=True):
        if not _score(find_benchmark_clips(benchmark), reward, path, options):
            return command.stopped()
        scored.append(read_scores(path))
    _report(benchmark, scored, mapping, out, show)
    return 0


def _mapping(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return what `--map` asks for, such as {"VQ": ("a", "b")} for ["VQ=a+b"]."""
    mapping: dict[str, tuple[str, ...]] = {}
    for text in given:
        dimension, equals, names = text.partition("=")
        if not equals or not all(names.split("+")) or dimension in mapping:
            raise ConfigError(f"--map must be DIMENSION=A[+B], once per dimension, got {text!r}")
        mapping[dimension] = tuple(names.split("+"))
    return mapping


def _rewards(options: argparse.Namespace) -> list[RewardConfig]:
    from videorl.recipes.reading import load_rewards

    rewards = load_rewards(options.model, None, options.overrides) if options.model else []
    return [command.located(reward) for reward in rewards]


def _sanity(options: argparse.Namespace, show: Show) -> int:
    """Score clips as they are and spoiled; say what each model sees of it."""
    from videorl.data.clips import find_clips
    from videorl.data.score_reading import read_scores
    from videorl.evaluation.reward_benchmark import MAPPINGS
    from videorl.evaluation.sanity import findings, format_findings, to_json
    from videorl.evaluation.spoiling import spoiled
    from videorl.files import write_json

    clips = find_clips(options.sanity.absolute())
    source = spoiled(clips)
    out = command.output_folder(command.lasting(options.out))
    found = []
    for reward in _rewards(options):
        path = out / f"sanity-{reward.key}.parquet"
        if not _score(source, reward, path, options):
            return command.stopped()
        mapping = MAPPINGS["videogen_rewardbench"].get(reward.name, {})
        found += findings(clips.keys, read_scores(path), mapping)
    write_json(out / "sanity.json", to_json(found))
    show(to_json(found), f"{format_findings(found)}\n{out / 'sanity.json'}")
    return 0


def _score(
    source: ClipSource, reward: RewardConfig, path: Path, options: argparse.Namespace
) -> bool:
    """Score what has no score in `path` yet; return whether all of it was tried."""
    from actors.scoring import score_missing
    from videorl.data.score_table import open_scores

    with open_scores(path, [reward]) as table:
        table.forget_changed(source)
        finished = table.scored.issuperset(source.keys) or score_missing(
            source, [reward], table, options.batch_size, options.address
        )
        table.merge(source.keys)
    return finished


def _report(
    benchmark: Benchmark,
    scored: Sequence[ScoredClips],
    mapping: Mapping[str, tuple[str, ...]],
    out: Path,
    show: Show,
) -> None:
    """Print and write the agreement of every model; `mapping` is what `--map` asked for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from videorl.evaluation import reward_benchmark
    from videorl.files import write_json

    found: list[reward_benchmark.Agreement] = []
    rows: list[reward_benchmark.Judged] = []
    for clips in scored:
        dimensions = reward_benchmark.map_dimensions(benchmark, clips.model, mapping)
        agreements, judged = reward_benchmark.evaluate_model(benchmark, clips, dimensions)
        found += agreements
        rows += judged
    write_json(out / f"{benchmark.name}.json", reward_benchmark.to_json(benchmark, found))
    judgements = out / f"{benchmark.name}.parquet"
    pq.write_table(pa.Table.from_pylist([dataclasses.asdict(row) for row in rows]), judgements)
    text = f"{reward_benchmark.format_agreements(benchmark, found)}\n{judgements}"
    show(reward_benchmark.to_json(benchmark, found), text)


if __name__ == "__main__":
    raise SystemExit(command.run(main))
