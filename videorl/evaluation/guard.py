"""Rules that notice when the reward rises and the videos do not: pure functions of readings.

A difference counts only if its 95 % interval, paired by prompt, does not hold 0: few prompts and a
bad draw are no alarm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from videorl.evaluation.readings import TOTAL, Reading, best, change
from videorl.evaluation.statistics import Interval
from videorl.settings.guard import GuardConfig

MOTION = "unseen/dynamic_degree"
DIVERSITY = "unseen/diversity"
_WATCH = "watching/"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A rule that is broken."""

    step: int
    """Of the weights that break it."""
    rule: str
    metric: str
    reason: str
    """The numbers behind it."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What learning logged between the evaluation before and this one, as means over steps."""

    winner_error: float
    """Relative change of the error on chosen videos, against the reference's."""
    margin: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules look at beside readings."""

    watching: Mapping[str, Sequence[str]]
    """Reward model with weight 0 -> the names of its values in readings."""
    learned: Mapping[int, Learned]
    """Step of a reading -> what was logged before it; not all have it."""


def alarms(readings: Sequence[Reading], facts: Facts, guard: GuardConfig) -> list[Alarm]:
    """Return the rules that the newest reading breaks, and those before it that patience asks for.

    Args:
        readings: By step; the first is the base.
        facts: What else rules look at.
        guard: The settings.
    """
    if len(readings) <= guard.patience:  # the base breaks nothing
        return []
    ends = range(len(readings) - guard.patience + 1, len(readings) + 1)
    found = [broken(readings[:end], facts, guard) for end in ends]
    keys = [{(alarm.rule, alarm.metric) for alarm in each} for each in found]
    return [alarm for alarm in found[-1] if all((alarm.rule, alarm.metric) in key for key in keys)]


def broken(readings: Sequence[Reading], facts: Facts, guard: GuardConfig) -> list[Alarm]:
    """Return the rules that the newest reading breaks by itself."""
    base, now = readings[0], readings[-1]
    if base is now:
        return []
    found = [
        *_motion(base, now, guard),
        *_bands(base, now, guard),
        *_diversity(base, now, guard),
        *_watching(base, now, facts.watching),
        *_total(readings[:-1], now),
        *_winner_error(now, facts.learned.get(now.step), guard),
    ]
    return [replace(alarm, step=now.step) for alarm in found]


def _motion(base: Reading, now: Reading, guard: GuardConfig) -> Iterator[Alarm]:
    moved = _relative(base, now, MOTION)
    if moved and moved.mean < -guard.max_motion_loss and moved.high < 0:
        yield _alarm("motion", MOTION, f"motion changed by {_share(moved)}", guard.max_motion_loss)


def _bands(base: Reading, now: Reading, guard: GuardConfig) -> Iterator[Alarm]:
    for name in now.values:
        metric = name.removeprefix("unseen/")
        if metric == name or name == DIVERSITY or (moved := _relative(base, now, name)) is None:
            continue
        low, high = guard.band_of(metric)
        part = 1 + moved.mean
        is_out = (part < low and moved.high < 0) or (part > high and moved.low > 0)
        if is_out:
            said = f"{metric} is {part:.2f} times that of the base ({_share(moved)})"
            yield Alarm(0, "band", name, f"{said}, outside of [{low:g}, {high:g}]")


def _diversity(base: Reading, now: Reading, guard: GuardConfig) -> Iterator[Alarm]:
    moved = _relative(base, now, DIVERSITY)
    if moved and moved.mean < -guard.max_diversity_loss and moved.high < 0:
        said = f"the videos of a prompt differ less, by {_share(moved)}"
        yield _alarm("diversity", DIVERSITY, said, guard.max_diversity_loss)


def _watching(
    base: Reading, now: Reading, watching: Mapping[str, Sequence[str]]
) -> Iterator[Alarm]:
    total = change(base, now, TOTAL)
    if total is None or total.low <= 0:
        return
    for model, names in watching.items():
        both = [_with_sum(reading, model, names) for reading in (base, now)]
        moved = change(both[0], both[1], _WATCH + model)
        if moved and moved.high < 0:
            said = f"{model}, which only watches, changed by {_number(moved)}"
            yield Alarm(0, "watching", model, f"{said} while the total changed by {_number(total)}")


def _total(before: Sequence[Reading], now: Reading) -> Iterator[Alarm]:
    top = best(before)
    moved = change(top, now, TOTAL)
    if moved and moved.high < 0:
        said = f"the total changed by {_number(moved)} from its best, at step {top.step}"
        yield Alarm(0, "total", TOTAL, said)


def _winner_error(now: Reading, learned: Learned | None, guard: GuardConfig) -> Iterator[Alarm]:
    if learned and learned.winner_error > guard.max_winner_error and learned.margin > 0:
        said = f"the error on chosen videos is {learned.winner_error:+.0%} against the reference"
        name = "dpo/winner_error_change"
        yield _alarm("winner_error", name, f"{said} while the margin grows", guard.max_winner_error)


def _relative(base: Reading, now: Reading, name: str) -> Interval | None:
    """Return the change as a part of what the base has; None where it has nothing."""
    moved = change(base, now, name)
    size = abs(base.mean(name)) if moved else 0.0
    if moved is None or size == 0:
        return None
    return Interval(moved.mean / size, moved.low / size, moved.high / size)


def _with_sum(reading: Reading, model: str, names: Sequence[str]) -> Reading:
    """Add the sum of a watching model's dimensions to a reading, if it has them all."""
    if not names or not all(name in reading.values for name in names):
        return reading
    summed = np.sum([reading.values[name] for name in names], axis=0).tolist()
    return replace(reading, values={**reading.values, _WATCH + model: summed})


def _alarm(rule: str, metric: str, said: str, limit: float) -> Alarm:
    return Alarm(0, rule, metric, f"{said}; {limit:.0%} are allowed")


def _share(moved: Interval) -> str:
    return f"{moved.mean:+.0%} [{moved.low:+.0%}, {moved.high:+.0%}]"


def _number(moved: Interval) -> str:
    return f"{moved.mean:+.3f} [{moved.low:+.3f}, {moved.high:+.3f}]"
