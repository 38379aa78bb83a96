"""`videorl top`: a run in the terminal, while it works: reward, pace, workers, losses, alerts.

    videorl top runs/moving_shapes
    videorl top /shared/runs/first --once
    videorl top runs/moving_shapes --json

It reads files in the run folder, so it works on any machine that sees it, and disturbs nothing.
Without a terminal, such as in a pipe, it prints once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs import command, places
from jobs.results import add_json, as_strict_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from videorl.watch.run_state import RunReader
    from videorl.watch.top import Top, Value


def main(argv: Sequence[str] | None = None) -> int:
    """Show the run until Ctrl-C or, of one that works, until it ends."""
    parser = command.new_parser("videorl top", __doc__)
    parser.add_argument("run", type=places.place, help="a run folder, or its URI")
    parser.add_argument("--once", action="store_true", help="print once and leave")
    add_json(parser)
    command.add_option(parser, "--interval", 2.0, "seconds between two looks, at least 0.1")
    options = parser.parse_args(argv)

    from rich.console import Console

    from videorl.watch.run_state import RunReader

    with places.followed(options.run, media=False) as folder:
        reader = RunReader(folder.absolute())
        if options.json:
            print(as_strict_json(_look(reader).to_json()))
            return 0
        console = Console()
        if options.once or not sys.stdout.isatty():
            console.print(_shown(_look(reader)))
            return 0
        _follow(reader, console, max(0.1, options.interval))
    return 0


def _look(reader: RunReader) -> Top:
    from videorl.watch.top import top

    return top(reader.read(), reader.folder)


def _follow(reader: RunReader, console: object, interval_s: float) -> None:
    """Show the run again and again; the last picture stays in the terminal."""
    from rich.live import Live

    seen = _look(reader)
    with Live(_shown(seen), console=console, auto_refresh=False) as live:  # pyright: ignore
        try:
            while seen.state == "running":
                time.sleep(interval_s)
                seen = _look(reader)
                live.update(_shown(seen), refresh=True)
        except KeyboardInterrupt:
            return


def _shown(run: Top) -> RenderableType:
    """Return everything that is known, section by section."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_head(run)]
    parts += [Text(f"! {alert.title}. {alert.reason}", style="bold red") for alert in run.alerts]
    for title, values in (("reward", run.rewards), ("unseen", run.unseen), ("", run.values)):
        if values:
            parts.append(_table(title, values))
    if run.pools:
        parts.append(_pools(run))
    for title, seconds in (("driver", run.seconds), ("workers", run.work)):
        if seconds:
            listed = "  ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items())
            parts.append(Text.assemble((f"{title}, per step  ", "bold"), listed))
    for title, counts in (("lost lately", run.lost), ("so far", run.lost_so_far)):
        if counts:
            listed = "  ".join(f"{name} {count:.0f}" for name, count in counts.items())
            parts.append(Text.assemble((f"{title}  ", "bold"), listed))
    return Group(*parts)


def _head(run: Top) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from videorl.run.progress import duration

    facts = [] if run.step_s is None else [f"{run.step_s:.1f} s per step"]
    facts += [] if run.eta_s is None else [f"ETA {duration(run.eta_s)}"]
    if run.since_step_s is not None and run.state == "running":
        facts.append(f"last step {duration(run.since_step_s)} ago")
    if run.bytes_published:
        facts.append(f"weights {run.bytes_published / 1e6:.1f} MB")
    of = f"/{run.num_steps}" if run.num_steps else ""
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text(run.name, style="bold"),
        Text(run.state),
        Text(f"step {run.step}{of}", style="bold"),
        ProgressBar(total=run.num_steps or max(1, run.step), completed=run.step, width=24),
    )
    return Group(grid, Text("  ".join(facts), style="dim"))


def _table(title: str, values: Sequence[Value]) -> RenderableType:
    from rich.table import Table

    has_spread = any(value.spread is not None for value in values)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name, kind in ((title, "left"), ("now", "right"), ("since the start", "right")):
        table.add_column(name, justify=kind)  # pyright: ignore[reportArgumentType]
    if has_spread:
        table.add_column("spread", justify="right")
    table.add_column("")
    for value in values:
        name = value.name.partition("/")[2] if title else value.name
        cells = [name, f"{value.now:.4g}", f"{value.now - value.first:+.4g}"]
        if has_spread:
            cells.append("" if value.spread is None else f"{value.spread:.3g}")
        table.add_row(*cells, value.curve)
    return table


def _pools(run: Top) -> RenderableType:
    from rich.table import Table

    columns = list(dict.fromkeys(what for counts in run.pools.values() for what in counts))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("pool")
    for what in columns:
        table.add_column("ready" if what == "workers" else what, justify="right")
    for name, counts in run.pools.items():
        table.add_row(name, *(f"{counts.get(what, 0):.0f}" for what in columns))
    return table


if __name__ == "__main__":
    raise SystemExit(command.run(main))
