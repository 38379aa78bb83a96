"""How strong groups are against each other, by the model of Bradley and Terry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from videorl.judging.questions import SAME, A
from videorl.judging.study import Answer, Study, StudyPair
from videorl.settings.extras import needing

_RESAMPLES = 1000
_PRIOR = 0.5
"""Wins and losses that every two groups that met are given, so that a strength is finite even if
one of them won every time."""
_STEPS = 2000
"""At most, of a fit: circles of groups that each beat the next a hundred times need hundreds."""
_FEWEST = 2
"""Clusters; of fewer, a bootstrap always draws the same."""

Said: TypeAlias = Sequence[tuple[Answer, str]]
"""Answers, each with its outcome on a question: A, B or same."""
_Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Strength:
    """Of a group; strengths of a question add up to 0.

    exp(difference of two strengths) is the odds that people prefer the first.
    """

    group: str
    strength: float
    low: float | None
    """Of the 95 % interval of a bootstrap over prompts; None where there is none."""
    high: float | None


def strengths_of(study: Study, said: Said) -> tuple[tuple[Strength, ...], tuple[str, ...]]:
    """Return the strength of each group, the strongest first, and what could not be said.

    Raises:
        ConfigError: A package that this needs is not installed.
    """
    groups = sorted({side.group for pair in study.pairs for side in (pair.a, pair.b)})
    clusters = clusters_of(study.pairs)
    place = {group: number for number, group in enumerate(groups)}
    by_cluster: dict[int, _Array] = {}
    for answer, outcome in said:
        pair = study.by_id[answer.pair]
        a, b = place[pair.a.group], place[pair.b.group]
        if a == b:
            continue
        empty = np.zeros((len(groups), len(groups)))
        wins_GG = by_cluster.setdefault(clusters[pair.id], empty)
        share = 0.5 if outcome == SAME else float(outcome == A)
        wins_GG[a, b] += share
        wins_GG[b, a] += 1.0 - share
    if not by_cluster:
        return (), ()
    return strengths(groups, np.array(list(by_cluster.values())))


def clusters_of(pairs: Sequence[StudyPair]) -> Mapping[str, int]:
    """Return by pair which cluster it is in: pairs that share a prompt or a video share a cluster.

    Their outcomes are not independent: a video that is bad loses against all others.
    """
    with needing("videorl judge --report", "judge"):
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

    things: dict[tuple[str, str], int] = {}
    edges: list[tuple[int, int]] = []
    for number, pair in enumerate(pairs):
        named = [("video", pair.a.video), ("video", pair.b.video)]
        for thing in [*named, ("prompt", pair.prompt)] if pair.prompt else named:
            edges.append((number, len(pairs) + things.setdefault(thing, len(things))))
    rows, columns = np.array(edges, np.int64).reshape(-1, 2).T
    size = len(pairs) + len(things)
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    return {pair.id: int(label) for pair, label in zip(pairs, labels, strict=False)}


def strengths(
    groups: Sequence[str], wins_CGG: _Array, seed: int = 0
) -> tuple[tuple[Strength, ...], tuple[str, ...]]:
    """Return the strength of each group, the strongest first, and what could not be said.

    Args:
        groups: Their names.
        wins_CGG: Wins of the row's group over the column's by cluster, C > 0; a tie is half a win
            for each.
        seed: Of the bootstrap, which draws clusters, each with all of its answers.
    """
    total_GG = wins_CGG.sum(0)
    met_GG = (total_GG + total_GG.T) > 0
    kept = _connected(met_GG)
    missing = _apart(groups, met_GG, kept)
    if len(kept) < 2:
        return (), missing
    inside = np.ix_(kept, kept)
    prior_GG = _PRIOR * met_GG[inside]
    fit_G = _fit(total_GG[inside] + prior_GG)
    if fit_G is None:
        return (), (*missing, "No strengths: their fit does not converge; wins and ties stand.")
    ends = _ends(wins_CGG[:, *inside], prior_GG, seed)
    if isinstance(ends, str):
        missing = (*missing, ends)
        ends = [(None, None)] * len(kept)
    found = [
        Strength(groups[group], float(strength), low, high)
        for group, strength, (low, high) in zip(kept, fit_G, ends, strict=True)
    ]
    return tuple(sorted(found, key=lambda group: -group.strength)), missing


def _ends(wins_CGG: _Array, prior_GG: _Array, seed: int) -> list[tuple[float, float]] | str:
    """Return the ends of each group's interval, or why there are none."""
    if len(wins_CGG) < _FEWEST:
        return "No intervals: all answers are on videos of the same prompt."
    rng = np.random.default_rng(seed)
    count = len(wins_CGG)
    fits: list[_Array] = []
    for _ in range(_RESAMPLES):
        times_C = np.bincount(rng.integers(0, count, count), minlength=count)
        fit_G = _fit(np.tensordot(times_C, wins_CGG, 1) + prior_GG)
        if fit_G is None:  # to leave such samples out would move the ends
            return "No intervals: the fit does not converge on every sample of the bootstrap."
        fits.append(fit_G)
    low_G, high_G = np.quantile(np.array(fits), [0.025, 0.975], axis=0)
    return [(float(low), float(high)) for low, high in zip(low_G, high_G, strict=True)]


def _fit(wins_GG: _Array) -> _Array | None:
    """Return the most likely strengths [G]; None if the search for them does not end."""
    with needing("videorl judge --report", "judge"):
        from choix import ilsr_pairwise_dense

    try:
        return ilsr_pairwise_dense(wins_GG, max_iter=_STEPS)
    except (RuntimeError, ValueError):  # too many steps, or numbers too far apart
        return None


def _connected(met_GG: npt.NDArray[np.bool_]) -> list[int]:
    """Return the largest set of groups that can be compared, by others if not directly."""
    with needing("videorl judge --report", "judge"):
        from scipy.sparse.csgraph import connected_components

    _, labels_G = connected_components(met_GG, directed=False)
    return np.flatnonzero(labels_G == np.bincount(labels_G).argmax()).tolist()


def _apart(
    groups: Sequence[str], met_GG: npt.NDArray[np.bool_], kept: Sequence[int]
) -> tuple[str, ...]:
    """Say which groups have answers, but none that connect them with those that are kept."""
    others = [
        name for place, name in enumerate(groups) if place not in kept and met_GG[place].any()
    ]
    if not others:
        return ()
    kept_names = ", ".join(groups[place] for place in kept)
    return (
        f"No strengths of {', '.join(others)}: no answers connect them with {kept_names}, which "
        "are compared here.",
    )
