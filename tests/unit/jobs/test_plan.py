"""`videorl plan`: what it prints, and its exit codes."""

from __future__ import annotations

import json

import pytest

from jobs import cli

SMALL = ["moving_shapes", "objective.timesteps_per_pair=1"]


def test_json_has_what_scripts_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *SMALL, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {"learner", "generator", "moving_shapes", "encoder"} == set(plan["roles"])
    for role in plan["roles"].values():
        assert role["peak_gib"] >= 0
    assert plan["roles"]["generator"]["gpus"] == 2
    assert plan["micro_batch_size"] == 64
    assert plan["step_seconds"] > 0
    assert plan["candidates_per_hour"] == pytest.approx(32 * 3600 / plan["step_seconds"])
    assert plan["bottleneck"] in plan["roles"]
    assert plan["not_counted"] == ["moving_shapes"]


def test_what_does_not_fit_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["plan", *SMALL, "--memory-gb", "0.001", "--tflops", "1", "--gpus", "8"])
    text = capsys.readouterr().out
    assert code == 1
    assert "DOES NOT FIT: learner needs" in text
    assert "GiB are missing" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu", "h101"], "--gpu must be one of b200-180gb"),
        (["--gpus", "0"], "--gpus must be >= 1"),
        (["objective.name=refl"], "is not planned"),
    ],
)
def test_what_cannot_be_planned(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = "moving_shapes_refl" if "=" in options[0] else "moving_shapes"
    assert cli.main(["plan", recipe, *options]) == 2
    assert said in capsys.readouterr().err
