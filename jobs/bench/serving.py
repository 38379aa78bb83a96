"""What HTTP costs: scores and videos per second served, against calling the model directly.

    python -m jobs.bench.serving
    python -m jobs.bench.serving --recipe my_recipe.yaml --reward video_reward --clients 8

Both ways do the same work, one after the other: the direct one in this process, the served one for
`--clients` at once on a server that this starts, scores also with several clips in a request. A
direct score decodes an mp4 file and calls the model; a direct video is sampled, decoded and
encoded. Stand-ins for large reward models, which only wait `--waits-s` for every clip, show from
which cost per clip on HTTP is hidden by a model on a GPU. Below each ratio is the processor time of
an item, part by part: unlike rates, it says the same on a machine that does other work.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import command
from jobs.bench.measuring import add_json, keep_priority, show, write_json
from videorl.serving.limits import MAX_UPLOADS

if TYPE_CHECKING:
    from videorl.config import Recipe, RewardConfig
    from videorl.types import Score

PROMPT = "a large red circle moving left"
TOKEN = "benchmark"


@dataclass(frozen=True)
class Measured:
    """What one way of doing the work took."""

    per_s: float
    milliseconds: dict[str, float]
    """Part -> its processor time of an item."""


class StandIn:
    """A reward model that waits for every clip, as for a GPU, and scores nothing."""

    dimensions = ("none",)

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s

    def score(self, videos: Sequence[Any], prompts: Sequence[str]) -> list[Score]:
        """Return zeros, after the time."""
        from videorl.rewards.videos import open_videos
        from videorl.types import Score

        for video in open_videos(videos, prompts):
            video.read(range(video.num_frames))
            time.sleep(self._wait_s)
        return [Score({"none": 0.0}, 0.0) for _ in videos]


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.serving", __doc__)
    command.add_option(parser, "--recipe", "moving_shapes", "whose policy samples")
    command.add_models(parser, "--reward")
    text = "seconds per clip of the stand-ins for large reward models"
    parser.add_argument("--waits-s", nargs="*", type=float, default=[0.01, 0.03, 0.1], help=text)
    command.add_option(parser, "--videos", 16, "videos of each way")
    command.add_option(parser, "--scores", 64, "scores of each way and model")
    command.add_option(parser, "--clients", 4, "clients at once")
    add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print: rates of both ways, and their ratios."""
    options = _parser().parse_args(argv)
    keep_priority()
    from videorl.recipes.reading import load_recipe, load_rewards
    from videorl.settings.rewards import RewardConfig

    recipe = load_recipe(options.recipe)
    rewards = load_rewards(options.reward or ["moving_shapes"], None)
    rewards += [
        RewardConfig(
            f"{__spec__.name}:StandIn",
            label=f"waiting_{wait_s:g}_s",
            options={"wait_s": wait_s},
            num_cpus=0.1,
        )
        for wait_s in options.waits_s
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        videos, content = _direct_videos(recipe, options.videos)
        path.write_bytes(content)
        direct = {"videos": videos}
        for reward in rewards:
            direct[reward.key] = _direct_scores(reward, path, options.scores)
        with _server(recipe, rewards, Path(folder, "served")) as url:
            served = _served(url, content, [reward.key for reward in rewards], options)
    for reward in rewards:
        direct[_together(reward.key)] = direct[reward.key]
    found = {name: _compared(direct[name], served[name]) for name in direct}
    for name, numbers in found.items():
        show(numbers, name if name == "videos" else f"scores of {name}")
    write_json(options.json, found)
    return 0


def _compared(direct: Measured, served: Measured) -> dict[str, float]:
    shown = {part: ms for part, ms in sorted(served.milliseconds.items()) if ms >= 0.05}
    return {
        "directly, per second": direct.per_s,
        "served, per second": served.per_s,
        "served / directly": served.per_s / direct.per_s,
        "processor time of an item, directly, ms": sum(direct.milliseconds.values()),
        "processor time of an item, served, ms": sum(served.milliseconds.values()),
        **{f"  {part}": ms for part, ms in shown.items()},
    }


def _together(model: str) -> str:
    return f"{model}, {MAX_UPLOADS} in a request"


def _rate(
    count: int, work: Callable[[int], object], clients: int = 1, *, items: int = 1
) -> Measured:
    """Measure how many items a second are done, `items` by each call, after one as a warm-up."""
    from jobs.bench.processor_time import by_part

    with ThreadPoolExecutor(clients) as threads:
        for _ in threads.map(work, [0] * clients):
            pass
        before, started = by_part(), time.perf_counter()
        for _ in threads.map(work, range(1, count + 1)):
            pass
        seconds, after = time.perf_counter() - started, by_part()
    done = count * items
    parts = {part: 1000 * (after[part] - before[part]) / done for part in after}
    return Measured(done / seconds, parts)


def _direct_videos(recipe: Recipe, count: int) -> tuple[Measured, bytes]:
    from videorl.serving.policy import Served, ServedPolicy
    from videorl.serving.requests import BASE, VideoTask

    policy = ServedPolicy(Served(recipe))
    task, weights = VideoTask(PROMPT, recipe.sampling, 0, BASE), policy.read(BASE)

    def work(seed: int) -> None:
        policy.sample([replace(task, seed=seed)], weights)

    rate = _rate(count, work)
    (content,) = policy.sample([task], weights)
    assert isinstance(content, bytes), content
    return rate, content


def _direct_scores(reward: RewardConfig, path: Path, count: int) -> Measured:
    from videorl.rewards.feed import load_configured

    model: Any = load_configured(reward)
    return _rate(count, lambda _: model.score([path], [PROMPT]))


@contextmanager
def _server(recipe: Recipe, rewards: Sequence[RewardConfig], folder: Path) -> Iterator[str]:
    from socket import create_server

    from actors.cluster import connect
    from actors.serving.ingress import Site
    from actors.serving.start import Address, serving
    from videorl.serving.guards import digest_of
    from videorl.serving.limits import ServingLimits
    from videorl.serving.policy import Served
    from videorl.serving.requests import Offer
    from videorl.serving.work import Replicas

    offer = Offer(recipe.name, recipe.sampling, rewards=tuple(each.key for each in rewards))
    site = Site(offer, folder, ServingLimits(), Replicas(), digest_of(TOKEN))
    with create_server(("127.0.0.1", 0)) as free:
        address = Address(port=free.getsockname()[1])
    num_cpus = recipe.generators.num_cpus + sum(reward.num_cpus for reward in rewards)
    with connect("local", num_cpus=num_cpus), serving(Served(recipe), rewards, site, address):
        yield address.url


def _served(
    url: str, content: bytes, models: Sequence[str], options: argparse.Namespace
) -> dict[str, Measured]:
    import httpx

    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=url, headers=headers, timeout=600) as client:

        def video(seed: int) -> None:
            fields = {"prompt": PROMPT, "seed": seed}
            client.post("/v1/videos/sync", json=fields).raise_for_status()

        def score(model: str, count: int = 1) -> Callable[[int], object]:
            def work(_: int) -> None:
                data = {"prompt": PROMPT, "models": model}
                files = [("video", ("clip.mp4", content))] * count
                answer = client.post("/v1/rewards", data=data, files=files).raise_for_status()
                assert "error" not in answer.text, answer.text

            return work

        found = {"videos": _rate(options.videos, video, options.clients)}
        for model in models:
            found[model] = _rate(options.scores, score(model), options.clients)
            found[_together(model)] = _rate(
                -(-options.scores // MAX_UPLOADS),
                score(model, MAX_UPLOADS),
                options.clients,
                items=MAX_UPLOADS,
            )
        return found


if __name__ == "__main__":
    raise SystemExit(command.run(main))
