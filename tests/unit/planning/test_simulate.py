"""The model of the loop, against times worked out by hand."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from videorl.planning.simulate import LEARNER, Stages, simulate

EVEN = Stages(
    per_round=4,
    staleness=0,
    generate_s=2.0,
    score_s={"reward": 1.0},
    learn_s=5.0,
    generators=1,
    scorers={"reward": 1},
    spread=0.0,
)


def test_without_staleness_stages_take_turns() -> None:
    # Four requests one after the other, the last one scored, then the step.
    assert simulate(EVEN).step_s == pytest.approx(4 * 2 + 1 + 5)


def test_with_staleness_the_slowest_stage_sets_the_pace() -> None:
    pace = simulate(replace(EVEN, staleness=1))
    assert pace.step_s == pytest.approx(8)
    assert pace.busy == {"generator": 1.0, "reward": 0.5, LEARNER: 0.625}


def test_scoring_may_be_the_slowest() -> None:
    slow = replace(EVEN, staleness=2, score_s={"reward": 3.0, "other": 0.1})
    slow = replace(slow, scorers={"reward": 1, "other": 1})
    assert simulate(slow).step_s == pytest.approx(12)


def test_more_generators_than_prompts_help_nothing() -> None:
    four, many = (simulate(replace(EVEN, generators=count)).step_s for count in (4, 400))
    assert four == many == pytest.approx(2 + 4 + 5)  # all come at once, and are scored in turn


def test_parts_of_a_prompt_use_more_generators_than_prompts() -> None:
    split = replace(EVEN, parts=2, generators=8)  # the candidates of a prompt on two workers
    assert simulate(split).step_s == pytest.approx(1 + 4 + 5)
    assert simulate(replace(split, generators=80)).step_s == pytest.approx(1 + 4 + 5)
    # Each group is scored once, when its last part is there.
    pace = simulate(replace(split, generators=1))
    assert pace.step_s == pytest.approx(4 * 2 + 1 + 5)
    assert pace.busy["reward"] == pytest.approx(4 / 14)


def test_a_straggler_holds_up_its_round() -> None:
    wide = replace(EVEN, generators=4, score_s={}, scorers={}, spread=0.5)
    assert simulate(replace(wide, spread=0.0)).step_s == pytest.approx(2 + 5)
    assert 2.3 + 5 < simulate(wide).step_s < 3 + 5


def test_offline_only_the_learner_works() -> None:
    assert simulate(replace(EVEN, generate_s=0.0, score_s={}, scorers={})).step_s == 5


def test_thousands_of_workers_take_seconds() -> None:
    started = time.process_time()
    simulate(replace(EVEN, per_round=2048, staleness=1, generators=4000))
    assert time.process_time() - started < 5
