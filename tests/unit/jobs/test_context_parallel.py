"""Ranks that share videos do what one process does: `tests.unit.jobs.context_ranks` runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
CASES = ("wan_lora", "wan_full", "rotary_lora", "absolute_full", "ltx_video_lora", "wan_ring")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ranks")
    program = [sys.executable, "-m", "tests.unit.jobs.context_ranks", str(folder)]
    ran = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("degree", ["2", "4"])
@pytest.mark.parametrize("case", CASES)
def test_samples_loss_and_gradient_are_those_of_one_process(
    case: str, degree: str, found: dict[str, Any]
) -> None:
    numbers = found[case][degree]
    assert numbers["samples"] < 1e-6
    assert numbers["loss"] < 1e-5
    assert numbers["gradient"] < 1e-5


@pytest.mark.parametrize("degree", ["2", "4"])
def test_a_learner_takes_the_steps_of_one_process(degree: str, found: dict[str, Any]) -> None:
    learner = found["learner"][degree]
    for one, expected in zip(learner["metrics"], learner["expected"], strict=True):
        assert one.keys() == expected.keys()
        for name in one.keys() - {"time/learn_s", "time/publish_s"}:
            assert one[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name
    assert learner["expected"][1]["learn/loss"] != learner["expected"][0]["learn/loss"]
    assert learner["weights"] < 1e-6, "two steps of AdamW are as large as 2e-5"


def test_a_ring_without_its_kernel_is_refused(found: dict[str, Any]) -> None:
    assert found["refused"].startswith(
        "policy.context_parallel=ring cannot be computed with policy.attention_backend="
        "_native_flash on cpu here (NotImplementedError: Could not run"
    )
    assert found["refused"].endswith("take another back end, or policy.context_parallel=ulysses")
