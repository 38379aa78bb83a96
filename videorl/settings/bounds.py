"""Checks of single settings: what is wrong with one, in words for the person who gave it."""

from __future__ import annotations

import math
from collections.abc import Collection

Problem = str | None
"""What is wrong with one setting, or None."""


# Written so that NaN, which compares false with everything, is a problem too.
def at_least(key: str, got: float, least: float) -> Problem:
    """Check a finite number with a smallest value."""
    return None if least <= got < math.inf else f"{key} must be >= {least}, got {got}"


def auto_or(key: str, got: int | str, least: int) -> Problem:
    """Check a whole number with a smallest value, or the word `auto`."""
    if isinstance(got, str):
        return None if got == "auto" else f"{key} must be auto or >= {least}, got {got!r}"
    return at_least(key, got, least)


def above(key: str, got: float, bound: float) -> Problem:
    """Check a finite number that must exceed a bound."""
    return None if bound < got < math.inf else f"{key} must be > {bound}, got {got}"


def finite(key: str, got: float) -> Problem:
    """Check a number that may be anything but infinite or NaN."""
    return None if math.isfinite(got) else f"{key} must be finite, got {got}"


def one_of(key: str, got: object, known: Collection[object]) -> Problem:
    """Check a value of which only some are known."""
    return None if got in known else f"{key} must be one of {', '.join(map(str, known))}, got {got}"
