"""`guard.json` of a run folder: alarms, rollbacks, and learning rates that a person has set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videorl.errors import RunFolderError
from videorl.files import write_json

FILE = "guard.json"


def read_notes(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the `alarms`, `rollbacks` and `rates` of the run folder `root`, oldest first.

    Raises:
        RunFolderError: The file is damaged.
    """
    path = root / FILE
    if not path.exists():
        return {"alarms": [], "rollbacks": [], "rates": []}
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        notes = {"alarms": [*saved["alarms"]], "rollbacks": [*saved["rollbacks"]]}
        return {**notes, "rates": [*saved.get("rates", ())]}  # older runs have none
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error!r}): restore it from a copy; without its rollbacks the run "
            "would go on with its first learning rate"
        ) from error


def write_notes(root: Path, notes: Mapping[str, list[dict[str, Any]]]) -> None:
    """Replace the notes of the run folder `root`."""
    write_json(root / FILE, notes)
