"""`videorl scale`: resize the worker pools of a run while it works.

    videorl scale runs/moving_shapes                              # print the sizes
    videorl scale runs/moving_shapes --min 2 --max 8              # generators
    videorl scale runs/moving_shapes --pool video_reward --max 4  # reward workers; or `encoder`

Workers above the new maximum finish their requests first. The sizes last until the run ends, also
when its driver is restarted, unless that is with other sizes in its recipe.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command, places
from jobs.results import add_json, results
from videorl.errors import ConfigError, RunFolderError

if TYPE_CHECKING:
    from videorl.run.folder import RunFolder
    from videorl.run.pool_sizes import PoolState

_PATIENCE_S = 15.0
"""How long to wait for the driver, which writes its pools' states every second."""
_PATIENCE_FAR_S = 60.0
"""The same through a store, where every way takes some seconds."""


def main(argv: Sequence[str] | None = None) -> int:
    """Resize if a size is given; print every pool."""
    parser = command.new_parser("videorl scale", __doc__)
    parser.add_argument("run", type=places.place, help="folder or URI of a run that works")
    command.add_option(
        parser, "--pool", "generator", "`generator`, `encoder`, or a reward's label or name"
    )
    parser.add_argument("--min", type=int, help="workers kept even when idle; default: unchanged")
    parser.add_argument("--max", type=int, help="workers started on demand; default: unchanged")
    add_json(parser)
    options = parser.parse_args(argv)

    from videorl.run.folder import RunFolder

    with places.followed(options.run, media=False, interval_s=1.0) as root:
        folder = RunFolder(root.absolute())
        if not folder.config.exists():
            raise RunFolderError(f"{folder.root} is not the folder of a run: it has no config.yaml")
        patience_s = _PATIENCE_S if isinstance(options.run, Path) else _PATIENCE_FAR_S
        states = _scaled(folder, options, patience_s)
    with results(options) as show:
        show({name: dataclasses.asdict(state) for name, state in states.items()}, _table(states))
    return 0


def _scaled(
    folder: RunFolder, options: argparse.Namespace, patience_s: float
) -> dict[str, PoolState]:
    """Resize if a size is given; return the states of all pools then."""
    from videorl.run.pool_sizes import PoolSize, next_states, resize

    states = next_states(folder, patience_s)
    if options.min is not None or options.max is not None:
        if options.pool not in states:
            raise ConfigError(f"there is no pool {options.pool!r}; there are: {', '.join(states)}")
        size = states[options.pool].size
        new = PoolSize(
            size.min_workers if options.min is None else options.min,
            size.max_workers if options.max is None else options.max,
        )
        states = resize(folder, options.pool, new, patience_s)
    return states


def _table(states: Mapping[str, PoolState]) -> str:
    head = f"{'pool':<20}{'min':>5}{'max':>5}{'ready':>7}{'starting':>10}{'busy':>6}{'queued':>8}"
    rows = (
        f"{name:<20}{state.size.min_workers:>5}{state.size.max_workers:>5}"
        f"{state.workers:>7}{state.starting:>10}{state.busy:>6}{state.queued:>8}"
        for name, state in states.items()
    )
    return "\n".join([head, *rows])


if __name__ == "__main__":
    raise SystemExit(command.run(main))
