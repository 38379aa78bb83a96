"""The folder of one run: who may write into it, and where everything lies."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Any

from videorl.config import CheckpointConfig, Recipe
from videorl.errors import RunFolderError, VideorlError
from videorl.files import write_text
from videorl.files.inputs import Input, moved
from videorl.files.superseded import set_aside
from videorl.recipes.fingerprint import RunRecipe, differing, recipe_fingerprint
from videorl.recipes.reading import to_yaml
from videorl.run import lock
from videorl.run.changes import check_changes, is_asked, note_changes
from videorl.run.lock import hold
from videorl.run.run_id import keep_run_id
from videorl.run.stored import working_copy
from videorl.storage.copies import NOTE, copy_of
from videorl.storage.place import below, is_uri

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """Paths below `root`."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.root / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per step."""
        return self.root / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files."""
        return self.root / "tensorboard"

    @property
    def archive(self) -> Path:
        """Parquet tables and mp4 files, see `videorl.data.archive`."""
        return self.root / "archive"

    @property
    def fixed_prompts(self) -> Path:
        """Videos and scores of the fixed prompts during training."""
        return self.root / "fixed_prompts"

    @property
    def latents(self) -> Path:
        """What the videos of an offline archive were encoded to."""
        return self.root / "latents"

    @property
    def evaluation(self) -> Path:
        """Scores and videos of the held-out prompts, before and after."""
        return self.root / "evaluation"

    @property
    def export(self) -> Path:
        """The aligned weights in the format that diffusers pipelines load."""
        return self.root / "aligned"

    @property
    def reward(self) -> Path:
        """The trained reward model in its published layout."""
        return self.root / "reward"

    @property
    def summary(self) -> Path:
        """The run's results as JSON."""
        return self.root / "summary.json"

    @property
    def rehearsal(self) -> Path:
        """What was rehearsed, see `videorl.rehearsal`."""
        return self.root / "rehearsal.json"

    @property
    def pools(self) -> Path:
        """How the worker pools are, see `videorl.run.pool_sizes`."""
        return self.root / "pools.json"

    @property
    def scale(self) -> Path:
        """The sizes that `videorl scale` asked for."""
        return self.root / "scale.json"


@contextmanager
def open_run(
    recipe: RunRecipe,
    *,
    from_scratch: bool = False,
    change: Collection[str] = (),
    take_over: bool = False,
) -> Iterator[RunFolder]:
    """Create or reopen the recipe's run folder and hold its lock; the system frees it at any end.

    Hub ids in the recipe get their commit, see `videorl.run.pins`. With `from_scratch`, what the
    folder holds is first moved to a new folder beside it. `change` names settings that a run in
    progress may have changed, see `videorl.run.changes`. Of a URI the folder is a working copy on
    this machine, see `videorl.run.stored`; `take_over` does not wait for a silent driver there.

    Raises:
        RunFolderError: It cannot be written to, another driver works in it, it was made by a
            recipe that differs in what a resumed run must share or from other inputs, its
            checkpoints are not where the recipe says, or its disk became full.
        PromptError: Prompts that the recipe names cannot be read.
        StoreLostError: The store of a URI does not answer.
    """
    if not is_uri(recipe.run_dir):
        root = Path(recipe.run_dir).absolute()
        with full_disk_explained(root), hold(root):
            yield _opened(recipe, RunFolder(root), from_scratch, change)
        return
    uri, location = recipe.run_dir, recipe.checkpoint.location
    # Learner ranks on other nodes reach the store, but not the working copy.
    recipe.checkpoint.location = location or below(uri, "checkpoints")
    patience_s = recipe.checkpoint.patience_s
    stored = working_copy(uri, patience_s, from_scratch=from_scratch, take_over=take_over)
    try:
        with full_disk_explained(copy_of(uri, "working")), stored as root:
            folder = _opened(recipe, RunFolder(root), from_scratch, change)
            recipe.run_dir = str(root)
            yield folder
    finally:
        recipe.run_dir, recipe.checkpoint.location = uri, location


def _opened(
    recipe: RunRecipe, folder: RunFolder, from_scratch: bool, change: Collection[str]
) -> RunFolder:
    """Check the recipe against what the folder holds, and note what the run begins with."""
    # Here, as they import torch, which those who only look for files can spare.
    from videorl.run.checkpoint_note import CheckpointNote
    from videorl.run.inputs import inputs_of, keep_inputs, read_inputs
    from videorl.run.pins import pin
    from videorl.run.rollback import set_rate

    is_new = from_scratch or not folder.config.exists()
    if is_new and change:
        raise RunFolderError(
            f"--change: there is no run in {folder.root} to go on with; give "
            f"{', '.join(change)} as ordinary settings"
        )
    if from_scratch:
        _begin_anew(folder, recipe.checkpoint)
    then, inputs, asked = read_inputs(folder.root), dict[str, Input](), dict[str, str]()
    # Of the ids as they are asked for, which say no commit.
    as_asked = recipe_fingerprint(recipe), to_yaml(recipe)
    if is_going_on := not is_finished(folder, recipe.num_steps):
        asked = pin(recipe, then)
        inputs = inputs_of(recipe)
    changed = _check_recipe(recipe, folder, as_asked, moved(then, inputs), change)
    # By the ids that were asked for: the same ones mean the same commits when the run goes on.
    inputs = {
        key: replace(found, place=asked.get(key, found.place)) for key, found in inputs.items()
    }
    keep_inputs(folder.root, inputs, is_new=is_new)
    note = CheckpointNote(folder.root, recipe.checkpoint)
    note.bring_kept()
    note.check_location()
    if is_going_on:
        note.check_writable()
    if isinstance(recipe, Recipe) and is_asked("optimizer.learning_rate", change):
        changed = set_rate(recipe, folder.root, changed)
    if changed:
        note_changes(folder.root, changed, note.newest_step())
    keep_run_id(folder.root, recipe.name, is_new=is_new)
    write_text(folder.root / "fingerprint", as_asked[0])
    write_text(folder.config, to_yaml(recipe))
    return folder


def _begin_anew(folder: RunFolder, config: CheckpointConfig) -> None:
    """Move aside what the folder holds.

    Raises:
        RunFolderError: Checkpoints lie elsewhere, where the new run would find them.
    """
    from videorl.run.checkpoints import open_checkpoints

    if config.location and (steps := open_checkpoints(config, folder.root).steps()):
        raise RunFolderError(
            f"--from-scratch: checkpoint.location={config.location} holds checkpoints, the newest "
            f"of step {steps[-1]}, from which the run would go on: set another location"
        )
    if aside := set_aside(folder.root, lock.FILES | {NOTE}):
        logger.warning("what %s held is now in %s", folder.root, aside)


def is_finished(folder: RunFolder, num_steps: int) -> bool:
    """Tell whether the run ended before, after at least `num_steps` steps."""
    if not folder.summary.exists():
        return False
    return int(json.loads(folder.summary.read_text())["num_steps"]) >= num_steps


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Say what to do about a disk that became full inside the block.

    Raises:
        RunFolderError: Instead of the system's error.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, VideorlError) or error.errno not in (ENOSPC, EDQUOT):
            raise
        raise RunFolderError(
            f"a disk is full ({error}); what the last checkpoint in {folder} covers is safe: make "
            "room and start the same command again"
        ) from error


def _check_recipe(
    recipe: RunRecipe,
    folder: RunFolder,
    as_asked: tuple[str, str],
    moved: Collection[str],
    asked: Collection[str],
) -> dict[str, tuple[Any, Any]]:
    """Refuse other settings but those `asked` for, which are returned with both values.

    `as_asked` are fingerprint and text before hub ids had commits.
    """
    (fingerprint, text), path = as_asked, folder.root / "fingerprint"
    if path.exists() and path.read_text() != fingerprint:
        then = folder.config.read_text()
        # A run from before commits were noted has the ids as they are asked for.
        changed, changed_in_ids = (
            differing(then, now, type(recipe), moved) for now in (to_yaml(recipe), text)
        )
        if changed and changed_in_ids:
            check_changes(folder.root, changed, asked)
            return changed
    check_changes(folder.root, {}, asked)
    return {}
