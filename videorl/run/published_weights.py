"""The published weights in a checkpoint that a run has kept."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from videorl.config import CheckpointConfig
from videorl.errors import CheckpointError
from videorl.run.checkpoint_state import NOTE, RUN, loop_state
from videorl.run.checkpoints import open_checkpoints
from videorl.types import WeightVersion


def newest_weights(
    config: CheckpointConfig, run_dir: Path, step: int | None = None
) -> tuple[WeightVersion, dict[str, Tensor]]:
    """Return published weights of a run: of a checkpoint that it has kept; see `weights_file`."""
    version, file = weights_file(config, run_dir, step)
    return version, load_file(file)


def weights_file(
    config: CheckpointConfig, run_dir: Path, step: int | None = None
) -> tuple[WeightVersion, Path]:
    """Return the file of published weights of a checkpoint that a run has kept.

    Args:
        config: Says where checkpoints are. From an object store the checkpoint is copied to this
            machine, until this process ends.
        run_dir: The run folder.
        step: Of the checkpoint; None = the newest.

    Raises:
        CheckpointError: There is none, or it is another run's.
    """
    checkpoints = open_checkpoints(config, run_dir)
    found = checkpoints.latest() if step is None else checkpoints.at(step)
    if found is None:
        raise CheckpointError(f"{run_dir} has no checkpoint yet; train first")
    folder, state = found
    # A run that was moved may still name a place where another run now has its own.
    note = run_dir / NOTE
    mine = json.loads(note.read_text()).get(RUN) if note.exists() else None
    if mine and loop_state(state).get(RUN, mine) != mine:
        raise CheckpointError(
            f"the checkpoints in {config.location} are of another run than {run_dir}, whose "
            "config.yaml names that place: set its checkpoint.location to where its own are"
        )
    step = int(state["step"])
    version = WeightVersion(step, state["published"][str(step)])
    return version, folder / f"published-{step}.safetensors"
