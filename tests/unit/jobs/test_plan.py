"""`videorl plan`: what it prints, and its exit codes."""

from __future__ import annotations

import json

import pytest

from jobs import cli


@pytest.mark.slow
def test_json_has_what_scripts_read(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--memory-gb", "0.001", "--tflops", "1", "--json"]
    assert cli.main(["plan", "moving_shapes", *small]) == 1  # it fits nowhere
    plan = json.loads(capsys.readouterr().out)
    assert {"learner", "generator", "moving_shapes", "encoder"} == set(plan["roles"])
    assert plan["roles"]["learner"]["peak_gib"] > 0.005
    assert plan["roles"]["generator"]["gpus"] == 2
    assert plan["micro_batch_size"] == 0
    assert plan["step_seconds"] > 0
    assert plan["candidates_per_hour"] == pytest.approx(32 * 3600 / plan["step_seconds"])
    assert plan["bottleneck"] in plan["roles"]
    assert plan["not_counted"] == ["moving_shapes"]
    assert plan["problems"][0].startswith("learner needs 1.9 GiB, custom has 0.0 usable")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["moving_shapes", "--gpu", "h101"], "--gpu must be one of b200-180gb"),
        (["moving_shapes", "--gpus", "0"], "--gpus must be >= 1"),
        (["moving_shapes_refl"], "is not planned"),
    ],
)
def test_what_cannot_be_planned(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", *words]) == 2
    assert said in capsys.readouterr().err
