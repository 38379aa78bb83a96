r"""`videorl evaluate_reward`: how well reward models agree with people, on a published benchmark.

    videorl evaluate_reward --benchmark videogen_rewardbench --data VideoGen-RewardBench \
        --model video_reward=checkpoints/VideoReward --model vision_reward
    videorl evaluate_reward --benchmark video_feedback --data VideoFeedback \
        --scores evaluation/video_feedback-video_score.parquet

Every video is scored once, on Ray. Stop it at any moment and start the same command again: it goes
on with what has no score yet. With `--scores` nothing is scored.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.score import located
from jobs.train import INTERRUPTED, lasting
from videorl.errors import ConfigError, VideorlError

if TYPE_CHECKING:
    from videorl.config import RewardConfig
    from videorl.data.benchmarks import Benchmark
    from videorl.data.score_reading import ScoredClips


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="videorl evaluate_reward",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings of model N, counted from 0: rewards.N.key=value",
    )
    made.add_argument(
        "--benchmark",
        required=True,
        help="videogen_rewardbench, genai_bench, monetbench, vision_reward_regression or "
        "video_feedback",
    )
    made.add_argument(
        "--data", type=Path, required=True, help="folder of the benchmark, unpacked as published"
    )
    made.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME[=PATH]",
        help="a reward model with its checkpoint; may be given several times",
    )
    made.add_argument(
        "--scores",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="scores of one model, from this command or `videorl score`; may be given several "
        "times",
    )
    made.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="DIMENSION=A[+B]",
        help="which of the models' dimensions, or `total`, stand for one of the benchmark; may be "
        "given several times",
    )
    made.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation"),
        help="folder of the results (default: %(default)s)",
    )
    made.add_argument(
        "--batch-size",
        type=int,
        default=8,
        help="videos that a worker gets at once (default: %(default)s)",
    )
    made.add_argument("--address", help="a running Ray cluster; default: RAY_ADDRESS, or a new one")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Print the agreement, and write it and every judgement to `--out`. Exit 130 = stopped."""
    made = parser()
    chosen = made.parse_intermixed_args(argv)
    if not chosen.model and not chosen.scores:
        made.error("give reward models (--model), or files of scores (--scores)")
    if chosen.batch_size < 1:
        made.error(f"--batch-size must be >= 1, got {chosen.batch_size}")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    from videorl.data.benchmarks import read_benchmark
    from videorl.data.score_reading import read_scores
    from videorl.evaluation.reward_benchmark import map_dimensions
    from videorl.recipes.reading import load_rewards

    benchmark = read_benchmark(chosen.benchmark, chosen.data.absolute())
    out = lasting(chosen.out)
    mapping = _mapping(chosen.map)
    rewards = load_rewards(chosen.model, None, chosen.overrides) if chosen.model else []
    rewards = [located(reward) for reward in rewards]
    for reward in rewards:  # what nothing is known of is said before hours of scoring
        map_dimensions(benchmark, reward.name, mapping)
    scored = [read_scores(path) for path in chosen.scores]
    for reward in rewards:
        path = out / f"{benchmark.name}-{reward.key}.parquet"
        if not _score(benchmark, reward, path, chosen.batch_size, chosen.address):
            print("stopped; the same command goes on", file=sys.stderr)
            return INTERRUPTED
        scored.append(read_scores(path))
    _report(benchmark, scored, mapping, out)
    return 0


def _mapping(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return {"VQ": ("a", "b")} for ["VQ=a+b"]."""
    mapping: dict[str, tuple[str, ...]] = {}
    for one in given:
        dimension, equals, names = one.partition("=")
        if not equals or not all(names.split("+")) or dimension in mapping:
            raise ConfigError(f"--map must be DIMENSION=A[+B], once per dimension, got {one!r}")
        mapping[dimension] = tuple(names.split("+"))
    return mapping


def _score(
    benchmark: Benchmark, reward: RewardConfig, path: Path, batch_size: int, address: str | None
) -> bool:
    """Score what has no score in `path` yet; return whether all of it was tried."""
    from actors.scoring import score_missing
    from videorl.data.benchmarks import find_benchmark_clips
    from videorl.data.score_table import open_scores

    source = find_benchmark_clips(benchmark)
    with open_scores(path, [reward]) as table:
        finished = table.scored.issuperset(source.keys) or score_missing(
            source, [reward], table, batch_size, address
        )
        table.merge(source.keys)
    return finished


def _report(
    benchmark: Benchmark,
    scored: Sequence[ScoredClips],
    chosen: dict[str, tuple[str, ...]],
    out: Path,
) -> None:
    import dataclasses

    import pyarrow as pa
    import pyarrow.parquet as pq

    from videorl.evaluation import reward_benchmark
    from videorl.files import write_json

    found: list[reward_benchmark.Agreement] = []
    rows: list[reward_benchmark.Judged] = []
    for one in scored:
        mapping = reward_benchmark.map_dimensions(benchmark, one.model, chosen)
        more, judged = reward_benchmark.evaluate_model(benchmark, one, mapping)
        found += more
        rows += judged
    print(reward_benchmark.format_agreements(benchmark, found))
    write_json(out / f"{benchmark.name}.json", reward_benchmark.to_json(benchmark, found))
    judgements = out / f"{benchmark.name}.parquet"
    pq.write_table(pa.Table.from_pylist([dataclasses.asdict(row) for row in rows]), judgements)
    print(judgements)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
