"""Which reward model gave a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UNSEEN = "unseen metrics"


def model_of(kind: str, dimension: str, rewards: Sequence[str]) -> str:
    """Return the name of the reward model that scores a dimension, or `UNSEEN`.

    Args:
        kind: `reward` or `unseen`, as the scores table says.
        dimension: `model.dimension` where a recipe has several rewards.
        rewards: Their names, in the recipe's order.
    """
    if kind == "unseen":
        return UNSEEN
    if len(rewards) == 1:
        return rewards[0]
    # The longest first: a name may be the beginning of another.
    for name in sorted(rewards, key=len, reverse=True):
        if dimension.startswith(f"{name}."):
            return name
    return dimension.partition(".")[0]


def reward_names(settings: Mapping[str, Any]) -> list[str]:
    """Return what scores call the reward models of a written-out recipe, in its order.

    Other layouts, of other versions, have no names that are known here.
    """
    rewards = settings.get("rewards")
    rows = [row for row in rewards if isinstance(row, Mapping)] if isinstance(rewards, list) else []
    return [str(row.get("label") or row.get("name")) for row in rows]
