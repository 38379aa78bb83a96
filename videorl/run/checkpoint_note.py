"""What a run folder knows of its checkpoints, so that a run never begins anew by mistake.

`checkpoint.json` has the newest step that was saved, where, and a name of the run that its
checkpoints have too. A changed `checkpoint.location`, a disk that is not mounted or a folder that
was cleaned up is then told apart from a run that was cut off before its first checkpoint.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from videorl.config import CheckpointConfig
from videorl.data.archive_layout import files_of
from videorl.errors import RunFolderError, VideorlError
from videorl.files import superseded, write_json
from videorl.run.changes import going_on_from
from videorl.run.checkpoint_state import KEPT, NOTE, RUN
from videorl.run.checkpoints import CheckpointFolder, open_checkpoints
from videorl.storage.mirror import flush
from videorl.storage.place import is_uri

logger = logging.getLogger(__name__)


class CheckpointNote:
    """The note of one run; there must be only one driver at a time.

    Args:
        root: The run folder, on this machine.
        config: Section of the recipe.
    """

    def __init__(self, root: Path, config: CheckpointConfig) -> None:
        self._root = root
        self._config, self._location = config, _location(config.location)
        self._noted = _read(root)
        self._run: str = self._noted.get(RUN) or uuid.uuid4().hex

    @property
    def step(self) -> int:
        """Of the newest checkpoint that was noted; 0 = there is none."""
        return self._noted.get("step") or 0

    def newest_step(self) -> int:
        """Return the step of the newest checkpoint: one is noted only as the next begins."""
        return max([self.step, *self._folder().steps()])

    def bring_kept(self) -> None:
        """Store the checkpoints that an object store did not take when they were written here.

        Raises:
            StoreLostError: It does not answer now either.
        """
        if is_uri(self._location):
            self.before_save()
            self._folder().bring_kept()

    def check_location(self) -> None:
        """Refuse a new location without checkpoints where the old one had some.

        Raises:
            RunFolderError: It is so; or `checkpoint.json` is damaged.
            CheckpointError: The new location cannot be reached.
        """
        if self._noted.get("location", "") == self._location:
            return
        had_some = self._noted.get("step") is not None or self._old_steps()
        if had_some and not self._folder().steps():
            raise self._lost()

    def check_writable(self) -> None:
        """Refuse a place of its own that checkpoints cannot be written to.

        Raises:
            CheckpointError: It is so.
        """
        if self._location:
            self._folder().check_writable()

    def restored(self, state: Mapping[str, Any] | None) -> None:
        """Take note of what the learner starts from.

        Args:
            state: The loop's state of the newest checkpoint; None = there is none.

        Raises:
            RunFolderError: The run has been further than that, or the checkpoint is another run's.
        """
        reached = _reached(self._root)
        if state is None:
            is_older = not (self._root / NOTE).exists()
            if self._noted.get("step") is not None or (is_older and reached):
                raise self._lost()
            if reached:
                logger.warning(
                    "%s was cut off after step %d, before its first checkpoint: it begins again",
                    self._root,
                    reached,
                )
            self._write(None)
            going_on_from(self._root, 0)
            return
        if state.get(RUN, self._run) != self._run:
            raise self._of_another_run(str(state[RUN]))
        step = int(state["step"])
        if step < (self._noted.get("step") or 0):
            logger.warning(
                "%s: the newest checkpoint is of step %d, though one of step %d was written: it "
                "goes on from there",
                self._root,
                step,
                self._noted["step"],
            )
        self._write(step)
        going_on_from(self._root, step)

    def state(self, *, stored: bool = True) -> dict[str, Any]:
        """Return what a checkpoint's loop state must hold of its run.

        Args:
            stored: Whether it may go to an object store; if not, it is kept on its machine.
        """
        return {RUN: self._run} if stored else {RUN: self._run, KEPT: True}

    def before_save(self) -> None:
        """Return when the store of the run has what it wrote: no checkpoint is ahead of that.

        Raises:
            StoreLostError: It does not answer.
            BusyError: Another driver took the run over.
        """
        flush(self._root)

    def saved(self, step: int) -> None:
        """Note that the checkpoint of `step` is on disk, and forget what it covers again."""
        self._write(step)
        superseded.drop(self._root, step)

    def _write(self, step: int | None) -> None:
        self._noted = {RUN: self._run, "step": step, "location": self._location}
        write_json(self._root / NOTE, self._noted)

    def _folder(self) -> CheckpointFolder:
        return open_checkpoints(replace(self._config, location=self._location), self._root)

    def _old_steps(self) -> list[int]:
        """Return the steps of checkpoints where the last ones were written, if one can look."""
        place = _place(self._root, self._noted.get("location", ""))
        with suppress(VideorlError, OSError):
            return CheckpointFolder(place, keep=1).steps()
        return []

    def _lost(self) -> RunFolderError:
        old, here = self._noted.get("location", ""), _place(self._root, self._location)
        there = _place(self._root, old)
        step = self._noted.get("step")
        facts = [f"it got to step {_reached(self._root)}"] if _reached(self._root) else []
        facts += [f"its checkpoint of step {step} was written to {there}"] if step else []
        if old != self._location and (found := self._old_steps()):
            facts.append(f"{there} still has that of step {found[-1]}")
        setting = old or '""'
        back = f"set checkpoint.location={setting} again, or " if old != self._location else ""
        return RunFolderError(
            f"{self._root} holds a run ({'; '.join(facts)}), but there is no checkpoint in {here}. "
            "Beginning anew would replace what it archived. To go on, "
            f"{back}put the checkpoints into {here}; to begin anew, set another run_dir, or add "
            "--from-scratch to the command, which moves what is there to a folder beside it"
        )

    def _of_another_run(self, name: str) -> RunFolderError:
        here = _place(self._root, self._location)
        return RunFolderError(
            f"the checkpoints in {here} are of another run than {self._root} (run {name}, not "
            f"{self._run}). Set run_dir to the folder of that run, or another checkpoint.location; "
            f'if that folder is lost, write {{"{RUN}": "{name}"}} into {self._root / NOTE} to '
            "go on without what it archived"
        )


def _location(location: str) -> str:
    """Return a location that means the same in any working directory; empty = the run folder."""
    return location if not location or is_uri(location) else str(Path(location).absolute())


def _place(root: Path, location: str) -> str:
    return location or str(root / "checkpoints")


def _read(root: Path) -> dict[str, Any]:
    """Return the note; of a run folder without it, the location that its recipe has."""
    path = root / NOTE
    try:
        if path.exists():
            return dict(json.loads(path.read_text()))
        config = root / "config.yaml"
        saved = yaml.safe_load(config.read_text()) if config.exists() else {}
        return {"location": _location((saved.get("checkpoint") or {}).get("location") or "")}
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise RunFolderError(f"{path} or the recipe beside it is damaged: {error}") from error


def _reached(root: Path) -> int:
    """Return the number of steps that the archive or the metrics of a run have."""
    found = [1 + span.last for span in files_of(root / "archive", "candidates")]
    metrics = root / "metrics.jsonl"
    for line in metrics.read_text().splitlines() if metrics.exists() else ():
        with suppress(ValueError, KeyError, TypeError):  # torn by a crash
            found.append(1 + int(json.loads(line)["step"]))
    return max(found, default=0)
