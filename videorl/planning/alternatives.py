"""What a step would take with changes whose gain follows from counted work or order alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from videorl.config import Recipe
from videorl.planning.roles import Needs
from videorl.planning.simulate import Pace, Stages, simulate
from videorl.planning.split import Split, stages_of


@dataclass(frozen=True, slots=True)
class Alternative:
    """A change, and the pace with it on the same workers."""

    name: str
    pace: Pace


def alternatives(recipe: Recipe, needs: Needs, split: Split) -> list[Alternative]:
    """Return each change of `videorl.planning.rates.ACCELERATORS` that can be planned, and all."""
    stages = stages_of(recipe, needs, split.workers)
    changes = dict(_changes(recipe, needs, stages))
    found = [Alternative(name, simulate(change(stages))) for name, change in changes.items()]
    if len(changes) > 1:
        for change in changes.values():
            stages = change(stages)
        found.append(Alternative("all of these", simulate(stages)))
    return found


def _changes(
    recipe: Recipe, needs: Needs, stages: Stages
) -> Iterator[tuple[str, Callable[[Stages], Stages]]]:
    if not recipe.learns_online:
        return
    if (merged_s := needs.merged_s) is not None:
        yield "adapters merged for sampling", lambda stages: replace(stages, generate_s=merged_s)
    ahead = stages.staleness + 1
    yield f"rollouts.max_staleness={ahead}", lambda stages: replace(stages, staleness=ahead)
