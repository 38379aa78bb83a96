"""Rules that notice when the reward rises and the videos do not: pure functions of readings.

A difference counts only if its 95 % interval, paired by prompt, does not hold 0, and only if there
are enough prompts for an interval to mean that: few prompts and a bad draw are no alarm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from videorl.evaluation.corrections import student_p
from videorl.evaluation.readings import MODEL, TOTAL, Reading, best, change, paired
from videorl.evaluation.statistics import Interval
from videorl.settings.guard import GuardConfig

UNSEEN = "unseen/"
MOTION, DIVERSITY = "unseen/dynamic_degree", "unseen/diversity"
LEAST_PROMPTS = 6
"""Of fewer no difference counts: the signs of 6 agree by chance in 3 % of cases, of 5 in 6 %."""
SLACK = {"dark_pixel_share": 0.05}
"""Unseen metric -> the rise that is always allowed, whatever part of the base's it is: a share near
0 triples by chance. By it a share of 0 is judged too."""
_ALPHA = 0.05


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

    watching: Sequence[str]
    """Reward models with weight 0."""
    learned: Mapping[int, Learned]
    """Step of a reading -> what was logged before it; not all have it."""


def alarms(readings: Sequence[Reading], facts: Facts, guard: GuardConfig) -> list[Alarm]:
    """Return the rules that the newest reading breaks, and those before it that patience asks for.

    Args:
        readings: By step; the first is the base, or stands for it where that was not evaluated.
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


def name_of(base: Reading) -> str:
    """Return what to call the reading that others are compared with: the first that there is."""
    is_first = base.step == 0
    return "the base" if is_first else f"step {base.step}, the first that was evaluated"


def _motion(base: Reading, now: Reading, guard: GuardConfig) -> Iterator[Alarm]:
    moved = _relative(base, now, MOTION)
    if moved and moved.mean < -guard.max_motion_loss and moved.high < 0:
        yield _alarm("motion", MOTION, f"motion changed by {_share(moved)}", guard.max_motion_loss)


def _bands(base: Reading, now: Reading, guard: GuardConfig) -> Iterator[Alarm]:
    for name in now.values:
        metric = name.removeprefix(UNSEEN)
        if metric == name or name == DIVERSITY or (moved := _moved(base, now, name)) is None:
            continue
        low, high = guard.band_of(metric)
        slack, part = SLACK.get(metric, 0.0), _relative(base, now, name)
        if part is None:
            if slack and moved.mean > slack and moved.low > 0:
                said = f"{metric} rose to {moved.mean:.3f} from 0, that of {name_of(base)}"
                yield Alarm(0, "band", name, said)
            continue
        is_above = 1 + part.mean > high and part.low > 0 and moved.mean > slack
        if is_above or (1 + part.mean < low and part.high < 0):
            said = f"{metric} is {1 + part.mean:.2f} times that of {name_of(base)} ({_share(part)})"
            yield Alarm(0, "band", name, f"{said}, outside of [{low:g}, {high:g}]")


def _diversity(base: Reading, now: Reading, guard: GuardConfig) -> Iterator[Alarm]:
    moved = _relative(base, now, DIVERSITY)
    if moved and moved.mean < -guard.max_diversity_loss and moved.high < 0:
        said = f"the videos of a prompt differ less, by {_share(moved)}"
        yield _alarm("diversity", DIVERSITY, said, guard.max_diversity_loss)


def _watching(base: Reading, now: Reading, models: Sequence[str]) -> Iterator[Alarm]:
    total = _moved(base, now, TOTAL)
    if total is None or total.low <= 0:
        return
    for model in models:
        moved = _moved(base, now, MODEL + model)
        if moved and moved.high < 0:
            said = f"{model}, which only watches, changed by {_number(moved)}"
            yield Alarm(0, "watching", model, f"{said} while the total changed by {_number(total)}")


def _total(before: Sequence[Reading], now: Reading) -> Iterator[Alarm]:
    """Compare with the best of earlier readings, of which the best is good by luck as well.

    So it counts as that many comparisons (Student's test after Bonferroni): without that, most runs
    on a plateau would be stopped sooner or later.
    """
    top = best(before)
    moved = _moved(top, now, TOTAL)
    if moved is None or moved.high >= 0:
        return
    first, second = paired(top, now, TOTAL)
    chance = student_p([b - a for a, b in zip(first, second, strict=True)])
    if chance * len(before) < _ALPHA:
        said = f"the total changed by {_number(moved)} from its best, at step {top.step}"
        yield Alarm(0, "total", TOTAL, said)


def _winner_error(now: Reading, learned: Learned | None, guard: GuardConfig) -> Iterator[Alarm]:
    if learned and learned.winner_error > guard.max_winner_error and learned.margin > 0:
        said = f"the error on chosen videos is {learned.winner_error:+.0%} against the reference"
        name = "dpo/winner_error_change"
        yield _alarm("winner_error", name, f"{said} while the margin grows", guard.max_winner_error)


def _moved(before: Reading, now: Reading, name: str) -> Interval | None:
    """Return the change; None where too few prompts have the value in both readings."""
    is_enough = len(paired(before, now, name)[0]) >= LEAST_PROMPTS
    return change(before, now, name) if is_enough else None


def _relative(base: Reading, now: Reading, name: str) -> Interval | None:
    """Return the change as a part of what the base has of the same prompts; None if it has 0."""
    moved = _moved(base, now, name)
    size = abs(fmean(paired(base, now, name)[0])) if moved else 0.0
    if moved is None or size == 0:
        return None
    return Interval(moved.mean / size, moved.low / size, moved.high / size)


def _alarm(rule: str, metric: str, said: str, limit: float) -> Alarm:
    return Alarm(0, rule, metric, f"{said}; {limit:.0%} are allowed")


def _share(moved: Interval) -> str:
    return f"{moved.mean:+.0%} [{moved.low:+.0%}, {moved.high:+.0%}]"


def _number(moved: Interval) -> str:
    return f"{moved.mean:+.3f} [{moved.low:+.3f}, {moved.high:+.3f}]"
