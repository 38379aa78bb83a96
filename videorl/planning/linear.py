"""What a whole transformer needs, from what a few of its blocks need."""

from __future__ import annotations

from collections.abc import Callable, Mapping

FEW = (2, 3)
"""Blocks of each kind that are counted; with one block alone the peak may lie elsewhere."""


def from_few(
    blocks: Mapping[str, int], measure: Callable[[Mapping[str, int]], tuple[float, ...]]
) -> Callable[[Mapping[str, int]], tuple[float, ...]]:
    """Return what some counts are for any number of blocks of each kind.

    Args:
        blocks: By kind, of the whole transformer; kinds of none stay so.
        measure: Counts a transformer of a few blocks. What it returns must be linear in each.
    """
    kinds = [kind for kind, number in blocks.items() if number]
    few = {**blocks, **dict.fromkeys(kinds, FEW[0])}
    first = measure(few)
    more = {kind: measure({**few, kind: FEW[1]}) for kind in kinds}

    def at(wanted: Mapping[str, int]) -> tuple[float, ...]:
        found = list(first)
        for kind in kinds:
            steps = wanted[kind] - FEW[0]
            for place, (a, b) in enumerate(zip(first, more[kind], strict=True)):
                found[place] += steps * (b - a)
        return tuple(found)

    return at
