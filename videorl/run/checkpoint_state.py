"""What the loop's state in a checkpoint says of the checkpoint itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEPT = "kept_here"
"""Key: an object store must not get it yet."""
NOTE = "checkpoint.json"
"""In the run folder: what it knows of its checkpoints, see `videorl.run.checkpoint_note`."""
RUN = "run"
"""Key of the run's name, in that note too."""
WORTH_KEEPING = "worth_keeping"
"""Key: steps whose checkpoints stay, newer ones or not."""


def is_stored(state: Mapping[str, Any]) -> bool:
    """Tell whether an object store gets a checkpoint with this state; if not, it is kept here."""
    return not loop_state(state).get(KEPT)


def loop_state(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the loop's own state: ranks on a cluster keep it beside the command they did last."""
    while state.get("loop"):
        state = state["loop"]
    return state
