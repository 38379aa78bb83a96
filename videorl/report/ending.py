"""The end of a run: held-out scores and videos, the summary, and the report."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from videorl.config import Recipe
from videorl.evaluation.evaluate import format_summary, summarise
from videorl.evaluation.held_out import NOTHING_SHARED, held_out_prompts, shared_prompts
from videorl.evaluation.kept_groups import (
    KeptGroups,
    Save,
    Shown,
    path_of,
    path_of_base,
    video_name,
)
from videorl.evaluation.record import read_groups, write_groups
from videorl.files import write_json, write_text
from videorl.report.page import write_report
from videorl.run.empty_rounds import nothing_learned, steps_learned
from videorl.run.folder import RunFolder, is_finished
from videorl.run.sinks import read_metrics
from videorl.run.stages import stage_table
from videorl.types import ScoredGroup, WeightVersion

_logger = logging.getLogger(__name__)


def show_finished(folder: RunFolder, num_steps: int) -> bool:
    """Tell whether the run ended before; if so, write its report again and print where it is."""
    if not is_finished(folder, num_steps):
        return False
    print(f"{folder.root} is finished; its report: {write_report(folder.root)}")
    return True


def kept_groups(
    recipe: Recipe, folder: RunFolder, name: str, version: WeightVersion, save: Save
) -> KeptGroups:
    """Return the groups of an evaluation so far, and where the others go with their videos.

    Args:
        recipe: The run.
        folder: Its folder.
        name: `before` or `after` training.
        version: The weights that are evaluated.
        save: Writes the first video of each of the first `evaluation.num_videos` prompts.
    """
    prompts = held_out_prompts(recipe)[: recipe.evaluation.num_videos]
    shown = Shown(folder.evaluation / name, {prompt.index for prompt in prompts}, save)
    path, shared = path_of(folder.evaluation, recipe, version), path_of_base(recipe, version)
    return KeptGroups(path, shown, shared)


def keep_evaluation(folder: RunFolder, name: str, groups: Sequence[ScoredGroup]) -> None:
    """Write the scores of an evaluation `before` or `after` training, a group per prompt."""
    write_groups(folder.evaluation / f"{name}.json", groups)


def finish(
    recipe: Recipe,
    folder: RunFolder,
    facts: dict[str, Any],
    tell: Callable[[Mapping[str, Any]], object] = lambda summary: None,
) -> None:
    """Write summary and report, and print the outcome; without both evaluations, `facts` alone.

    Args:
        recipe: The run.
        folder: Its folder.
        facts: What to say of it beside its metrics and evaluations.
        tell: Is told the summary.
    """
    before, after = folder.evaluation / "before.json", folder.evaluation / "after.json"
    metrics = read_metrics(folder.metrics)
    learned = steps_learned(metrics)
    summary = {"recipe": recipe.name, "seed": recipe.seed, "steps_learned": learned, **facts}
    if before.exists() and after.exists():
        groups = shared_prompts(read_groups(before), read_groups(after))
        if groups[0]:
            evaluation = summarise(*groups)
            summary["evaluation"] = evaluation.to_dict()
            videos = json.dumps(_video_rows(folder, *groups), indent=2)
            write_text(folder.evaluation / "videos.json", videos)
            print(format_summary(evaluation))
        else:
            _logger.warning(NOTHING_SHARED)
    write_json(folder.summary, summary)
    tell(summary)
    print(f"report: {write_report(folder.root)}")
    if stages := facts.get("stages"):
        print(stage_table(stages))
    if learned == 0:
        _logger.warning(nothing_learned(metrics))
    print(f"aligned weights: {folder.export}")


def version_to_json(version: WeightVersion) -> dict[str, Any]:
    """Return step and digest, as summaries hold them."""
    return {"step": version.step, "digest": version.digest}


def _video_rows(
    folder: RunFolder, before: Sequence[ScoredGroup], after: Sequence[ScoredGroup]
) -> list[dict[str, Any]]:
    """Pair the saved videos of both evaluations by prompt and seed."""
    rows = []
    for base, aligned in zip(before, after, strict=True):
        first, second = base.candidates[0], aligned.candidates[0]
        name = video_name(base.prompt)
        if all((folder.evaluation / when / name).exists() for when in ("before", "after")):
            rows.append(
                {
                    "prompt": base.prompt.text,
                    "seed": first.candidate.seed,
                    "before": f"before/{name}",
                    "after": f"after/{name}",
                    "before_score": first.score.total,
                    "after_score": second.score.total,
                }
            )
    return rows
