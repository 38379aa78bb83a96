"""Scores of the folders of a comparison by reward models, a file per folder and model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from videorl.config import RewardConfig
from videorl.data.clips import Clip, ClipSource
from videorl.data.score_table import ScoreTable, open_scores
from videorl.errors import WorkLostError
from videorl.measures.folders import Folder
from videorl.protocols import RewardModel
from videorl.rewards.scoring import Result, explained_scores
from videorl.run.progress import progress

BATCH = 8
"""Clips that a reward model gets at once."""
Score = Callable[[ClipSource, RewardConfig, ScoreTable], None]
"""Adds the scores that a table lacks."""


def score_folders(
    folders: Sequence[Folder],
    rewards: Sequence[RewardConfig],
    out: Path,
    score: Score,
    should_stop: Callable[[], bool],
) -> dict[tuple[str, str], Path] | None:
    """Score every folder with every model, those alone that have no score yet.

    Args:
        folders: What is compared.
        rewards: The models, with labels of their own.
        out: Gets `scores/FOLDER.MODEL.parquet`.
        score: Does the work.
        should_stop: Asked between clips.

    Returns:
        (label of the folder, key of the model) -> file; None if stopped.

    Raises:
        WorkLostError: A model scored no clip of a folder.
    """
    found: dict[tuple[str, str], Path] = {}
    for reward in rewards:
        for folder in folders:
            name = f"{folder.label}.{reward.key}.parquet".replace("/", "_")
            path = out / "scores" / name
            with open_scores(path, [reward]) as table:
                table.forget_changed(folder.source)
                table.refuse(folder.source.refused)
                if not table.scored.issuperset(folder.source.keys) and not should_stop():
                    score(folder.source, reward, table)
                merged = table.merge([*folder.source.keys, *folder.source.refused])
            if should_stop():
                return None
            if merged["error"].null_count == 0:
                raise WorkLostError(
                    f"{reward.key} scored no clip of {folder.label}: {merged['error'][0].as_py()}"
                )
            found[folder.label, reward.key] = path
    return found


def score_here(should_stop: Callable[[], bool]) -> Score:
    """Return what scores in this process; each model is loaded when it is first needed."""
    models: dict[str, RewardModel] = {}

    def score(source: ClipSource, reward: RewardConfig, table: ScoreTable) -> None:
        from videorl.rewards.feed import load_configured

        if reward.key not in models:
            models.clear()  # one at a time: they are large
            models[reward.key] = load_configured(reward)
        missing = set(source.keys) - table.scored
        clips, count = source.read(missing), 0
        with progress(f"clips scored by {reward.key}", len(missing)) as reach:
            while not should_stop() and (batch := list(islice(clips, BATCH))):
                table.add(batch, {reward.key: _scores(models[reward.key], batch)})
                count += len(batch)
                reach(count)

    return score


def _scores(model: RewardModel, clips: Sequence[Clip]) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        files = [_file(clip, Path(folder, str(number))) for number, clip in enumerate(clips)]
        return explained_scores(model, files, [clip.prompt for clip in clips])


def _file(clip: Clip, path: Path) -> Path:
    if isinstance(clip.content, str):
        return Path(clip.content)
    path.write_bytes(clip.content)
    return path
