"""What a sweep found, as plain numbers: the JSON that the report is written from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from videorl.ablation.plan import arm_run, base_run, plan
from videorl.ablation.results import Result, Results
from videorl.ablation.statistics import gain
from videorl.ablation.studies import Arm, Study
from videorl.evaluation.corrections import t_interval
from videorl.evaluation.statistics import Interval

_SHOWN = ("prompts.per_round", "evaluation.num_prompts", "evaluation.samples")
"""Settings that all arms share and the report quotes."""

Summary = Mapping[str, Any]
Seeds = Sequence[Mapping[str, Any]]
"""The finished runs of an arm, a seed each."""


def summarise(
    studies: Mapping[str, Study],
    seeds: int,
    steps: int,
    changes: Sequence[str],
    results: Results,
) -> dict[str, Any]:
    """Return the numbers of every finished run as gains over its base, by study and arm.

    Args:
        studies: What to summarise, by name.
        seeds: Training seeds 0 to `seeds` - 1, as `videorl.ablation.plan.plan` has them.
        steps: Optimizer steps of an arm of length 1.
        changes: `key=value` for all arms.
        results: The output folder; runs without a result are left out, and listed as missing.
    """
    runs = plan(studies, seeds, steps, changes)
    finished = [result for run in runs if (result := results.read(run)) is not None]
    recipes = {arm.recipe: arm for study in studies.values() for arm in study.arms.values()}
    bases = {
        recipe: base
        for recipe, arm in recipes.items()
        if (base := results.read(base_run(arm, steps, changes))) is not None
    }

    def of_arm(arm: Arm) -> list[dict[str, Any]]:
        read = (results.read(arm_run("", arm, seed, steps, changes)) for seed in range(seeds))
        base = bases.get(arm.recipe)
        return [_run_to_json(run, base) for run in read if run is not None and base is not None]

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "steps": steps,
        "seeds": seeds,
        "settings": {key: runs[0].settings[key] for key in _SHOWN},
        "changes": list(changes),
        "runs": len(runs),
        "missing": [f"{run.label}, seed {run.recipe.seed}" for run in results.missing(runs)],
        "cpu_hours": round(sum(result["cpu_seconds"] for result in finished) / 3600, 2),
        "versions": _versions(finished),
        "bases": {recipe: _means(base) for recipe, base in bases.items()},
        "studies": {
            name: {label: of_arm(arm) for label, arm in study.arms.items()}
            for name, study in studies.items()
        },
    }


def _run_to_json(result: Result, base: Result) -> dict[str, Any]:
    measures = (*result["evaluations"][-1]["values"], "regressions")
    return {
        "seed": result["seed"],
        "examples": result["examples"],
        "curve": [
            {
                "step": evaluation["step"],
                **{name: round(gain(result, base, name, at), 5) for name in measures},
            }
            for at, evaluation in enumerate(result["evaluations"])
        ],
    }


def _means(base: Result) -> dict[str, float]:
    values = base["evaluations"][0]["values"]
    return {name: round(fmean(each), 5) for name, each in values.items()}


def _versions(results: Sequence[Result]) -> list[dict[str, str]]:
    """Return every set of versions that some result was made with, once."""
    different = {tuple(sorted(result["versions"].items())) for result in results}
    return [dict(versions) for versions in sorted(different)]


def gains(runs: Seeds, measure: str, at: int = -1) -> dict[int, float]:
    """Return seed -> gain of an arm in a measure; `at` is the index of the evaluation."""
    return {run["seed"]: run["curve"][at][measure] for run in runs}


def interval(runs: Seeds, measure: str, at: int = -1) -> Interval:
    """Return the mean of `gains` with its 95 % interval over seeds."""
    return t_interval(list(gains(runs, measure, at).values()))
