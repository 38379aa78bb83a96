"""How long `videorl watch` takes on a large run: the first page, the index, and each filter.

    python -m jobs.bench.watch
    python -m jobs.bench.watch --steps 40 --keep runs/large

An archive is written by the run's own writer, one small Parquet file per step and table, without
videos: by default 100,096 candidates of 391 steps with 64 prompts each. The page is served by the
real command, and asked for over HTTP; where playwright and Debian's `chromium` are there, also
opened in a browser until the first group is drawn, and until it can be filtered.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TypeVar
from urllib.request import urlopen

from jobs import command
from jobs.watching import CHROMIUM, served
from videorl.data.archive import Archive
from videorl.run.sinks import JsonlSink
from videorl.selection import best_vs_worst
from videorl.types import (
    Candidate,
    Prompt,
    PromptOutcome,
    Score,
    ScoredCandidate,
    ScoredGroup,
    StepRecord,
    WeightVersion,
)
from videorl.watch.filters import Filter
from videorl.watch.groups import read_groups
from videorl.watch.index import FIRST, Index

T = TypeVar("T")
PAGE = 6
REPEATS = 5
WORDS = ("small", "large", "red", "green", "blue", "square", "circle", "moving", "left")
UNSEEN = ("dynamic_degree", "colour_entropy", "edge_density", "sharpness", "dark_pixel_share")
FILTERS = {
    "nothing": Filter(),
    "prompt": Filter(text="red square"),
    "steps": Filter(first_step=20, last_step=30),
    "margin": Filter(least_margin=2.5, order="largest margin"),
    "dimension": Filter(dimension="motion_quality", at_least=0.9, order="best candidate"),
    "unseen": Filter(dimension="dynamic_degree", at_most=0.01),
    "reason": Filter(reason="score_not_finite", order="oldest"),
    "all": Filter(text="red", least_margin=1.0, dimension="visual_quality", at_least=0.5),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the times."""
    parser = command.new_parser("python -m jobs.bench.watch", __doc__)
    command.add_option(parser, "--steps", 391, "steps of the archive")
    command.add_option(parser, "--prompts", 64, "prompts per step")
    command.add_option(parser, "--candidates", 4, "candidates per prompt")
    parser.add_argument("--keep", type=Path, help="run folder to write, or to use again")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder) / "run"
        if not (root / "config.yaml").exists():
            took, _ = timed(
                lambda: write_run(root, options.steps, options.prompts, options.candidates)
            )
            print(f"written in {took:.1f} s")
        measure_queries(root)
        measure_page(root)
    return 0


def write_run(root: Path, num_steps: int, num_prompts: int, num_candidates: int) -> None:
    """Write a run folder with random scores; the same ones every time."""
    (root / "archive").mkdir(parents=True)
    dice = random.Random(0)
    archive = Archive(root / "archive", "none", keep_latents=False)
    sink = JsonlSink(root / "metrics.jsonl")
    for step in range(num_steps):
        groups = [
            _group(dice, step, step * num_prompts + place, num_candidates)
            for place in range(num_prompts)
        ]
        pairs = tuple(pair for group in groups for pair in best_vs_worst(group))
        outcomes = tuple(PromptOutcome(group.prompt, "trained") for group in groups)
        before, after = WeightVersion(step, "a" * 64), WeightVersion(step + 1, "b" * 64)
        archive.write(StepRecord(step, outcomes, tuple(groups), pairs, before, after, before))
        sink.write(step, {f"made/metric_{number}": dice.random() for number in range(40)})
    # Last, as it says that the folder is whole.
    (root / "config.yaml").write_text(json.dumps({"name": "benchmark", "num_steps": num_steps}))


def _group(dice: random.Random, step: int, index: int, num_candidates: int) -> ScoredGroup:
    prompt = Prompt(index, " ".join(dice.choices(WORDS, k=8)))
    scored: list[ScoredCandidate] = []
    for place in range(num_candidates):
        version = WeightVersion(step, "a" * 64)
        seed = dice.getrandbits(62)
        candidate = Candidate(step, prompt, place, seed, version, None, None)
        names = ("visual_quality", "motion_quality", "text_alignment")
        dimensions = {name: dice.uniform(-1, 1) for name in names}
        score = Score(dimensions, sum(dimensions.values()))
        unseen = {name: dice.random() for name in UNSEEN}
        scored.append(ScoredCandidate(candidate, score, unseen))
    dropped = {"score_not_finite": 1} if dice.random() < 0.01 else {}
    return ScoredGroup(prompt, None, tuple(scored), dropped)


def measure_queries(root: Path) -> None:
    """Print how long a first page, the whole index and filters take, without any server."""
    archive = root / "archive"
    index = Index(archive)

    def page(wanted: Filter) -> int:
        keys = index.page(wanted, 0, PAGE)
        read_groups(archive, index, keys)
        return index.count(wanted)

    took, _ = timed(lambda: (index.refresh(FIRST), page(Filter())))
    print(f"first page, nothing read before: {took * 1e3:.0f} ms")
    took, _ = timed(index.refresh)
    print(f"index of {index.num_steps()} steps, in the background: {took:.2f} s")
    for name, wanted in FILTERS.items():
        runs = [timed(lambda wanted=wanted: page(wanted)) for _ in range(REPEATS)]
        times = [took for took, _ in runs]
        print(
            f"filter {name:<10} {runs[0][1]:>6} groups  median {median(times) * 1e3:.0f} ms, "
            f"at most {max(times) * 1e3:.0f} ms"
        )


def measure_page(root: Path) -> None:
    """Print how long the page takes from the request on, of a server that has read nothing."""
    with served(root) as url:
        took, size = timed(lambda: len(urlopen(f"{url}?tab=gallery").read()))
        print(f"page over HTTP, nothing read before: {took * 1e3:.0f} ms, {size / 1e3:.0f} kB")
    if not CHROMIUM.exists() or not find_spec("playwright"):
        print("page in a browser: not measured, playwright or chromium is missing")
        return
    from playwright.sync_api import sync_playwright

    with served(root) as url, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page()
        for what in ("nothing read or cached before", "again"):
            start = time.perf_counter()
            page.goto(f"{url}?tab=gallery", wait_until="commit")
            page.wait_for_selector(".group")
            drawn = time.perf_counter() - start
            page.wait_for_selector("#app .group")
            alive = time.perf_counter() - start
            print(
                f"page in a browser, {what}: drawn after {drawn * 1e3:.0f} ms, with its controls "
                f"after {alive * 1e3:.0f} ms"
            )
        browser.close()


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return seconds and result of a call."""
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


if __name__ == "__main__":
    raise SystemExit(command.run(main))
