"""A month in small: a long run on stand-ins, with faults, and restarts that go back some steps."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ray.experimental.internal_kv import (
    _internal_kv_list,  # pyright: ignore[reportPrivateUsage]
)

from jobs.bench.driver_probe import probe
from jobs.bench.soak_run import Faults, Watch
from jobs.bench.stand_in_run import stand_in_recipe, stand_in_run
from jobs.bench.stand_ins import Pace, version_of
from videorl.config import Recipe
from videorl.data.archive import Archive, check
from videorl.data.archive_retention import removed
from videorl.files import superseded
from videorl.loop import train
from videorl.run.background import repeating
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.folder import RunFolder, open_run
from videorl.selection import best_vs_worst
from videorl.types import (
    Candidate,
    Prompt,
    PromptOutcome,
    Score,
    ScoredCandidate,
    ScoredGroup,
    StepRecord,
    Video,
)

logger = logging.getLogger(__name__)

BACK = 3
"""So many steps after a checkpoint each life of the driver ends; the next does them again."""
AS_IT_SHOULD_BE = "as it should be"
_EVERY = 10
"""Steps between two checkpoints."""


@dataclass(frozen=True)
class Moment:
    """The run after a step."""

    step: int
    driver_bytes: int
    """Memory of the driver, without pages that it shares."""
    driver_files: int
    """Open files of the driver."""
    gcs_bytes: int
    """Memory of Ray's head process."""
    gcs_files: int
    classes: int
    """Actor classes that Ray's head keeps the code of."""
    store_bytes: int
    """Of all object stores."""
    references: int
    """Objects that the driver knows."""
    files: int
    """In the run folder."""
    tables: int
    """Of these, Parquet files of the archive."""
    table_bytes: int
    media_bytes: int
    """Of the archive's videos."""


class _DiedError(BaseException):
    """The driver is gone, without another checkpoint."""


@dataclass
class _Steps:
    """A metric sink that looks at the run now and then."""

    folder: RunFolder
    every: int
    watch: Watch
    dies_at: int
    """Number of steps after which the driver ends, as if it were killed."""
    moments: list[Moment] = field(default_factory=list[Moment])

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note a step; look at everything after some."""
        self.watch.write(step, metrics)
        if (step + 1) % self.every == 0:
            self.moments.append(look(step + 1, self.folder.root))
            logger.warning("%s", self.moments[-1])
        if step + 1 == self.dies_at:
            raise _DiedError


def month(
    root: Path,
    num_steps: int,
    lives: int,
    fault_every_s: float,
    look_every: int,
    seed: int = 0,
    keep_gb: float = 0.02,
) -> dict[str, Any]:
    """Run on the connected cluster; return what happened, and how things grew.

    Args:
        root: The run folder.
        num_steps: Of the whole run.
        lives: How often it is started.
        fault_every_s: Seconds between two faults.
        look_every: Steps between two looks at what may grow.
        seed: Of the recipe and the faults.
        keep_gb: As `archive.keep_gb`.
    """
    recipe = stand_in_recipe(
        str(root),
        num_steps=num_steps,
        seed=seed,
        prompts__per_round=1,
        rollouts__max_staleness=0,
        archive__videos="pairs",
        archive__keep_gb=keep_gb,
        checkpoint__interval=_EVERY,
        generators__worker_timeout_s=15.0,
        generators__max_retries=9,
        rewards__0__worker_timeout_s=15.0,
        rewards__0__max_retries=9,
    )
    watch, faults, moments = Watch(), dict[str, int](), list[Moment]()
    step = 0
    for life in range(lives):
        goal = (
            num_steps if life == lives - 1 else num_steps * (life + 1) // lives // _EVERY * _EVERY
        )
        with open_run(recipe) as folder:
            sink = _Steps(folder, look_every, watch, dies_at=goal + BACK)
            for name, count in _live(recipe, folder, sink, step, fault_every_s).items():
                faults[name] = faults.get(name, 0) + count
            moments += sink.moments
        step = goal
    return {
        "steps": num_steps,
        "steps made": watch.steps,
        "starts": lives,
        "faults": faults,
        "groups lost": watch.lost,
        "archive": check(root / "archive", num_steps)[:5] or AS_IT_SHOULD_BE,
        "removed": removed(root / "archive"),
        "moments": [asdict(moment) for moment in moments],
    }


def _live(
    recipe: Recipe, folder: RunFolder, sink: _Steps, step: int, fault_every_s: float
) -> dict[str, int]:
    """Run from a step until the driver ends; return the faults that were made."""
    with ExitStack() as stack:
        pace = Pace(generate_s=0.0)
        run = stack.enter_context(stand_in_run(recipe, folder, sink, pace, step=step))
        note = CheckpointNote(folder.root, recipe.checkpoint)
        note.restored({**note.state(), "step": step} if step else None)
        faults = Faults(run, sink.watch, recipe.seed + step)
        stack.enter_context(repeating(faults.next, fault_every_s, "fault"))
        parts = replace(run.parts, note=note)
        with suppress(_DiedError):
            train(recipe, parts, run.progress, lambda: False)
    return dict(faults.done)


def archive_month(
    root: Path, num_steps: int, lives: int, look_every: int, keep_gb: float = 0.02
) -> dict[str, Any]:
    """Write the archive of a month alone, without Ray; return how it grew, as `month` does."""
    place, moments, made = root / "archive", list[dict[str, int]](), 0
    for life in range(lives):
        # Each life but the last ends some steps after the checkpoint that the next goes on from.
        first, goal = (num_steps * number // lives for number in (life, life + 1))
        archive = Archive(place, "pairs", keep_latents=False, encode=_encoded, keep_gb=keep_gb)
        archive.truncate(first)
        for step in range(first, min(goal + BACK, num_steps)):
            archive.write(_record(step))
            made += 1
            if (step + 1) % look_every == 0:
                memory = psutil.Process().memory_info()
                size = {"step": step + 1, "driver_bytes": memory.rss - memory.shared}
                files = {"driver_files": psutil.Process().num_fds(), **files_of(root)}
                moments.append(size | files)
                logger.warning("%s", moments[-1])
        superseded.drop(root, min(goal + BACK, num_steps))
    return {
        "steps": num_steps,
        "steps made": made,
        "starts": lives,
        "groups lost": 0,
        "archive": check(place, num_steps)[:5] or AS_IT_SHOULD_BE,
        "removed": removed(place),
        "moments": moments,
    }


def _encoded(video: Video) -> bytes:
    return video.frames.tobytes()[:20_000]


def _record(step: int) -> StepRecord:
    """Return a step of 8 prompts with 4 candidates each, and their pairs."""
    version, groups = version_of(step), list[ScoredGroup]()
    for place in range(8):
        prompt = Prompt(8 * step + place, f"a prompt of some length, number {8 * step + place}")
        frames = np.random.default_rng(8 * step + place).bytes(9 * 32 * 32 * 3)
        video = Video(np.frombuffer(frames, np.uint8).reshape(9, 32, 32, 3), 8.0)
        scored = tuple(
            ScoredCandidate(
                Candidate(step, prompt, number, number, version, None, video),
                Score({"motion": float(number), "quality": number / 3}, 4 * number / 3),
                {"sharpness": 0.5},
            )
            for number in range(4)
        )
        groups.append(ScoredGroup(prompt, None, scored, {}))
    pairs = tuple(pair for group in groups for pair in best_vs_worst(group))
    outcomes = tuple(PromptOutcome(group.prompt, "trained") for group in groups)
    after = version_of(step + 1)
    return StepRecord(step, outcomes, tuple(groups), pairs, version, after, version_of(0))


def files_of(root: Path) -> dict[str, int]:
    """Return how many files a run folder has, and their bytes."""
    # Unlike rglob, it goes on where a folder of a step vanishes, as that is written meanwhile.
    files = [Path(folder) / name for folder, _, names in os.walk(root) for name in names]
    tables = [path for path in files if path.suffix == ".parquet"]
    videos = [path for path in files if path.suffix == ".mp4"]
    return {
        "files": len(files),
        "tables": len(tables),
        "table_bytes": _size(tables),
        "media_bytes": _size(videos),
    }


def look(step: int, root: Path) -> Moment:
    """Measure everything that may grow."""
    found, gcs = probe(), _gcs()
    return Moment(
        step=step,
        driver_bytes=found.memory_bytes,
        driver_files=found.num_fds,
        gcs_bytes=gcs.memory_info().rss,
        gcs_files=gcs.num_fds(),
        classes=num_classes(),
        store_bytes=found.store_bytes,
        references=found.num_references,
        **files_of(root),
    )


def num_classes() -> int:
    """Return the number of actor classes that Ray's head keeps."""
    return len(_internal_kv_list("ActorClass", namespace=b"fun"))


def _gcs() -> psutil.Process:
    """Return Ray's head process, a child of this one."""
    return next(
        child for child in psutil.Process().children(recursive=True) if child.name() == "gcs_server"
    )


def _size(files: list[Path]) -> int:
    total = 0
    for path in files:
        with suppress(FileNotFoundError):  # merged meanwhile
            total += path.stat().st_size
    return total
