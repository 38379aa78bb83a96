"""Settings that were changed in the middle of a run, with the step from which each holds.

`videorl train … --change key=value` goes on with a run under another value; `changes.json` in the
run folder keeps what it was before, so that older steps are never read by the newer setting.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from videorl.errors import RunFolderError
from videorl.files import write_json
from videorl.recipes.fingerprint import MAY_CHANGE, may_change
from videorl.settings.evaluation import split_size

logger = logging.getLogger(__name__)

FILE = "changes.json"
_COMPARED = ("evaluation.source", "evaluation.column", "evaluation.seed")
"""What both evaluations must share."""


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that has another value from a step on."""

    step: int
    """The first that was done with the new value."""
    key: str
    before: Any
    """None = the setting was not there."""
    after: Any
    when: str
    """UTC, ISO 8601."""


def read_changes(root: Path) -> list[Change]:
    """Return the changes of a run, oldest first.

    Raises:
        RunFolderError: The file is damaged.
    """
    path = root / FILE
    if not path.exists():
        return []
    try:
        return [Change(**entry) for entry in json.loads(path.read_text())["changes"]]
    except (ValueError, TypeError, KeyError) as error:
        raise RunFolderError(f"{path} is damaged ({error}): restore it from a copy") from error


def check_changes(
    root: Path, differing: Mapping[str, tuple[Any, Any]], asked: Collection[str]
) -> None:
    """Refuse changes that nobody asked for, or that a run in progress cannot make.

    Args:
        root: The run folder.
        differing: Frozen setting -> its values in the run so far, and now.
        asked: Settings after `--change`; one covers those below it.

    Raises:
        RunFolderError: There are some.
    """
    if wrong := [key for key in asked if not _covers_only_changeable(key)]:
        raise RunFolderError(
            f"--change {wrong[0]}: a run in progress cannot change it; it may change {MAY_CHANGE}"
        )
    silent = {key: values for key, values in differing.items() if not is_asked(key, asked)}
    if silent:
        raise RunFolderError(_refusal(root, silent))
    sources = [str(value or "") for value in differing.get("evaluation.source", ())]
    if any(split_size(source) is not None for source in sources):
        raise RunFolderError(
            "--change evaluation.source: `split N` takes prompts away from training, and the run "
            "has trained on others already; give prompts of a source of their own, or set another "
            "run_dir"
        )
    fixed = [key for key in differing if key in _COMPARED]
    if fixed and (root / "evaluation/before.json").exists():
        raise RunFolderError(
            f"--change {fixed[0]}: the base was evaluated with the old value before training "
            "began, so that the aligned policy could not be compared with it"
        )


def note_changes(root: Path, differing: Mapping[str, tuple[Any, Any]], step: int) -> None:
    """Add to the history what holds from `step` on."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    if any(key.startswith("rewards.") for key in differing):
        _set_base_aside(root, step)
    if any(key.startswith("rewards.") or key in _COMPARED for key in differing):
        _set_readings_aside(root, step)
    new = [Change(step, key, before, after, when) for key, (before, after) in differing.items()]
    if new:
        _write(root, [*read_changes(root), *new])


def going_on_from(root: Path, step: int) -> None:
    """Note that a run goes on from the checkpoint of `step`: later steps are done anew."""
    changes = read_changes(root)
    moved = [replace(change, step=min(change.step, step)) for change in changes]
    if moved != changes:
        _write(root, moved)


def value_at(changes: Sequence[Change], key: str, step: int, now: Any) -> Any:
    """Return the value that a setting had at a step.

    Args:
        changes: Of the run, oldest first.
        key: The setting, dotted.
        step: Of the run, >= 0.
        now: Its value today.
    """
    for change in reversed(changes):
        if change.key == key and change.step > step:
            now = change.before
    return now


def _set_base_aside(root: Path, step: int) -> None:
    """Rename the base's evaluation: totals of other weights must not be compared with new ones."""
    before = root / "evaluation/before.json"
    if before.exists():
        aside = before.with_name(f"before-until-step-{step}.json")
        os.replace(before, aside)
        logger.warning(
            "the base was scored with other reward weights: %s is not compared with what follows. "
            "When the run is done, `videorl evaluate %s` samples and scores both anew",
            aside,
            root,
        )


def _set_readings_aside(root: Path, step: int) -> None:
    """Rename what evaluations during training found: what follows is not comparable with it."""
    during = root / "evaluation/during"
    aside, others = during.with_name(f"during-until-step-{step}"), count(2)
    while aside.exists():  # changed twice at one step
        aside = during.with_name(f"during-until-step-{step}-{next(others)}")
    if during.exists():
        os.replace(during, aside)


def _write(root: Path, changes: Sequence[Change]) -> None:
    write_json(root / FILE, {"changes": [asdict(change) for change in changes]})


def _covers_only_changeable(key: str) -> bool:
    return may_change(key) or may_change(f"{key}.any")


def is_asked(key: str, asked: Collection[str]) -> bool:
    """Tell whether settings after `--change` cover a setting: itself, or one above it."""
    return any(key == each or key.startswith(f"{each}.") for each in asked)


def _refusal(root: Path, silent: Mapping[str, tuple[Any, Any]]) -> str:
    said = "; ".join(
        f"{key}: {_shown(before)} -> {_shown(after)}" for key, (before, after) in silent.items()
    )
    way = "use the same settings to go on with it, or set another run_dir"
    if all(may_change(key) for key in silent):
        changes = " ".join(f"--change {key}={after}" for key, (_, after) in silent.items())
        way += f"; to change them from here on, which its report will show, add {changes}"
    return f"{root} holds a run with other settings ({said}); {way}"


def _shown(value: Any) -> Any:
    return "unset" if value is None else value
