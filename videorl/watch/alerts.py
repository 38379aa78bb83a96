"""What in the numbers of a run wants somebody's attention, and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, median

from videorl.evaluation.evaluate import MAX_DYNAMIC_DEGREE_LOSS
from videorl.report.charts import number, percent
from videorl.report.displacement import worst_displacement
from videorl.run.progress import duration
from videorl.watch.run_state import RunState

WINDOW = 10
"""Newest steps that an alert about losses looks at."""
SLOW, LEAST_SILENCE_S = 5.0, 120.0
"""No step for so many times the usual step, and at least so long."""
LOST_SHARE = 0.1
"""Share of the candidates of the newest steps that may be lost."""


@dataclass(frozen=True)
class Alert:
    """Something that is wrong."""

    title: str
    reason: str
    """The numbers behind it, and what to do."""


def alerts(run: RunState, now: float | None = None) -> list[Alert]:
    """Return what is wrong, the worst first; `now` is in seconds since 1970."""
    found = [_silence(run, time.time() if now is None else now), _nothing_learned(run)]
    found += [
        _guard(run),
        _hacking(run),
        _displacement(run),
        _losses(run),
        _skipped(run),
        *_pools(run),
    ]
    return [alert for alert in found if alert]


def _silence(run: RunState, now: float) -> Alert | None:
    if run.state != "running" or not run.updated:
        return None
    usual = [row["time/step_s"] for row in run.contents.rows[-WINDOW:] if row.get("time/step_s")]
    limit = max(SLOW * median(usual), LEAST_SILENCE_S) if usual else LEAST_SILENCE_S
    silent = now - run.updated
    if silent <= limit:
        return None
    usually = f"; a step took {duration(median(usual))} so far" if usual else ""
    return Alert(
        f"No step for {duration(silent)}",
        f"The driver still holds the folder{usually}. An evaluation or a checkpoint may take "
        "longer; otherwise the log of the driver says what it waits for.",
    )


def _nothing_learned(run: RunState) -> Alert | None:
    rows = run.contents.rows[-WINDOW:]
    counts = [row["learn/examples"] for row in rows if "learn/examples" in row]
    if len(counts) < 3 or any(counts):
        return None
    why: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(("groups/", "candidates/dropped_")) and value:
                why[name] = why.get(name, 0.0) + value
    most = max(why, key=why.__getitem__, default="")
    return Alert(
        f"Nothing was learned in the last {len(counts)} steps",
        f"The most frequent reason is {most}." if most else "No group gave a pair or a candidate.",
    )


def _guard(run: RunState) -> Alert | None:
    """Return the newest alarm of the run's guard."""
    if not (alarms := run.contents.alarms):
        return None
    step = alarms[-1]["step"]
    reasons = "; ".join(str(alarm["reason"]) for alarm in alarms if alarm["step"] == step)
    return Alert(
        f"The guard found something at step {step}",
        f"On held-out prompts: {reasons}. The report has all of its alarms.",
    )


def _hacking(run: RunState) -> Alert | None:
    reward, motion = (_change(run, name) for name in ("reward/total", "unseen/dynamic_degree"))
    if reward is None or motion is None or reward[1] <= reward[0] or not motion[0]:
        return None
    fall = motion[1] / motion[0] - 1
    # The verdict of the evaluation allows as much.
    if fall >= -MAX_DYNAMIC_DEGREE_LOSS:
        return None
    return Alert(
        "The reward rises while motion falls",
        f"Over the run the total went from {number(reward[0])} to {number(reward[1])}, and the "
        f"dynamic degree, which no reward sees, changed by {percent(fall)}: look at the newest "
        "candidates; a lower rate, fewer steps or another reward are the remedies.",
    )


def _change(run: RunState, name: str) -> tuple[float, float] | None:
    """Return the means of the first and the last fifth of a metric; None under 10 values."""
    values = [value for _, value in run.contents.series(name) if value is not None]
    fifth = len(values) // 5
    return (fmean(values[:fifth]), fmean(values[-fifth:])) if fifth >= 2 else None


def _displacement(run: RunState) -> Alert | None:
    found = worst_displacement(run.contents)
    if found is None:
        return None
    error, margin, step = found
    return Alert(
        "Likelihood displacement",
        f"Until step {step} the error on chosen videos rose {percent(error)} above the "
        f"reference's while the margin grew to {number(margin)}: the policy got worse at both "
        "videos of its pairs. A lower learning rate is the first remedy.",
    )


def _losses(run: RunState) -> Alert | None:
    rows = run.contents.rows[-WINDOW:]
    lost: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if "/dropped_" in name and value:
                lost[name] = lost.get(name, 0.0) + value
    groups = sum(value for name, value in lost.items() if name.startswith("groups/"))
    candidates = sum(value for name, value in lost.items() if name.startswith("candidates/"))
    scored = sum(row.get("candidates/scored") or 0.0 for row in rows)
    if not groups and candidates <= LOST_SHARE * (scored + candidates):
        return None
    listed = ", ".join(f"{name} {value:.0f}" for name, value in sorted(lost.items()))
    return Alert(
        f"Work is lost in the last {len(rows)} steps",
        f"{listed}. docs/metrics.md says what each means; the gallery shows them by reason.",
    )


def _skipped(run: RunState) -> Alert | None:
    rows = run.contents.rows[-WINDOW:]
    skipped = sum(row.get("optimizer/skipped") or 0.0 for row in rows)
    if skipped < 3:
        return None
    return Alert(
        f"{skipped:.0f} of the last {len(rows)} updates were skipped",
        "Their gradient was not finite, or no example was left: a smaller rate, or float32.",
    )


def _pools(run: RunState) -> Iterator[Alert]:
    row = run.contents.rows[-1] if run.contents.rows and run.state == "running" else {}
    for name, value in row.items():
        if name.startswith("pool/") and name.endswith("_workers") and not value:
            pool = name.removeprefix("pool/").removesuffix("_workers")
            starting = row.get(f"pool/{pool}_starting") or 0.0
            yield Alert(
                f"The pool {pool} had no worker when step {row['step']} ended",
                f"{starting:.0f} are starting; if none becomes ready, the log names the error.",
            )
