"""Write the tables of docs/planning.md: the plans of recipes for real models.

python -m jobs.bench.plans                             # print that of split GPUs
python -m jobs.bench.plans --placed                    # every recipe as it places its workers
python -m jobs.bench.plans --out docs/planning.md      # between the page's two markers
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command
from videorl.errors import ConfigError

if TYPE_CHECKING:
    from videorl.config import Recipe

RECIPES = (
    "wan_1_3b_three_rewards",
    "wan_1_3b_refl",
    "cogvideox_2b",
    "cogvideox_2b_mpo",
    "cogvideox_5b",
)
"""The shipped recipes for real models."""
REFL = (
    "objective.name=refl",
    "objective.checkpoint_decode=true",
    "rewards=[{name: video_reward, path: KlingTeam/VideoReward}]",
    "learner.micro_batch_size=1",
)
REFL_ON = {"ReFL with CogVideoX-2B": "cogvideox_2b", "ReFL with CogVideoX-5B": "cogvideox_5b"}
"""Recipes whose policy is planned with ReFL too, decoded in whole frames and in tiles."""
OTHERS = {
    "the first with Wan2.1-14B": ["policy.path=Wan-AI/Wan2.1-T2V-14B-Diffusers"],
    "the first with Wan2.2-TI2V-5B, 121×704×1280": [
        "policy.path=Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        "sampling.num_frames=121",
        "sampling.height=704",
        "sampling.width=1280",
        "sampling.fps=24",
    ],
}
"""Other models in the place of the first recipe's."""
MARKS = ("<!-- plans: begin -->", "<!-- plans: end -->")
PLACED_MARKS = ("<!-- placed: begin -->", "<!-- placed: end -->")
LARGE = ("hunyuan_video", "wan_2_2_a14b")
"""Recipes for GPUs of 141 GB; those of the others have 80."""
_GPUS = (8, 64)


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.plans", __doc__)
    parser.add_argument("--out", type=Path, help="page whose table is replaced")
    command.add_option(parser, "--gpu", "h100-80gb", "kind of GPU; not with --placed")
    text = "every recipe on the GPUs it asks for, before its accelerators were chosen and now"
    parser.add_argument("--placed", action="store_true", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, or write it."""
    from videorl.planning.cards import find_card
    from videorl.recipes.reading import load_recipe

    options = _parser().parse_args(argv)
    if options.placed:
        _print(_placed(), options.out, PLACED_MARKS)
        return 0
    card = find_card(options.gpu)
    recipes = {f"`{name}`": load_recipe(name, []) for name in RECIPES}
    recipes |= {name: load_recipe(RECIPES[0], changes) for name, changes in OTHERS.items()}
    for name, of in REFL_ON.items():
        for side in (0, 256):
            changes = [*REFL, f"objective.decode_tile_px={side}"]
            recipes[f"{name}, {f'tiles of {side}' if side else 'whole frames'}"] = load_recipe(
                of, changes
            )
    lines = [
        f"On {card.name} of {card.usable_gib:.1f} usable GiB; GiB per GPU, one video at a time.",
        "",
        "| recipe | learner | without checkpointing | largest micro-batch | generator | GPUs: "
        "split | s per step | videos per hour | limited by | with all that can be planned: s per "
        "step | then limited by |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = (row for name, recipe in recipes.items() for row in _rows(name, recipe, options.gpu))
    _print((*lines, *rows) if options.out else rows, options.out, MARKS)
    return 0


def _rows(name: str, recipe: Recipe, gpu: str) -> Iterator[str]:
    """Yield a row for each number of GPUs, from one count."""
    from videorl.planning.cards import find_card
    from videorl.planning.plan import make_plan, with_gpus

    plan = make_plan(recipe, find_card(gpu))
    needs, generator = plan.needs, plan.needs.roles.get("generator")
    memory = (
        f"{needs.with_checkpointing.one_video.peak_gib:.1f}",
        f"{needs.without_checkpointing.one_video.peak_gib:.1f}",
        f"{needs.learner.micro_batch_size or 'none fits'}",
        f"{generator.memory.peak_gib:.1f}" if generator else "",
    )
    for num_gpus in _GPUS:
        at = with_gpus(plan, num_gpus)
        shares = ", ".join(f"{role} {gpus:g}" for role, gpus in at.split.gpus.items())
        paces = [at.split.pace, *(each.pace for each in at.alternatives[-1:])]
        cells = [f"{num_gpus}: {shares}"]
        for pace in paces:
            limit = f"{pace.bottleneck} {pace.busy[pace.bottleneck]:.0%}"
            cells += [f"{pace.step_s:.0f}", limit]
        cells.insert(2, f"{at.candidates_per_hour:.0f}")
        cells += [""] * (6 - len(cells))
        first = (name, *memory) if num_gpus == _GPUS[0] else ("",) * 5
        yield f"| {' | '.join((*first, *cells))} |"


def _print(lines: Iterable[str], page: Path | None, marks: tuple[str, str]) -> None:
    """Print lines as they come, and write them into a page if there is any."""
    written: list[str] = []
    for line in lines:
        print(line, flush=True)
        written.append(line)
    if page is not None:
        _write(page, "\n".join(written), marks)


def _placed() -> Iterator[str]:
    """Yield the table of recipes as they place their workers."""
    from videorl.planning.cards import find_card
    from videorl.planning.plan import make_plan
    from videorl.recipes.reading import RECIPES as FOLDER
    from videorl.recipes.reading import load_recipe

    yield (
        "| recipe | GPUs | learner, GiB | videos at once | generator, GiB | generators | s per "
        "step before | limited by | now | limited by | videos per hour |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for name in sorted(file.stem for file in FOLDER.glob("*.yaml")):
        recipe = load_recipe(name)
        if name.startswith("moving_shapes"):
            continue
        card = find_card("h200-141gb" if name in LARGE else "h100-80gb")
        before, now = (make_plan(each, card) for each in (_plain(recipe), recipe))
        generator = now.needs.roles.get("generator")
        cells = [f"`{name}`", f"{now.num_gpus:g} {card.name}"]
        cells += [f"{now.needs.learner.memory.peak_gib:.1f}", f"{now.asked}"]
        cells += (
            [f"{generator.memory.peak_gib:.1f}", f"{generator.workers}"] if generator else ["", ""]
        )
        for plan in (before, now):
            pace = plan.split.pace
            fits = "" if not plan.problems() else "does not fit; "
            cells += [
                f"{fits}{pace.step_s:.0f}",
                f"{pace.bottleneck} {pace.busy[pace.bottleneck]:.0%}",
            ]
        yield f"| {' | '.join((*cells, f'{now.candidates_per_hour:.0f}'))} |"


def _plain(recipe: Recipe) -> Recipe:
    """Return a recipe as it was placed before: a video at a time, no generators above the minimum.

    Ranks did not share videos, and their GPUs were generators.
    """
    shared = recipe.learner.context_parallel
    learner = replace(
        recipe.learner,
        micro_batch_size=1,
        context_parallel=1,
        num_workers=recipe.learner.num_workers // shared,
    )
    workers = recipe.generators.min_workers + shared - 1
    generators = replace(recipe.generators, min_workers=workers, max_workers=workers)
    return replace(recipe, learner=learner, generators=generators)


def _write(page: Path, table: str, marks: tuple[str, str]) -> None:
    text = page.read_text()
    if any(text.count(mark) != 1 for mark in marks):
        raise ConfigError(f"--out: {page} must hold {marks[0]} and {marks[1]} once each")
    before, rest = text.split(marks[0])
    _, after = rest.split(marks[1])
    page.write_text(f"{before}{marks[0]}\n{table}\n{marks[1]}{after}")


if __name__ == "__main__":
    raise SystemExit(command.run(main))
