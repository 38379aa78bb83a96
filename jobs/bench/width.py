"""What a wider pool and several updates of a round gain.

    python -m jobs.bench.width split     # prompts whole and in parts, on 8 to 64 stand-ins
    python -m jobs.bench.width updates   # one update of a round against several, default model

`split`: 8 prompts of 4 candidates a round, one round ahead; generators sleep, the rest of the
orchestration and Ray are real. `updates`: the learner of the default recipe, without Ray, on the
same pairs, in turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from jobs import command
from jobs.bench.measuring import add_json, keep_priority, write_json

if TYPE_CHECKING:
    from videorl.learning.learner import Learner
    from videorl.types import PreferencePair

PER_ROUND, CANDIDATES = 8, 4
_STALENESS = 1
_WARM_UP = 2
_PROCESSES = 4
"""Generators share them: those of a test machine have no memory for 64."""

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; print every row as soon as it is there."""
    parser = command.new_parser("python -m jobs.bench.width", __doc__)
    parser.add_argument("what", choices=sorted(BENCHMARKS), help="what is measured")
    add_json(parser)
    command.add_option(parser, "--generators", [8, 16, 32, 64], "split: sizes of the pool")
    command.add_option(parser, "--seconds", 1.0, "split: of sampling one candidate")
    command.add_option(parser, "--rounds", 6, "split: rounds measured; an even number")
    command.add_option(parser, "--updates", [1, 2, 4, 8], "updates: of a round")
    command.add_option(parser, "--repeats", 7, "updates: rounds of each kind")
    options = parser.parse_args(argv)
    keep_priority()
    found: list[Row] = []
    for row in BENCHMARKS[options.what](options):
        if not found:
            print("".join(f"{name:>18}" for name in row))
        print("".join(f"{value:>18.4g}" for value in row.values()), flush=True)
        found.append(row)
    write_json(options.json, found)
    return 0


def split(options: argparse.Namespace) -> Iterator[Row]:
    """Yield seconds per round of whole and of split prompts, for every size of the pool."""
    from actors.cluster import connect

    with connect("local", num_cpus=4):
        for count in options.generators:
            whole, parts = (round_s(count, size, options) for size in (0, "auto"))
            work_s = PER_ROUND * CANDIDATES * options.seconds
            yield {
                "generators": count,
                "ideal s": work_s / min(count, (_STALENESS + 1) * PER_ROUND * CANDIDATES),
                "whole s": whole,
                "in parts s": parts,
                "whole / parts": whole / parts,
            }


def round_s(num_generators: int, size: int | str, options: argparse.Namespace) -> float:
    """Return seconds per round: a mean, since rounds that are sampled together end together."""
    from jobs.bench.overlap import Clock
    from jobs.bench.stand_in_run import stand_in_recipe, stand_in_run, wait_for_workers
    from jobs.bench.stand_ins import Pace, Work
    from videorl.loop import train
    from videorl.run.folder import open_run

    clock = Clock()
    pace = Pace(CANDIDATES * options.seconds, candidates=CANDIDATES)
    with tempfile.TemporaryDirectory() as folder:
        recipe = stand_in_recipe(
            folder,
            num_steps=_WARM_UP + options.rounds + _STALENESS + 1,
            prompts__per_round=PER_ROUND,
            prompts__candidates_per_prompt=CANDIDATES,
            rollouts__max_staleness=_STALENESS,
            generators__min_workers=num_generators,
            generators__max_workers=num_generators,
            generators__candidates_per_request=size,
        )
        with (
            open_run(recipe) as run,
            stand_in_run(recipe, run, clock, pace, work=Work(num_shared=_PROCESSES)) as parts,
        ):
            wait_for_workers(parts.generator.pool, num_generators, 300.0)
            train(recipe, parts.parts, parts.progress, lambda: False)
    first, last = clock.times[_WARM_UP - 1], clock.times[_WARM_UP + options.rounds - 1]
    return (last - first) / options.rounds


def updates(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the learner's seconds per round and per update, for every number of updates."""
    with tempfile.TemporaryDirectory() as folder:
        learners = {count: _learner(count, Path(folder)) for count in options.updates}
        seconds: dict[int, list[float]] = {count: [] for count in learners}
        for step in range(1 + options.repeats):
            for count, (learner, pairs) in learners.items():
                started = time.perf_counter()
                learner.step(step, pairs)
                seconds[count].append(time.perf_counter() - started)
    once_s = median(seconds[options.updates[0]][1:])  # the first one warms up
    for count, times in seconds.items():
        step_s = median(times[1:])
        yield {
            "updates": count,
            "round s": step_s,
            "update s": step_s / count,
            "round / first": step_s / once_s,
        }


def _learner(num_updates: int, folder: Path) -> tuple[Learner, list[PreferencePair]]:
    """Return a learner of the default recipe, and a pair of its own samples for every prompt."""
    from videorl.learning.build import build_learner
    from videorl.learning.engines.local import LocalEngine
    from videorl.recipes.reading import load_recipe
    from videorl.types import Candidate, PreferencePair, Prompt, Score, ScoredCandidate

    recipe = load_recipe("moving_shapes", [f"learner.updates_per_round={num_updates}"])
    learner, policy = build_learner(
        recipe,
        folder / str(num_updates),
        lambda module: LocalEngine(module, recipe.optimizer),
        with_text_encoder=True,
    )
    version, _ = learner.start()
    embeds = policy.encode(["a red square"])[0]
    latents_BCTHW = policy.sample(embeds, None, range(2 * PER_ROUND))
    pairs: list[PreferencePair] = []
    for index in range(PER_ROUND):
        prompt = Prompt(index, "a red square")
        chosen, rejected = (
            ScoredCandidate(
                Candidate(0, prompt, role, 0, version, latents_BCTHW[2 * index + role], None),
                Score({}, 1.0 - role),
            )
            for role in range(2)
        )
        pairs.append(PreferencePair(prompt, embeds, chosen, rejected, margin=1.0))
    return learner, pairs


BENCHMARKS = {"split": split, "updates": updates}


if __name__ == "__main__":
    raise SystemExit(command.run(main))
