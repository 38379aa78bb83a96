"""How `videorl scale` and a running driver talk: two small files in the run folder.

`scale.json` holds what is wished for, `pools.json` what is; the driver rewrites the latter every
second. Files need no open port, and work wherever the run folder can be seen.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from videorl.errors import ConfigError, RunFolderError
from videorl.files import write_json
from videorl.run.folder import RunFolder
from videorl.storage.reading import send

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class PoolSize:
    """Limits of one pool.

    Raises:
        ConfigError: Not 1 <= min_workers <= max_workers.
    """

    min_workers: int
    max_workers: int

    def __post_init__(self) -> None:
        """Check the sizes."""
        if not 1 <= self.min_workers <= self.max_workers:
            raise ConfigError(
                "a pool needs 1 <= min <= max workers, got "
                f"min {self.min_workers} and max {self.max_workers}"
            )


@dataclass(frozen=True, slots=True)
class PoolState:
    """One pool as its driver last saw it; the fields are those of `actors.pool.state.PoolStats`."""

    size: PoolSize
    recipe: PoolSize
    """What the recipe asks for; `size` differs after a resize."""
    workers: int
    starting: int
    busy: int
    queued: int


@dataclass(frozen=True, slots=True)
class Wish:
    """A size asked for, and the recipe's own at that time: another recipe makes it void."""

    size: PoolSize
    recipe: PoolSize


def write_states(folder: RunFolder, beat: int, states: Mapping[str, PoolState]) -> None:
    """Say how the pools are; `beat` counts up and so proves that the driver lives."""
    pools = {name: asdict(state) for name, state in states.items()}
    write_json(folder.pools, {"beat": beat, "pools": pools})


def read_states(folder: RunFolder) -> tuple[int, dict[str, PoolState]] | None:
    """Return the driver's last beat and the state of each pool; None = never written."""
    if not folder.pools.exists():
        return None
    content = json.loads(folder.pools.read_text())
    states = {
        name: PoolState(
            **{**state, "size": PoolSize(**state["size"]), "recipe": PoolSize(**state["recipe"])}
        )
        for name, state in content["pools"].items()
    }
    return content["beat"], states


def read_wishes(folder: RunFolder) -> dict[str, Wish]:
    """Return the wished sizes by pool; none if nobody wished."""
    if not folder.scale.exists():
        return {}
    content: dict[str, Any] = json.loads(folder.scale.read_text())
    return {
        name: Wish(PoolSize(**wish["size"]), PoolSize(**wish["recipe"]))
        for name, wish in content.items()
    }


def resize(folder: RunFolder, pool: str, size: PoolSize, timeout_s: float) -> dict[str, PoolState]:
    """Ask the driver to resize one pool; return the states once it has.

    Raises:
        RunFolderError: It has not within `timeout_s`.
    """
    states = next_states(folder, timeout_s)
    wishes = {**read_wishes(folder), pool: Wish(size, states[pool].recipe)}
    write_json(folder.scale, {name: asdict(wish) for name, wish in wishes.items()})
    send(folder.root, folder.scale.name)
    end = time.monotonic() + timeout_s
    while states[pool].size != size:
        states = next_states(folder, end - time.monotonic())
    return states


def next_states(folder: RunFolder, timeout_s: float) -> dict[str, PoolState]:
    """Return the states of the driver's next beat.

    Raises:
        RunFolderError: There is none within `timeout_s`: nobody works in the folder.
    """
    last = read_states(folder)
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        read = read_states(folder)
        if read is not None and (last is None or read[0] != last[0]):
            return read[1]
        time.sleep(_POLL_S)
    raise RunFolderError(_idle(folder.root, finished=folder.summary.exists()))


def _idle(root: Path, *, finished: bool) -> str:
    if finished:
        return f"the run in {root} is finished, there is nothing to resize"
    return (
        f"no driver works in {root}: start the run, with generators.min_workers and "
        "generators.max_workers as wanted"
    )
