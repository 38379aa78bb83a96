"""The `videorl` command: hands over to one job. Nothing heavy is imported before it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from videorl import __version__
from videorl.errors import VideorlError


def _train(argv: Sequence[str]) -> int:
    from jobs import train

    return train.main(argv)


def _sample(argv: Sequence[str]) -> int:
    from jobs import sample

    return sample.main(argv)


def _evaluate(argv: Sequence[str]) -> int:
    from jobs import evaluate

    return evaluate.main(argv)


def _evaluate_reward(argv: Sequence[str]) -> int:
    from jobs import evaluate_reward

    return evaluate_reward.main(argv)


def _scale(argv: Sequence[str]) -> int:
    from jobs import scale

    return scale.main(argv)


def _score(argv: Sequence[str]) -> int:
    from jobs import score

    return score.main(argv)


def _audit(argv: Sequence[str]) -> int:
    from jobs import audit

    return audit.main(argv)


def _train_reward(argv: Sequence[str]) -> int:
    from jobs import train_reward

    return train_reward.main(argv)


def _train_latent_reward(argv: Sequence[str]) -> int:
    from jobs import train_latent_reward

    return train_latent_reward.main(argv)


def _recipes(argv: Sequence[str]) -> int:
    from jobs import recipes

    return recipes.main(argv)


def _doctor(argv: Sequence[str]) -> int:
    from jobs import doctor

    return doctor.main(argv)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "train": (_train, "align a policy: RECIPE [key=value ...]"),
    "sample": (_sample, "sample videos from a policy, aligned or not"),
    "evaluate": (_evaluate, "score a policy on fixed prompts and seeds, before and after"),
    "evaluate_reward": (_evaluate_reward, "compare reward models with people, on a benchmark"),
    "scale": (_scale, "resize the worker pools of a run while it works"),
    "score": (_score, "score videos of a folder or a Parquet file with reward models"),
    "audit": (_audit, "account for every prompt of a run, and look for contradictions"),
    "train_reward": (_train_reward, "train a reward model on labels: RECIPE [key=value ...]"),
    "train_latent_reward": (
        _train_latent_reward,
        "train a reward on noisy latents: RECIPE [key=value ...]",
    ),
    "recipes": (_recipes, "list the shipped recipes, or print a recipe with every setting"),
    "doctor": (_doctor, "check this machine and say how to fix what is broken"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; 2 for an error that the user can mend."""
    given = list(sys.argv[1:] if argv is None else argv)
    listing = "\n".join(f"  {name:<21}{summary}" for name, (_, summary) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="videorl",
        description="Online preference alignment of text-to-video diffusion models.",
        epilog=f"commands:\n{listing}\n\n`videorl COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"videorl {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    # Only the first word is ours: whatever follows it belongs to the command, `--help` included.
    command = parser.parse_args(given[:1]).command
    try:
        return COMMANDS[command][0](given[1:])
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
