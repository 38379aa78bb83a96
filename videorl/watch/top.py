"""The state of a run in a few numbers: what `videorl top` shows, of the files in its folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from statistics import median
from typing import Any

from videorl.run.folder import RunFolder
from videorl.run.pool_sizes import read_states
from videorl.run.progress import ETA_WINDOW, sparkline
from videorl.watch.alerts import Alert, alerts
from videorl.watch.run_state import RunState

WINDOW = 10
"""Newest steps over which losses and times are added up."""
HEADLINES = (
    "learn/loss",
    "train/loss",
    "learn/accuracy",
    "train/accuracy",
    "learn/margin",
    "pairs/margin",
    "dpo/winner_error_change",
    "held_out/loss",
    "staleness/steps",
    "optimizer/grad_norm",
    "optimizer/learning_rate",
)
"""Of these, those that the run has are shown."""
_POOL = ("workers", "busy", "starting", "pending", "queued", "replaced", "fenced", "retried")


_LOST_SO_FAR = ("/lost", "_lost", "generator/uncompiled", "_repeated_for_speed")
"""Ends of the names of such counters; those of single steps have `dropped_` in them."""


@dataclass(frozen=True)
class Value:
    """A metric over the run."""

    name: str
    now: float
    """In the newest step that has it."""
    first: float
    spread: float | None
    """Of rewards: the mean standard deviation within a group."""
    curve: str
    """As block characters."""


@dataclass(frozen=True)
class Top:
    """The state of a run; everything is plain and can become JSON."""

    name: str
    state: str
    """As `RunState.state`."""
    step: int
    """Steps that are done."""
    num_steps: int | None
    step_s: float | None
    """What a step takes, in seconds."""
    eta_s: float | None
    """Seconds until the last step; None = not known, or it makes no steps."""
    since_step_s: float | None
    """Seconds since metrics were written."""
    rewards: list[Value]
    unseen: list[Value]
    values: list[Value]
    pools: dict[str, dict[str, float]]
    """Pool -> workers by state, requests, and totals of what was replaced or repeated."""
    seconds: dict[str, float]
    """Stage of the driver -> seconds per step, a mean over the newest steps."""
    work: dict[str, float]
    """Stage of the workers -> seconds of all of them per step, likewise."""
    lost: dict[str, float]
    """What was dropped or gave no pair -> how many, in the newest steps."""
    lost_so_far: dict[str, float]
    """What is counted over the whole run, or since its driver was started, and is not 0."""
    bytes_published: float | None
    """Of the newest version."""
    alerts: list[Alert]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def top(run: RunState, folder: RunFolder, now: float | None = None) -> Top:
    """Return the state of a run; `now` is in seconds since 1970."""
    now = time.time() if now is None else now
    rows = run.contents.rows
    newest = rows[-1] if rows else {}
    usual = [row["time/step_s"] for row in rows[-ETA_WINDOW:] if row.get("time/step_s")]
    step_s = median(usual) if usual else None
    num_steps = run.contents.num_steps
    eta_s = None
    if run.state == "running" and step_s is not None and num_steps is not None:
        eta_s = step_s * (num_steps - run.num_done)
    return Top(
        name=folder.root.name,
        state=run.state,
        step=run.num_done,
        num_steps=num_steps,
        step_s=step_s,
        eta_s=eta_s,
        since_step_s=max(0.0, now - run.updated) if run.updated else None,
        rewards=_values(run, _named(run, "reward/")),
        unseen=_values(run, _named(run, "unseen/")),
        values=_values(run, HEADLINES),
        pools=_pools(newest, folder, is_running=run.state == "running"),
        seconds=_per_step(rows[-WINDOW:], "time/"),
        work=_per_step(rows[-WINDOW:], "work/"),
        lost=_lost(rows[-WINDOW:]),
        lost_so_far={
            name: value
            for name, value in newest.items()
            if value and name.endswith(_LOST_SO_FAR) and "/dropped_" not in name
        },
        bytes_published=newest.get("weights/bytes"),
        alerts=alerts(run, now),
    )


def _named(run: RunState, prefix: str) -> list[str]:
    """Return the metrics with a prefix; a total comes first."""
    found = [name for name in run.contents.metrics() if name.startswith(prefix)]
    return sorted(found, key=lambda name: not name.endswith("/total"))


def _values(run: RunState, names: Sequence[str]) -> list[Value]:
    found = []
    newest = run.contents.rows[-1] if run.contents.rows else {}
    for name in names:
        numbers = (value for _, value in run.contents.series(name) if value is not None)
        series = [value for value in numbers if isfinite(value)]
        if series:
            spread = newest.get(name.replace("reward/", "spread/", 1))
            spread = spread if name.startswith("reward/") else None
            found.append(Value(name, series[-1], series[0], spread, sparkline(series)))
    return found


def _pools(
    row: Mapping[str, Any], folder: RunFolder, *, is_running: bool
) -> dict[str, dict[str, float]]:
    """Return the pools as the newest step ended and, of a run that works, as they are now."""
    found: dict[str, dict[str, float]] = {}
    for name, value in row.items():
        pool, _, what = name.removeprefix("pool/").rpartition("_")
        if name.startswith("pool/") and what in _POOL:
            found.setdefault(pool, {})[what] = value
    states = read_states(folder) if is_running else None
    for pool, state in (states[1] if states else {}).items():
        now = {what: getattr(state, what) for what in ("workers", "busy", "starting", "queued")}
        found.setdefault(pool, {}).update(now)
    return found


def _per_step(rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(prefix) and name.endswith("_s") and name != "time/step_s":
                stage = name.removeprefix(prefix).removesuffix("_s")
                total[stage] = total.get(stage, 0.0) + (value or 0.0)
    return {stage: seconds / len(rows) for stage, seconds in total.items()}


def _lost(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    lost: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if value and ("/dropped_" in name or "/no_pair_" in name):
                lost[name] = lost.get(name, 0.0) + value
    return dict(sorted(lost.items(), key=lambda found: -found[1]))
