"""The end of a run: held-out scores and videos, the summary, and the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from videorl.config import Recipe
from videorl.evaluation.evaluate import format_summary, summarise
from videorl.evaluation.held_out import shared_prompts
from videorl.evaluation.record import read_groups, write_groups
from videorl.files import write_json, write_text
from videorl.report.page import write_report
from videorl.run.folder import RunFolder
from videorl.types import Media, Prompt, ScoredGroup, WeightVersion


def is_finished(folder: RunFolder, num_steps: int) -> bool:
    """Tell whether the run ended before; if so, write its report again and print where it is."""
    if not folder.summary.exists():
        return False
    if int(json.loads(folder.summary.read_text())["num_steps"]) < num_steps:
        return False
    print(f"{folder.root} is finished; its report: {write_report(folder.root)}")
    return True


def keep_evaluation(
    folder: RunFolder,
    name: str,
    groups: Sequence[ScoredGroup],
    num_videos: int,
    save: Callable[[Mapping[Path, Media]], None],
) -> None:
    """Write the scores of an evaluation, and the first video of each of the first prompts.

    Args:
        folder: The run folder; this writes into its `evaluation`.
        name: `before` or `after` training.
        groups: A group per held-out prompt, whose videos can still be fetched.
        num_videos: How many prompts have a video kept, >= 0.
        save: Writes videos, or what their handles stand for, as mp4 files by path.
    """
    # A group whose videos are all lost has nothing to show.
    shown = [group.candidates[0].candidate for group in groups[:num_videos] if group.candidates]
    videos = folder.evaluation / name
    save({videos / _video_name(candidate.prompt): candidate.video for candidate in shown})
    write_groups(folder.evaluation / f"{name}.json", groups)


def finish(recipe: Recipe, folder: RunFolder, facts: dict[str, Any]) -> None:
    """Write summary and report, and print the outcome; without both evaluations, `facts` alone."""
    before, after = folder.evaluation / "before.json", folder.evaluation / "after.json"
    summary: dict[str, Any] = {"recipe": recipe.name, "seed": recipe.seed, **facts}
    if before.exists() and after.exists():
        groups = shared_prompts(read_groups(before), read_groups(after))
        evaluation = summarise(*groups)
        summary["evaluation"] = evaluation.to_dict()
        videos = json.dumps(_video_rows(folder, *groups), indent=2)
        write_text(folder.evaluation / "videos.json", videos)
        print(format_summary(evaluation))
    write_json(folder.summary, summary)
    print(f"report: {write_report(folder.root)}")
    print(f"aligned weights: {folder.export}")


def version_to_json(version: WeightVersion) -> dict[str, Any]:
    """Return step and digest, as summaries hold them."""
    return {"step": version.step, "digest": version.digest}


def _video_name(prompt: Prompt) -> str:
    return f"{prompt.index:06d}.mp4"


def _video_rows(
    folder: RunFolder, before: Sequence[ScoredGroup], after: Sequence[ScoredGroup]
) -> list[dict[str, Any]]:
    """Pair the saved videos of both evaluations by prompt and seed."""
    rows = []
    for base, aligned in zip(before, after, strict=True):
        first, second = base.candidates[0], aligned.candidates[0]
        name = _video_name(base.prompt)
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
