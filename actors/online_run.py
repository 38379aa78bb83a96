"""An online run on Ray: base evaluation, training, final evaluation, export."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from actors.assembly import Assembly, assemble
from actors.pool.control import controlled
from actors.pool.metrics import PoolSizesSink
from actors.rehearsal import rehearse
from actors.store.media import save_videos
from videorl.config import Recipe
from videorl.evaluation.held_out import sample_and_score
from videorl.loop import train
from videorl.report import write_report
from videorl.report.ending import finish, keep_evaluation, kept_groups, version_to_json
from videorl.run.folder import RunFolder
from videorl.run.sinks import open_sinks

logger = logging.getLogger(__name__)


def run_online(recipe: Recipe, folder: RunFolder, should_stop: Callable[[], bool]) -> bool:
    """Run the recipe on the Ray that is connected; return whether it reached its end."""
    started = time.perf_counter()
    with (
        open_sinks(recipe, folder) as sinks,
        assemble(recipe, folder, sinks) as assembly,
        controlled(folder, assembly.pools),
    ):
        sinks.truncate(assembly.progress.step)
        rehearse(recipe, folder, assembly)
        if not _evaluate(recipe, folder, assembly, "before", should_stop):
            return False
        parts = replace(assembly.parts, sink=PoolSizesSink(sinks, assembly.pools))
        progress = train(recipe, parts, assembly.progress, should_stop)
        write_report(folder.root)
        if progress.step < recipe.num_steps:
            return False
        assembly.learner.export(folder.export)
        if not _evaluate(recipe, folder, assembly, "after", should_stop):
            return False
        facts = _facts(assembly, progress.step, time.perf_counter() - started)
    finish(recipe, folder, facts)
    return True


def _evaluate(
    recipe: Recipe,
    folder: RunFolder,
    assembly: Assembly,
    name: str,
    should_stop: Callable[[], bool],
) -> bool:
    """Sample the held-out prompts with the newest weights, unless it is done; False = stopped."""
    path = folder.evaluation / f"{name}.json"
    if not recipe.evaluation.source or (name == "before" and path.exists()):
        return True
    version = assembly.learner.newest()
    if name == "before" and version.step > 0:
        logger.warning("the base was not evaluated before training began; it cannot be any more")
        return True
    samples = recipe.evaluation.best_of if name == "before" else recipe.evaluation.samples
    kept = kept_groups(recipe, folder, name, version, save_videos)
    groups = sample_and_score(
        recipe,
        version,
        assembly.generator,
        assembly.scorer,
        samples=samples,
        should_stop=should_stop,
        kept=kept,
    )
    if groups is None:
        return False
    keep_evaluation(folder, name, groups)
    return True


def _facts(assembly: Assembly, num_steps: int, seconds: float) -> dict[str, Any]:
    """Return what is worth knowing of this session beside the metrics."""
    generators = assembly.generator.pool.stats()
    return {
        "num_steps": num_steps,
        "seconds": seconds,
        "startup_seconds": assembly.started_in_s,
        "policy_version": version_to_json(assembly.learner.newest()),
        "reference": assembly.parts.reference.state(),
        "generators": {
            "requests": generators.completed,
            "retried": generators.retried,
            "workers_replaced": generators.replaced,
            "busy_share": generators.busy_s / generators.ready_s if generators.ready_s else 0.0,
        },
        "learner_starts": assembly.learner.starts(),
        "learner_ranks": assembly.learner.num_ranks(),
    }
