"""Each rule of the guard against numbers worked out by hand, at both sides of its limit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from videorl.evaluation.guard import Alarm, Facts, Learned, alarms, broken
from videorl.evaluation.readings import Reading
from videorl.settings.guard import GuardConfig

NOTHING = Facts((), {})
P = 8


def reading(step: int, values: Mapping[str, float | list[float]]) -> Reading:
    """Return a reading whose prompts all have a value, or each its own."""
    lists = {
        name: value if isinstance(value, list) else [float(value)] * P
        for name, value in values.items()
    }
    return Reading(step, "", tuple(range(P)), {"reward/total": [0.0] * P, **lists})


def rules(found: list[Alarm]) -> list[tuple[str, str]]:
    return [(alarm.rule, alarm.metric) for alarm in found]


def judged(
    before: Mapping[str, float | list[float]],
    after: Mapping[str, float | list[float]],
    facts: Facts = NOTHING,
    **settings: object,
) -> list[tuple[str, str]]:
    guard = GuardConfig(**settings)  # pyright: ignore
    return rules(broken([reading(0, before), reading(10, after)], facts, guard))


@pytest.mark.parametrize(("after", "is_alarm"), [(0.46, False), (0.44, True), (0.9, False)])
def test_motion_may_fall_by_a_tenth(after: float, is_alarm: bool) -> None:
    name = "unseen/dynamic_degree"
    assert judged({name: 0.5}, {name: after}) == ([("motion", name)] if is_alarm else [])


def test_a_fall_that_one_prompt_makes_is_no_alarm() -> None:
    """The mean falls by 20 %, but seven of eight prompts are as before: the interval holds 0."""
    name = "unseen/dynamic_degree"
    assert judged({name: 0.5}, {name: [0.5] * 7 + [-0.3]}) == []


@pytest.mark.parametrize(
    ("after", "is_alarm"), [(0.26, False), (0.24, True), (1.49, False), (1.51, True)]
)
def test_an_unseen_metric_stays_in_its_band(after: float, is_alarm: bool) -> None:
    name = "unseen/sharpness"
    assert judged({name: 0.5}, {name: after}) == ([("band", name)] if is_alarm else [])
    assert judged({name: 0.0}, {name: after}) == [], "there is no part of nothing"
    assert judged({name: 0.5}, {name: after}, bands={"sharpness": [0.1, 9.0]}) == []


@pytest.mark.parametrize(
    ("before", "after", "is_alarm"),
    [(0.0, 0.06, True), (0.0, 0.04, False), (0.01, 0.05, False), (0.01, 0.07, True)],
)
def test_a_share_near_nothing_may_grow_a_little(
    before: float, after: float, is_alarm: bool
) -> None:
    """A few dark pixels more are no alarm, though they are five times as many; of 0 too."""
    name = "unseen/dark_pixel_share"
    assert judged({name: before}, {name: after}) == ([("band", name)] if is_alarm else [])


@pytest.mark.parametrize(("count", "is_alarm"), [(1, False), (5, False), (6, True)])
def test_few_prompts_are_no_alarm(count: int, is_alarm: bool) -> None:
    """An interval over one prompt is a point, which never holds 0."""
    name = "unseen/dynamic_degree"
    base = Reading(0, "", tuple(range(P)), {"reward/total": [1.0] * P, name: [0.5] * P})
    shared = tuple(range(count))
    now = Reading(10, "", shared, {"reward/total": [0.0] * count, name: [0.4] * count})
    found = rules(broken([base, now], NOTHING, GuardConfig()))
    assert found == ([("motion", name), ("total", "reward/total")] if is_alarm else [])


def test_a_change_is_a_part_of_what_the_base_has_of_the_same_prompts() -> None:
    """Two still prompts were lost: the others fell by 8 %, which is 10.7 % of the mean of all."""
    name = "unseen/dynamic_degree"
    values = {"reward/total": [0.0] * P, name: [0.0, 0.0] + [1.0] * (P - 2)}
    base = Reading(0, "", tuple(range(P)), values)
    rest = {"reward/total": [0.0] * (P - 2), name: [0.92] * (P - 2)}
    now = Reading(10, "", tuple(range(2, P)), rest)
    assert broken([base, now], NOTHING, GuardConfig()) == []


def test_a_run_on_a_plateau_is_not_stopped() -> None:
    """The best of many readings is so by luck; what comes after it must not look like a fall."""
    num_prompts, stopped = 16, 0
    for seed in range(8):
        draw = np.random.default_rng(seed)
        level = draw.normal(size=num_prompts)
        rows = [level - 5.0, *(level + draw.normal(size=(30, num_prompts)))]
        readings = [
            Reading(step, "", tuple(range(num_prompts)), {"reward/total": row.tolist()})
            for step, row in enumerate(rows)
        ]
        ends = range(2, len(readings) + 1)
        stopped += any(alarms(readings[:end], NOTHING, GuardConfig()) for end in ends)
    assert stopped == 0, "most of these 8 are where the best counts as a single comparison"


def test_a_real_fall_after_many_readings_is_seen() -> None:
    draw = np.random.default_rng(1)
    rows = [*draw.normal(size=(30, 16)), *(draw.normal(size=(2, 16)) - 3.0)]
    readings = [
        Reading(step, "", tuple(range(16)), {"reward/total": row.tolist()})
        for step, row in enumerate(rows)
    ]
    assert rules(alarms(readings, NOTHING, GuardConfig())) == [("total", "reward/total")]


def test_what_others_are_compared_with_is_named() -> None:
    """Evaluations that were switched on later have no base."""
    name = "unseen/sharpness"
    late = [reading(step, {name: value}) for step, value in ((40, 0.5), (50, 0.1))]
    (alarm,) = broken(late, NOTHING, GuardConfig())
    assert "0.20 times that of step 40, the first that was evaluated (" in alarm.reason


@pytest.mark.parametrize(("after", "is_alarm"), [(0.21, False), (0.19, True), (4.0, False)])
def test_diversity_may_halve_and_rise(after: float, is_alarm: bool) -> None:
    name = "unseen/diversity"
    assert judged({name: 0.4}, {name: after}) == ([("diversity", name)] if is_alarm else [])


@pytest.mark.parametrize(
    ("total", "watched", "is_alarm"), [(1.0, -0.1, True), (1.0, 0.1, False), (0.0, -0.1, False)]
)
def test_a_watching_reward_must_not_fall_while_the_total_rises(
    total: float, watched: float, is_alarm: bool
) -> None:
    """Its own total counts, whatever becomes of single dimensions: less of some is better."""
    name, dimension = "model/oracle", "reward/oracle.faults"
    after = {"reward/total": total, name: watched, dimension: -9.0 if watched > 0 else 9.0}
    found = judged({name: 0.0, dimension: 0.0}, after, Facts(("oracle",), {}))
    assert found == ([("watching", "oracle")] if is_alarm else [])


def test_the_total_must_not_fall_from_its_best_by_more_than_the_interval() -> None:
    top = reading(10, {"reward/total": [1.0 + number for number in range(P)]})
    worse = reading(20, {"reward/total": [0.9 + number for number in range(P)]})
    noisy = reading(20, {"reward/total": [1.0 + number for number in range(P - 1)] + [7.0]})
    base = reading(0, {})
    assert rules(broken([base, top, worse], NOTHING, GuardConfig())) == [("total", "reward/total")]
    assert broken([base, top, noisy], NOTHING, GuardConfig()) == []
    (alarm,) = broken([base, top, worse], NOTHING, GuardConfig())
    assert alarm.reason == "the total changed by -0.100 [-0.100, -0.100] from its best, at step 10"
    assert alarm.step == 20


@pytest.mark.parametrize(
    ("error", "margin", "is_alarm"), [(0.3, 1.0, True), (0.2, 1.0, False), (0.3, -1.0, False)]
)
def test_the_error_on_chosen_videos_must_not_rise_with_the_margin(
    error: float, margin: float, is_alarm: bool
) -> None:
    found = judged({}, {}, Facts((), {10: Learned(error, margin)}))
    assert found == ([("winner_error", "dpo/winner_error_change")] if is_alarm else [])


def test_patience_asks_for_the_same_rule_several_times() -> None:
    name, other = "unseen/dynamic_degree", "unseen/sharpness"
    base = reading(0, {name: 0.5, other: 0.5})
    still = [reading(step, {name: 0.1, other: 0.5}) for step in (10, 20)]
    blurred = reading(20, {name: 0.5, other: 0.1})
    guard = GuardConfig(patience=2)
    assert alarms([base, still[0]], NOTHING, guard) == []
    # Of a motion of a fifth the band of 0.5 is broken as well.
    both = [("motion", name), ("band", name)]
    assert rules(alarms([base, *still], NOTHING, guard)) == both
    assert alarms([base, still[0], blurred], NOTHING, guard) == []
    assert rules(alarms([base, still[0]], NOTHING, GuardConfig(patience=1))) == both
    assert alarms([base], NOTHING, GuardConfig(patience=1)) == []
    assert alarms([], NOTHING, GuardConfig(patience=1)) == []


def test_what_the_default_recipe_does_is_no_alarm() -> None:
    """Changes of its unseen metrics as docs/benchmarks.md has them, while the total rose by 1.4."""
    changes = {"dynamic_degree": 0.34, "edge_density": 0.83, "sharpness": 1.37}
    changes |= {"colour_entropy": 0.42, "dark_pixel_share": -0.03}
    names = [f"unseen/{name}" for name in changes]
    after = {f"unseen/{name}": 0.1 * (1 + change) for name, change in changes.items()}
    assert judged(dict.fromkeys(names, 0.1), {"reward/total": 1.4, **after}) == []
