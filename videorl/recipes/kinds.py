"""Where the shipped recipes are: one folder per command that reads recipes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

RECIPES = Path(__file__).resolve().parent / "shipped"

FOLDERS = {
    "train": RECIPES,
    "train_reward": RECIPES / "rewards",
    "train_latent_reward": RECIPES / "latent_rewards",
}
"""Command -> folder. A schema says in `command` which of them reads its recipes."""


def shipped(command: str) -> list[Path]:
    """Return the files of a command's shipped recipes, by name."""
    return sorted(FOLDERS[command].glob("*.yaml"))


def headline(path: Path) -> tuple[str, str]:
    """Return what a shipped recipe says of itself in the comments above its settings.

    Returns:
        Its description, which is the first line, and how far it was verified (`# verified: …`).
    """
    comments = list(_comments(path))
    verified = (line.removeprefix("verified: ") for line in comments if line[:10] == "verified: ")
    return next(iter(comments), "no description"), next(verified, "not said")


def _comments(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return
        yield line.removeprefix("#").strip()
