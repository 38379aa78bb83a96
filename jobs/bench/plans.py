"""Write the table of docs/planning.md: the plans of recipes for real models.

python -m jobs.bench.plans                             # print it
python -m jobs.bench.plans --out docs/planning.md      # between the page's two markers
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
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
_GPUS = (8, 64)


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.plans", __doc__)
    parser.add_argument("--out", type=Path, help="page whose table is replaced")
    command.add_option(parser, "--gpu", "h100-80gb", "kind of GPU")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, or write it."""
    from videorl.planning.cards import find_card
    from videorl.recipes.reading import load_recipe

    options = _parser().parse_args(argv)
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
    for name, recipe in recipes.items():
        for row in _rows(name, recipe, options.gpu):
            lines.append(row)
            print(row, flush=True)
    if options.out is not None:
        _write(options.out, "\n".join(lines))
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


def _write(page: Path, table: str) -> None:
    text = page.read_text()
    if any(text.count(mark) != 1 for mark in MARKS):
        raise ConfigError(f"--out: {page} must hold {MARKS[0]} and {MARKS[1]} once each")
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    raise SystemExit(command.run(main))
