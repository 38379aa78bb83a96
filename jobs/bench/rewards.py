"""How much time the reward models save against their authors' way, as ratios in one run.

    python -m jobs.bench.rewards
    python -m jobs.bench.rewards --models vision_reward --vision-reward CHECKPOINT --seconds 5 24

Weights are the tiny ones of the test fixtures unless checkpoints are given. The ways take turns,
`--repeats` times, and the fastest time of each counts: on a CPU processor time of `--threads`
threads, which other load on the machine hardly changes; with a GPU the time that passes.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command

if TYPE_CHECKING:
    from videorl.protocols import RewardModel
    from videorl.types import Video

FIXTURES = Path(__file__).resolve().parents[2] / "tests/fixtures"
PROMPT = "a girl walks in the rain with a red umbrella"


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.rewards", __doc__)
    models = sorted(BENCHMARKS)
    command.add_option(parser, "--models", models, "which are measured", choices=models)
    for name in ("--video-reward", "--vision-reward"):
        parser.add_argument(name, type=Path, help="checkpoint folder; default: tiny weights")
    command.add_option(parser, "--batch", 8, "clips per batch")
    command.add_option(parser, "--seconds", [5, 24], "lengths of the clips")
    command.add_option(parser, "--repeats", 3, "runs of each way; the fastest counts")
    command.add_option(parser, "--threads", 1, "CPU threads of torch")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks that were asked for."""
    options = _parser().parse_args(argv)
    import torch

    torch.set_num_threads(options.threads)
    for name in options.models:
        BENCHMARKS[name](options)
    return 0


def clip(seconds: int, seed: int = 0) -> Video:
    """Return noise of 96 × 160 pixels, 8 frames per second; reading larger ones once saves more."""
    import numpy as np

    from videorl.types import Video

    generator = np.random.default_rng(seed)
    frames = generator.integers(0, 256, (seconds * 8, 96, 160, 3), dtype=np.uint8)
    return Video(frames, fps=8.0)


def fastest(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the shortest time of each way in seconds; ways take turns, after one warm-up each."""
    import torch

    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    for way in ways.values():
        way()
    times: dict[str, float] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            start = clock()
            way()
            elapsed = clock() - start
            times[name] = min(elapsed, times.get(name, elapsed))
    return times


def vision_reward(options: argparse.Namespace) -> None:
    """Compare one pass over all 29 questions with 29 passes."""
    from videorl.rewards.videos import open_video
    from videorl.rewards.vision_reward.model import VisionReward
    from videorl.rewards.vision_reward.questions import weighted

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.vision_reward
        if checkpoint is None:
            with tarfile.open(_tiny("vision_reward.tar.xz")) as archive:
                archive.extractall(folder, filter="data")
            checkpoint = Path(folder) / "vision_reward"
        model = VisionReward(checkpoint)
        for seconds in options.seconds:
            video = clip(seconds)
            prefix = model.read(open_video(video))
            times = fastest(
                {
                    "shared": lambda video=video: model.score([video], [PROMPT]),
                    "separate": lambda video=video: [
                        model.ask(video, PROMPT, [question]) for question in weighted()
                    ],
                    "questions shared": lambda prefix=prefix: model.answer(
                        prefix, PROMPT, weighted()
                    ),
                    "questions separate": lambda prefix=prefix: [
                        model.answer(prefix, PROMPT, [question]) for question in weighted()
                    ],
                },
                options.repeats,
            )
            _report(
                f"vision_reward, {seconds} s clip, 29 questions: one pass against 29 forwards",
                times["shared"],
                times["separate"],
            )
            _report(
                "  the same without reading the video: language model only",
                times["questions shared"],
                times["questions separate"],
            )


def video_reward(options: argparse.Namespace) -> None:
    """Compare one call for several videos, or several prompts of one, with one call for each."""
    from videorl import rewards

    if options.video_reward is None:
        tiny = _tiny("video_reward")
        model = rewards.load("video_reward", str(tiny), base=str(tiny / "base"))
    else:
        model = rewards.load("video_reward", str(options.video_reward))
    for seconds in options.seconds:
        clips = [clip(seconds, seed) for seed in range(options.batch)]
        lengths = [clip(1 + seed * seconds // options.batch, seed) for seed in range(options.batch)]
        for what, videos in (
            (f"{options.batch} clips of {seconds} s", clips),
            (f"{options.batch} clips of 1 … {seconds} s", lengths),
            (f"one clip of {seconds} s with {options.batch} prompts", clips[:1] * options.batch),
        ):
            _compare(model, what, videos, options.repeats)


def _compare(model: RewardModel, what: str, videos: list[Video], repeats: int) -> None:
    prompts = [f"{PROMPT}, take {take}" for take in range(len(videos))]
    pairs = list(zip(videos, prompts, strict=True))
    ways = {
        "together": lambda: model.score(videos, prompts),
        "single": lambda: [model.score([video], [prompt]) for video, prompt in pairs],
    }
    times = fastest(ways, repeats)
    title = f"video_reward, {what}: one call against one by one"
    _report(title, times["together"], times["single"])


BENCHMARKS: dict[str, Callable[[argparse.Namespace], None]] = {
    "video_reward": video_reward,
    "vision_reward": vision_reward,
}
"""Model -> what measures and prints its ratios."""


def _tiny(name: str) -> Path:
    """Return tiny weights, which come with the source and not with an installed package."""
    from videorl.errors import ConfigError

    path = FIXTURES / name
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist: tiny weights come with a checkout of the source; run this "
            "there, or give a checkpoint with --video-reward or --vision-reward"
        )
    return path


def _report(what: str, ours: float, other: float) -> None:
    print(f"{what}: {ours:.3f} s against {other:.3f} s = {other / ours:.1f}×", flush=True)


if __name__ == "__main__":
    raise SystemExit(command.run(main))
