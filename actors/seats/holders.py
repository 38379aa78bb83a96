"""Which runs keep places on a cluster, by the names of their placement groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

ALL = "videorl-all-places/"
"""Begins the name of the group that a run waits for."""


def group_name(text: str) -> str:
    """Return a name for a group, such as `RUN/ROLE`, of which a cluster has each only once."""
    return f"{text} {uuid4().hex[:8]}"


def kept_by(groups: Iterable[Mapping[str, Any]]) -> str:
    """Return e.g. `; kept for run moving_shapes: 2 CPU and 1 GPU`; empty if there is nobody.

    Args:
        groups: Placement groups, as Ray's table has them.
    """
    kept: dict[str, Counter[str]] = {}
    for group in groups:
        name: str = group["name"]
        run, slash, _ = name.partition("/")
        if slash and group["state"] == "CREATED" and not name.startswith(ALL):
            for bundle in group["bundles"].values():
                kept.setdefault(run, Counter()).update(bundle)
    said = [
        f"; kept for run {run}: {' and '.join(f'{n:g} {name}' for name, n in amounts.items())}"
        for run, amounts in sorted(kept.items())
    ]
    return "".join(said)
