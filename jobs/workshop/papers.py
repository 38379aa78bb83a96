"""The papers' tables in shape on Moving Shapes: base, SFT, RWR, DPO offline and online, ReFL.

    python -m jobs.workshop.papers --report docs/papers_table.md
    python -m jobs.workshop.papers --seeds 1 --steps 2 --prompts 4 --local --out papers

Trains every method with every seed (a Ray task of one CPU each), teaches a small VideoMAE to name
what clips show, and hands base and adapters to `videorl measure`. Stop it at any moment and start
the same command again: what is finished is not repeated. Exit codes are those of `videorl measure`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jobs import command
from jobs.measure import NOT_ALL
from jobs.measure import main as measure
from videorl.errors import ConfigError

PROG = "python -m jobs.workshop.papers"
NUM_CLEAN = 256
"""Clean clips that FVD is measured against."""
LESSONS = 400
"""Steps in which the VideoMAE is taught."""
FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure and report; return the exit code."""
    parser = command.new_parser(PROG, __doc__)
    command.add_option(parser, "--seeds", 5, "training seeds of every method")
    command.add_option(parser, "--steps", 16, "optimizer steps")
    command.add_option(parser, "--prompts", 32, "held-out prompts")
    command.add_option(parser, "--samples", 2, "videos of each prompt")
    command.add_option(parser, "--out", Path("runs/papers"), "output folder")
    parser.add_argument("--report", type=Path, help="write this Markdown page, and JSON beside it")
    parser.add_argument("--local", action="store_true", help="one after the other, without Ray")
    text = "report on the methods and seeds that are trained, and train no more"
    parser.add_argument("--trained", action="store_true", help=text)
    command.add_address(parser)
    options = parser.parse_args(argv)
    if min(options.seeds, options.steps, options.prompts, options.samples) < 1:
        raise ConfigError("--seeds, --steps, --prompts and --samples must be >= 1")

    from videorl.ablation.methods import METHODS, adapter_folder, method_run
    from videorl.ablation.recogniser import teach, write_clean_clips

    out = command.output_folder(options.out.absolute())
    runs = [method_run(name, s, options.steps) for s in range(options.seeds) for name in METHODS]
    missing = [run for run in runs if not adapter_folder(out, run).exists()]
    print(f"{len(runs)} trainings, {len(runs) - len(missing)} of them finished before", flush=True)
    if missing and not options.trained:
        from actors.ablation import train_all

        if not train_all(missing, out, options.address, is_local=options.local):
            return FAILED
    there = [run for run in runs if adapter_folder(out, run).exists()]
    policies = [f"{run.label}#{run.recipe.seed}={adapter_folder(out, run)}" for run in there]
    words = _words(policies, teach(out / "recogniser", LESSONS), out, options)
    words += ["--reference", f"clean={write_clean_clips(out / 'clean', NUM_CLEAN)}"]
    code = measure(words)
    if options.report is not None and code in (0, NOT_ALL):  # else what is there is of another call
        from videorl.ablation.papers_page import write_page

        names = ("seeds", "steps", "prompts", "samples")
        shown = " ".join([PROG, *(f"--{name} {getattr(options, name)}" for name in names)])
        write_page(options.report, out / "measured" / "measured.json", there, shown)
        print(f"report: {options.report}")
    return code


def _words(policies: Sequence[str], network: Path, out: Path, options: object) -> list[str]:
    """Return the arguments of `videorl measure` but for the reference."""
    rewards = out / "rewards.yaml"
    listed = [
        {"name": "moving_shapes", "label": "oracle"},
        {"name": "video_reward", "path": "moving_shapes_reward", "label": "learned"},
        {
            "name": "videorl.ablation.recogniser:Recogniser",
            "path": str(network),
            "label": "recogniser",
        },
    ]
    rewards.write_text(json.dumps({"rewards": listed}), encoding="utf-8")
    given = vars(options)
    words = ["--policy", "base", *policies, "--recipe", "moving_shapes_dpo"]
    words += ["--num-prompts", str(given["prompts"]), "--samples", str(given["samples"])]
    words += ["--rewards", str(rewards), "--video-mae", str(network), "--metric"]
    words += ["temporal_flickering", "moved_light", "motion_magnitude", "fvd", "diversity"]
    words += ["--few-clips", "--local", "--out", str(out / "measured")]
    return words


if __name__ == "__main__":
    raise SystemExit(command.run(main))
