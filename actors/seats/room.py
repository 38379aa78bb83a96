"""How many more workers find a place on the nodes of a cluster: pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

_ROUNDING = 1e-4
"""Ray counts in ten-thousandths."""


def num_that_fit(bundle: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> float:
    """Return how many workers fit, each on one node; infinite if they take nothing.

    GPUs are counted per node: shares that are free on different GPUs count together.

    Args:
        bundle: What a worker takes, by Ray's names.
        nodes: What each node has free.
    """
    if not bundle:
        return math.inf
    return sum(
        min(int((free.get(name, 0.0) + _ROUNDING) // amount) for name, amount in bundle.items())
        for free in nodes
    )


def could_have(
    wanted: Iterable[Mapping[str, float]],
    kept: Iterable[Mapping[str, float]],
    total: Mapping[str, float],
) -> bool:
    """Return whether there would be enough of everything if nothing but what is kept were in use.

    Args:
        wanted: Bundles that somebody waits for.
        kept: Bundles that somebody has.
        total: What all nodes have together.
    """
    asked, left = Counter[str](), Counter(total)
    for bundle in wanted:
        asked.update(bundle)  # pyright: ignore[reportArgumentType, reportCallIssue] - floats do
    for bundle in kept:
        left.subtract(bundle)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return all(amount <= left[name] + _ROUNDING for name, amount in asked.items())
