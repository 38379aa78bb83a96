"""What it saves to make clips ready while others are scored, and HPSv2's resizing frame by frame.

    python -m jobs.bench.reward_feed
    python -m jobs.bench.reward_feed --sizes 1080p --clips 8 --network-s 0.5

All numbers are ratios of ways that take turns in one process; the fastest of `--repeats` counts.

The network of the first table is a stand-in that waits `--network-s` seconds per batch, as a worker
does for its GPU; decoding and resizing are those of HPSv2, on real files. A request is `--clips`
clips. *threads* makes the clips of a request ready ahead (`decode_threads`); *prefetch* gives the
worker two requests at once (`prefetch: 1`). Scores are compared bit for bit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from jobs import command
from jobs.bench.decode import SIZES, make_clip
from jobs.bench.measuring import add_json, write_json
from videorl.errors import RewardError

if TYPE_CHECKING:
    from videorl.rewards.feed import Feed
    from videorl.rewards.per_frame import PerFrameReward
    from videorl.types import Score

SIDE_PX = 224
_REQUESTS = 2


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.reward_feed", __doc__)
    command.add_option(parser, "--sizes", ["1080p", "480p"], "of the clips", choices=list(SIZES))
    command.add_option(parser, "--clips", 4, "clips of a request")
    command.add_option(parser, "--frames", 8, "frames that are scored of each clip")
    command.add_option(parser, "--network-s", 0.3, "seconds per batch of the network")
    command.add_option(parser, "--threads", 2, "clips made ready at once")
    command.add_option(parser, "--repeats", 3, "runs of each way; the fastest counts")
    add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every size, and print one line for each way."""
    options = _parser().parse_args(argv)
    import torch

    torch.set_num_threads(1)
    found: list[dict[str, str | float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            clip = make_clip(Path(folder, f"{size}.mp4"), *SIZES[size], seconds=2)
            ways = feeding(clip, options) | resizing(clip, options.frames, options.repeats)
            for name, ratio in ways.items():
                print(f"{size:>6} {name:<44} {ratio:.2f}×", flush=True)
                found.append({"size": size, "what": name, "ratio": ratio})
    write_json(options.json, found)
    return 0


def feeding(clip: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return how many times faster two requests are scored than without threads and prefetch.

    Raises:
        RewardError: Scores differ.
    """
    from videorl.rewards.feed import Feed

    model = stand_in(options.frames, options.network_s)
    threads = options.threads
    ways = {
        "neither": (Feed(), 1),
        "threads": (Feed(threads), 1),
        "prefetch": (Feed(0, Lock()), _REQUESTS),
        "both": (Feed(threads, Lock()), _REQUESTS),
    }
    scores = {"neither": two_requests(model, clip, options.clips, Feed(), 1)}

    def run(name: str) -> None:
        scores[name] = two_requests(model, clip, options.clips, *ways[name])
        if scores[name] != scores["neither"]:
            raise RewardError(f"{name} changed the scores: {scores[name]}, {scores['neither']}")

    times = shortest({name: partial(run, name) for name in ways}, options.repeats)
    return {
        f"{name}, against neither": times["neither"] / times[name]
        for name in ("threads", "prefetch", "both")
    }


def two_requests(
    model: PerFrameReward, clip: Path, num_clips: int, feed: Feed, at_once: int
) -> list[list[Score]]:
    """Return the scores of two requests, `at_once` of which the worker has."""
    model.feed = feed
    with ThreadPoolExecutor(at_once) as requests:
        score = partial(model.score, [clip] * num_clips)
        prompts = [[f"take {take}"] * num_clips for take in range(_REQUESTS)]
        return list(requests.map(score, prompts))


def stand_in(num_frames: int, network_s: float) -> PerFrameReward:
    """Return a model with HPSv2's preprocessing, and a network that only waits."""
    import torch
    from torch import Tensor, nn

    from videorl.rewards.images.clip_pixels import float_pixels, tensor_pixels
    from videorl.rewards.per_frame import ImageScorer, PerFrameReward

    class Waiting(nn.Module):
        def forward(self, pixels_B3HW: Tensor, texts: Tensor) -> Tensor:
            time.sleep(network_s)
            return pixels_B3HW.mean(dim=(1, 2, 3))

    pixels, floats = (partial(way, side_px=SIDE_PX) for way in (tensor_pixels, float_pixels))
    scorer = ImageScorer("mean", Waiting(), pixels, floats, None, torch.device("cpu"))
    return PerFrameReward(scorer, num_frames=num_frames, batch_frames=num_frames)


def resizing(clip: Path, num_frames: int, repeats: int) -> dict[str, float]:
    """Return how many times faster frames are resized one by one than all at once."""
    import torch

    from videorl.rewards.images.clip_pixels import float_pixels, tensor_pixels
    from videorl.rewards.videos import open_video

    frames_FHW3 = open_video(clip).read(range(num_frames))

    def at_once() -> None:
        frames_F3HW = torch.from_numpy(frames_FHW3).permute(0, 3, 1, 2) / 255.0
        float_pixels(frames_F3HW, SIDE_PX)

    ways = {"at once": at_once, "one by one": lambda: tensor_pixels(frames_FHW3, SIDE_PX)}
    times = shortest(ways, repeats, time.process_time)
    return {"HPSv2's resize, frame by frame": times["at once"] / times["one by one"]}


def shortest(
    ways: dict[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the shortest time of each way in seconds; they take turns."""
    times = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            started = clock()
            way()
            times[name] = min(times[name], clock() - started)
    return times


if __name__ == "__main__":
    raise SystemExit(command.run(main))
