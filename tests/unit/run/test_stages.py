"""What a run says of its stages, and where its time went."""

from __future__ import annotations

import pytest

from videorl.run.stages import Stages, stage_table


def test_a_stage_is_said_as_it_begins_and_its_time_ends_with_the_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = iter([0.0, 0.25, 5.0, 65.0, 66.0])
    stages = Stages(lambda: next(times))
    stages.begin("starting Ray")
    assert capsys.readouterr().err == "[0 s] starting Ray\n"
    stages.begin("training", 60, "step")
    stages.begin("evaluating", 1, "video")
    assert capsys.readouterr().err == "[5 s] training: 60 steps\n[1 min 05 s] evaluating: 1 video\n"
    assert stages.over() == [
        {"name": "starting Ray", "seconds": 4.75, "count": 0, "unit": ""},
        {"name": "training", "seconds": 60.0, "count": 60, "unit": "step"},
    ]


def test_the_table_has_shares_and_the_time_of_a_unit() -> None:
    stages = [
        {"name": "starting Ray", "seconds": 20.0, "count": 0, "unit": ""},
        {"name": "training", "seconds": 180.0, "count": 60, "unit": "step"},
    ]
    assert stage_table(stages).splitlines() == [
        "where the time went",
        "starting Ray        20 s    10%",
        "training      3 min 00 s    90%  3 s per step (60)",
        "altogether    3 min 20 s",
    ]
