"""`videorl plan`: what it prints, and its exit codes."""

from __future__ import annotations

import json

import pytest

from jobs import cli


@pytest.mark.slow
def test_json_has_what_scripts_read(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--memory-gb", "0.001", "--tflops", "1", "--json"]
    assert cli.main(["plan", "moving_shapes_dpo", *small]) == 1  # it fits nowhere
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


@pytest.mark.slow
def test_refl_is_planned_by_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    pieces = ["objective.checkpoint_decode=true", "learner.micro_batch_size=auto"]
    assert cli.main(["plan", "moving_shapes_refl", *pieces, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert set(plan["roles"]) == {"learner", "encoder"}
    learner = plan["roles"]["learner"]
    assert learner["host_gib"] > 0, "what pieces hand on"
    assert plan["learner_limit"] == "decoding"
    assert plan["micro_batch_size"] == 64, "so many fit"
    parts = plan["item_seconds"]
    assert set(parts) == {"sampling", "the policy", "decoding", "the reward"}
    assert learner["unit_seconds"] == pytest.approx(sum(parts.values()))
    assert plan["step_seconds"] == pytest.approx(8 * learner["unit_seconds"])
    assert plan["candidates_per_hour"] == pytest.approx(8 * 3600 / plan["step_seconds"])
    assert plan["not_counted"] == ["video_reward"]
    assert any("learner.num_workers=2" in each for each in plan["advice"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["moving_shapes", "--gpu", "h101"], "--gpu must be one of b200-180gb"),
        (["moving_shapes", "--gpus", "0"], "--gpus must be >= 1"),
        (
            ["moving_shapes", "generators.context_parallel=3"],
            "generators.context_parallel=3 must divide the 4 heads",
        ),
        (["moving_shapes", "policy.path=./nowhere"], "there is no folder"),
    ],
)
def test_what_cannot_be_planned(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", *words]) == 2
    assert said in capsys.readouterr().err
