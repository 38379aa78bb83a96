"""The `videorl` command: hands over to one job. Nothing heavy is imported before it runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import partial

from jobs import command
from videorl import __version__

COMMANDS = {
    "plan": ("jobs.plan", "memory, time and split of GPUs of a run, before it starts"),
    "train": ("jobs.train", "align a policy: RECIPE [key=value ...]"),
    "sample": ("jobs.sample", "sample videos from a policy, aligned or not"),
    "serve": ("jobs.serve", "sample and score over HTTP, with Ray Serve: RUN|MODEL"),
    "evaluate": ("jobs.evaluate", "score a policy on fixed prompts and seeds, before and after"),
    "evaluate_reward": (
        "jobs.evaluate_reward",
        "compare reward models with people, or with clips spoiled on purpose",
    ),
    "export": ("jobs.export", "write an aligned LoRA for ComfyUI or kohya's trainers"),
    "scale": ("jobs.scale", "resize the worker pools of a run while it works"),
    "score": ("jobs.score", "score videos of a folder or a Parquet file with reward models"),
    "measure": (
        "jobs.measure",
        "VBench, FVD and win rates of policies or folders of videos",
    ),
    "audit": ("jobs.audit", "account for every prompt of a run, and look for contradictions"),
    "train_reward": (
        "jobs.train_reward",
        "train a reward model on labels: RECIPE [key=value ...]",
    ),
    "train_latent_reward": (
        "jobs.train_latent_reward",
        "train a reward on noisy latents: RECIPE [key=value ...]",
    ),
    "fetch": ("jobs.fetch", "download what a recipe needs of the hub: RECIPE [key=value ...]"),
    "runs": ("jobs.runs", "list the runs of a folder: state, step, reward, disk"),
    "top": ("jobs.top", "a run in the terminal while it works: reward, pace, workers, alerts"),
    "watch": ("jobs.watch", "the page of a run, or of all runs of a folder, in the browser"),
    "judge": ("jobs.judge", "compare videos by people, in the browser: RUN or FOLDERS"),
    "compare": ("jobs.compare", "compare runs: rewards with intervals, settings, cost, videos"),
    "recipes": ("jobs.recipes", "list the shipped recipes, or print a recipe with every setting"),
    "completion": (
        "jobs.completion",
        "print a script by which bash, zsh or fish completes",
    ),
    "doctor": ("jobs.doctor", "check this machine and say how to fix what is broken"),
}
"""Command -> the module whose `main(argv)` returns the exit code, and a summary for the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; 2 for an error that the user can fix."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = command.new_parser(
        "videorl", "Online preference alignment of text-to-video diffusion models."
    )
    listing = "\n".join(f"  {name:<21}{summary}" for name, (_, summary) in COMMANDS.items())
    parser.epilog = f"commands:\n{listing}\n\n`videorl COMMAND --help` tells more."
    parser.add_argument("--version", action="version", version=f"videorl {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    # Only the first word is ours: whatever follows it belongs to the command, `--help` included.
    name = parser.parse_args(given[:1]).command
    chosen = importlib.import_module(COMMANDS[name][0]).main
    if name == "completion":  # the one that must know all others
        chosen = partial(chosen, commands=COMMANDS)
    return command.run(chosen, given[1:])


if __name__ == "__main__":
    raise SystemExit(main())
