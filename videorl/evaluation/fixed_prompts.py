"""The film strip: the same held-out prompts and seeds, sampled again and again while a run learns.

    fixed_prompts/prompts.json              prompt and seed of each, in order
    fixed_prompts/step-000050/000.mp4       the first prompt, with the weights of step 50
    fixed_prompts/step-000050/scores.json   scores of the run's rewards, in the order of the prompts

The requests go behind those that training waits for. A step's folder is written under another name
and renamed: one that is there is whole, and a run that goes on does not make it again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from videorl.config import Recipe
from videorl.data.prompts import fixed_prompt_rows
from videorl.errors import PromptError, WorkLostError
from videorl.evaluation.behind import Behind
from videorl.evaluation.strip_files import (
    FOLDER,
    FixedPrompt,
    keep_prompts,
    read_videos,
    scores_file,
    step_folder,
    truncate,
    values,
)
from videorl.files import write_json
from videorl.protocols import Generator, Scorer
from videorl.rollouts import chain
from videorl.seeds import derive_seed
from videorl.trackers.tracker import FixedVideo
from videorl.types import Media, SampleRequest, ScoredCandidate, ScoredGroup, WeightVersion

Save = Callable[[Mapping[Path, Media]], None]
"""Writes videos, or what their handles stand for, as mp4 files by path."""
Tell = Callable[[int, Sequence[FixedVideo]], None]
"""Is told of the videos of a step once they are written."""


def fixed_prompts(recipe: Recipe) -> list[FixedPrompt]:
    """Return the fixed prompts of a recipe, chosen by `fixed_prompts.seed` alone.

    Raises:
        PromptError, ConfigError: As `load_prompts`.
    """
    fixed = recipe.fixed_prompts
    rows = [row for row in fixed_prompt_rows(recipe) if row.weight > 0]
    order = np.random.default_rng(fixed.seed).permutation(len(rows))
    prompts = [rows[index].prompt(index) for index in sorted(order[: fixed.num_prompts].tolist())]
    return [FixedPrompt(prompt, derive_seed(fixed.seed, FOLDER, prompt.text)) for prompt in prompts]


class NoFixedPrompts:
    """What a run without fixed prompts has in the place of `FixedPrompts`."""

    def begin(self, version: WeightVersion) -> None:
        """Do nothing."""

    def settle(self, step: int, should_stop: Callable[[], bool]) -> bool:
        """Do nothing; return True."""
        return True

    def finish(self, version: WeightVersion, should_stop: Callable[[], bool]) -> None:
        """Do nothing."""

    def metrics(self) -> dict[str, float]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Do nothing."""


@dataclass
class FixedPrompts:
    """Samples, scores and writes the fixed prompts of a run; no error of it ends the run.

    Args:
        root: The run folder.
        prompts: What is sampled.
        interval: Steps (>= 1) from one time to the next.
        generator: Of the run: a local object, or its pool.
        scorer: Likewise.
        save: Writes videos.
        tell: Told of every step.
        resumed: Step that the run goes on from. Trackers that forget what it does again forget the
            videos of this step too, which it does not make again.
    """

    root: Path
    prompts: Sequence[FixedPrompt]
    interval: int
    generator: Generator
    scorer: Scorer
    save: Save
    tell: Tell = lambda step, videos: None
    resumed: int = -1
    behind: Behind = field(
        default_factory=lambda: Behind(
            "fixed prompts", "time/fixed_prompts_s", "fixed_prompts/lost"
        ),
        init=False,
    )

    def begin(self, version: WeightVersion) -> None:
        """Queue the prompts if a version is due and not there; returns at once on a pool."""
        if version.step == self.resumed:
            self._tell_again(version.step)
        if version.step % self.interval == 0:
            self._begin(version)

    def settle(self, step: int, should_stop: Callable[[], bool]) -> bool:
        """Return when all that was begun with weights before `step` is written; see `Behind`."""
        return self.behind.settle(step, should_stop)

    def finish(self, version: WeightVersion, should_stop: Callable[[], bool]) -> None:
        """Sample with the last version too, and return when all is written, or it is to stop."""
        self._begin(version)
        self.settle(version.step + 1, should_stop)

    def metrics(self) -> dict[str, float]:
        """Return what the loop spent on it since this was asked, and what was lost so far."""
        return self.behind.metrics()

    def close(self) -> None:
        """Give up what is not written."""
        self.behind.close()

    def _begin(self, version: WeightVersion) -> None:
        folder = step_folder(self.root, version.step)
        if version.step in self.behind.steps or folder.exists():
            return
        with self.behind.counted():
            scored = [
                chain(self._request(fixed, version), self.generator, self.scorer)
                for fixed in self.prompts
            ]
            self.behind.begin(version.step, partial(self._finish, version, folder, scored))

    def _tell_again(self, step: int) -> None:
        """Tell of the videos of a step that an earlier session wrote, if it did."""
        try:
            if videos := read_videos(self.root, step, self.prompts):
                self.tell(step, videos)
        except Exception as error:  # the run is worth more than its pictures
            self.behind.log(f"step {step} is not told again", error)

    def _request(self, fixed: FixedPrompt, version: WeightVersion) -> SampleRequest:
        seeds = (fixed.seed,)
        return SampleRequest(version.step, fixed.prompt, seeds, version, is_behind=True)

    def _finish(
        self, version: WeightVersion, folder: Path, scored: Sequence[Future[ScoredGroup]]
    ) -> None:
        """Wait for all prompts of a version and write them; on the thread of the writer."""
        half = folder.with_name(f".partial-{folder.name}")
        try:
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            found = [self._candidate(future) for future in scored]
            files = [self._saved(half, place, each) for place, each in enumerate(found)]
            if not any(files):
                raise WorkLostError("every video was lost")
            write_json(half / "scores.json", scores_file(version, found))
            if self.behind.is_closed and None in files:
                return  # lost with the pools, which end then: made again when the run goes on
            os.replace(half, folder)
            self.behind.lose(files.count(None))
            self.tell(version.step, self._told(folder, files, found))
        except Exception as error:  # the run is worth more than its pictures
            if not self.behind.is_closed:
                self.behind.lose(len(self.prompts))
                self.behind.log(f"step {version.step} is left out", error)
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def _candidate(self, scored: Future[ScoredGroup]) -> ScoredCandidate | None:
        try:
            group = scored.result()
            if not group.candidates:
                raise WorkLostError(f"its candidate was dropped ({', '.join(group.dropped)})")
        except (PromptError, WorkLostError) as error:
            self.behind.log("a video is left out", error)
            return None
        return group.candidates[0]

    def _saved(self, folder: Path, place: int, found: ScoredCandidate | None) -> str | None:
        """Write a video; return its name, or None if there is none."""
        if found is None:
            return None
        name = f"{place:03d}.mp4"
        try:
            self.save({folder / name: found.candidate.video})
        except WorkLostError as error:
            self.behind.log("a video is left out", error)
            return None
        return name

    def _told(
        self, folder: Path, files: Sequence[str | None], found: Sequence[ScoredCandidate | None]
    ) -> list[FixedVideo]:
        return [
            FixedVideo(
                fixed.prompt.text, fixed.seed, folder / name if name else None, values(candidate)
            )
            for fixed, name, candidate in zip(self.prompts, files, found, strict=True)
        ]


def open_fixed_prompts(
    recipe: Recipe,
    root: Path,
    step: int,
    workers: tuple[Generator, Scorer],
    save: Save,
    tell: Tell,
) -> FixedPrompts | NoFixedPrompts:
    """Return what samples the fixed prompts of a run, cut back to the step that it goes on from.

    Args:
        recipe: The run.
        root: Its folder.
        step: What the checkpoint says; later ones go to `superseded/`.
        workers: Generator and scorer of the run.
        save: Writes videos.
        tell: Told of every step.

    Raises:
        RunFolderError: The folder holds videos of other prompts.
        PromptError, ConfigError: As `load_prompts`.
    """
    truncate(root, step)
    if not recipe.fixed_prompts.interval:
        return NoFixedPrompts()
    prompts = fixed_prompts(recipe)
    keep_prompts(root, prompts)
    interval = recipe.fixed_prompts.interval
    return FixedPrompts(root, prompts, interval, *workers, save, tell, step)
