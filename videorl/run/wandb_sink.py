"""Weights & Biases as a metric sink that a run never waits for or fails of."""

from __future__ import annotations

import hashlib
import importlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videorl.errors import ConfigError

_INIT_TIMEOUT_S = 20
_logger = logging.getLogger(__name__)


class WandbSink:
    """Weights & Biases (`pip install 'videorl[wandb]'`); a resumed run goes on under its name.

    Where the service cannot be reached, or nobody is logged in, numbers are recorded in the folder
    for `wandb sync`; where that does not work either, the run goes on without.

    Args:
        directory: The run folder.
        project: The W&B project.
        name: The run's name there.

    Raises:
        ConfigError: wandb is not installed, or cannot be imported.
    """

    def __init__(self, directory: Path, project: str, name: str) -> None:
        self._wandb = _imported()
        # Numbers only: by itself it also sends the command line, the source and what is printed.
        quiet: dict[str, Any] = {
            "x_disable_meta": True,
            "disable_code": True,
            "disable_git": True,
            "console": "off",
            "init_timeout": _INIT_TIMEOUT_S,
        }
        arguments = {
            "project": project,
            "name": name,
            "id": run_id(name),
            "resume": "allow",
            "dir": str(directory),
        }
        self._run = self._started(arguments, quiet)
        if self._run is None:
            self._run = self._started(arguments, {**quiet, "mode": "offline"})

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        if self._run is None:
            return
        try:
            self._run.log(dict(metrics), step=step)
        except self._wandb.errors.Error as error:
            _logger.warning("Weights & Biases takes no numbers any more, without it on: %s", error)
            self._run = None

    def truncate(self, step: int) -> None:
        """Do nothing: W&B ignores steps that it has, and they repeat with equal numbers."""

    def close(self) -> None:
        """Upload what is left."""
        if self._run is None:
            return
        try:
            self._run.finish()
        except self._wandb.errors.Error as error:
            _logger.warning("Weights & Biases may lack the last numbers: %s", error)

    def _started(self, arguments: dict[str, Any], settings: dict[str, Any]) -> Any:
        try:
            return self._wandb.init(**arguments, settings=self._wandb.Settings(**settings))
        except (self._wandb.errors.Error, OSError) as error:
            where = f"numbers are recorded in {arguments['dir']}/wandb, `wandb sync` uploads them"
            is_last = settings.get("mode") == "offline"
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            _logger.warning(
                "Weights & Biases cannot be used (%s): %s", reason, "not used" if is_last else where
            )
            self._wandb.teardown()  # or its service goes on trying, and keeps the id
            return None


def run_id(name: str) -> str:
    """Return an id that W&B takes: the name itself, or one like it that no other name has."""
    plain = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:50]
    if plain and plain == name:
        return plain
    return f"{plain or 'run'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _imported() -> Any:
    try:
        wandb = importlib.import_module("wandb")
    except ModuleNotFoundError as error:
        if error.name != "wandb":
            raise ConfigError(f"wandb cannot be imported: it needs {error.name}") from error
        raise ConfigError(
            "wandb is not installed; run `pip install 'videorl[wandb]'` or leave out "
            "metrics.wandb_project"
        ) from error
    except ImportError as error:
        raise ConfigError(f"wandb is installed, but cannot be imported: {error}") from error
    if not hasattr(wandb, "init"):
        raise ConfigError(
            f"a folder named wandb ({next(iter(wandb.__path__))}) hides the package, or it is not "
            "installed: start in another folder, or run `pip install 'videorl[wandb]'`"
        )
    return wandb
