"""Prompts that are taken away from training to evaluate with, chosen by a hash of their text.

The choice depends on nothing but the prompts: not on their order, the seed or the machine. Where
prompts are added to a file later, those chosen before stay unless an added one takes a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from videorl.data.prompt_rows import PromptRow
from videorl.errors import PromptError


def identity(row: PromptRow) -> tuple[str, str]:
    """Return what makes a prompt another one: its picture and words, not case or white space."""
    return " ".join(row.text.casefold().split()), row.image


def split(rows: Sequence[PromptRow], count: int) -> tuple[list[PromptRow], list[PromptRow]]:
    """Return the prompts that stay for training, and those that are held out.

    Held out are the `count` with the smallest SHA-256, with all rows that differ from them in case
    or white space only. What has a weight of 0 is neither; it stays, as it is never drawn.

    Args:
        rows: Of a source, in any order.
        count: Prompts to hold out, >= 1.

    Raises:
        PromptError: Nothing would be left to train on.
    """
    found = {identity(row) for row in rows if row.weight > 0}
    if len(found) <= count:
        raise PromptError(
            f"evaluation.source=split {count} would take all of the {len(found)} prompts of "
            "prompts.source away from training: take fewer, or give more prompts"
        )
    chosen = {*sorted(found, key=_hash)[:count]}
    kept: tuple[list[PromptRow], list[PromptRow]] = ([], [])
    for row in rows:
        kept[row.weight > 0 and identity(row) in chosen].append(row)
    return kept


def _hash(words_and_image: tuple[str, str]) -> tuple[bytes, str]:
    # A picture counts by its name: its folder is another one on another machine. The whole path
    # decides between two of the same name and words alone; else the order of a set would.
    words, image = words_and_image
    return sha256(f"{words}\n{image.rpartition('/')[2]}".encode()).digest(), image
