"""`videorl plan`: what a run will need, before it starts. Nothing but config.json files is read.

    videorl plan wan_1_3b_three_rewards                                  # as the recipe places it
    videorl plan wan_1_3b_three_rewards --gpu h100-80gb --gpus 64        # split 64 GPUs
    videorl plan RECIPE policy.lora.rank=0 --memory-gb 96 --tflops 400   # another card

Memory is counted on models without numbers, time follows from operations and the card's rate;
docs/planning.md has the formulas. Exit code 1 if the recipe does not fit the card.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs import command
from jobs.results import add_json, results
from videorl.errors import ConfigError
from videorl.planning.cards import DEFAULT, find_card

DOES_NOT_FIT = 1
"""Exit code of a plan that cannot work."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan of a recipe."""
    parser = command.new_parser("videorl plan", __doc__)
    command.add_recipe(parser, "videorl/config.py")
    command.add_option(parser, "--gpu", DEFAULT, "kind of GPU; an unknown one lists them")
    text = "GPUs to split among the roles; default: as the recipe places its workers"
    parser.add_argument("--gpus", type=int, help=text)
    parser.add_argument("--memory-gb", type=float, help="GiB of a card, instead of the table's")
    text = "dense bfloat16 TFLOPS of a card, instead of the table's"
    parser.add_argument("--tflops", type=float, help=text)
    add_json(parser)
    options = parser.parse_intermixed_args(argv)
    card = find_card(options.gpu, options.memory_gb, options.tflops)
    if options.gpus is not None and options.gpus < 1:
        raise ConfigError(f"--gpus must be >= 1, got {options.gpus}")

    from videorl.planning.plan import make_plan
    from videorl.planning.text import as_text
    from videorl.recipes.reading import load_recipe

    with results(options) as show:
        plan = make_plan(load_recipe(options.recipe, options.overrides), card, options.gpus)
        show(plan.as_json(), as_text(plan))
    return DOES_NOT_FIT if plan.problems() else 0


if __name__ == "__main__":
    raise SystemExit(command.run(main))
