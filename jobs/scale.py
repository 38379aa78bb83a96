"""`videorl scale`: resize the worker pools of a run while it works.

    videorl scale runs/moving_shapes                              # how they are
    videorl scale runs/moving_shapes --min 2 --max 8              # generators
    videorl scale runs/moving_shapes --pool video_reward --max 4  # reward workers

Workers above the new maximum finish what they hold. The sizes last until the run ends, over
restarts of its driver too, unless it is started with other sizes in its recipe.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from videorl.errors import ConfigError, RunFolderError, VideorlError

_PATIENCE_S = 15.0
"""The driver writes every second."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="videorl scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", type=Path, help="folder of a run that works at this moment")
    made.add_argument(
        "--pool",
        default="generator",
        help="`generator` (default), or a reward model's label or name",
    )
    made.add_argument("--min", type=int, help="workers kept even when idle; default: as it is")
    made.add_argument("--max", type=int, help="workers started on demand; default: as it is")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Resize if a size is given; print every pool."""
    chosen = parser().parse_args(argv)

    from videorl.run.folder import RunFolder
    from videorl.run.pool_sizes import PoolSize, next_states, resize

    folder = RunFolder(chosen.run.absolute())
    if not folder.config.exists():
        raise RunFolderError(f"{folder.root} is not the folder of a run: it has no config.yaml")
    states = next_states(folder, _PATIENCE_S)
    if chosen.min is not None or chosen.max is not None:
        if chosen.pool not in states:
            raise ConfigError(f"there is no pool {chosen.pool!r}; there are: {', '.join(states)}")
        size = states[chosen.pool].size
        new = PoolSize(
            size.min_workers if chosen.min is None else chosen.min,
            size.max_workers if chosen.max is None else chosen.max,
        )
        states = resize(folder, chosen.pool, new, _PATIENCE_S)
    print(f"{'pool':<20}{'min':>5}{'max':>5}{'ready':>7}{'starting':>10}{'busy':>6}{'queued':>8}")
    for name, state in states.items():
        print(
            f"{name:<20}{state.size.min_workers:>5}{state.size.max_workers:>5}"
            f"{state.workers:>7}{state.starting:>10}{state.busy:>6}{state.queued:>8}"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
