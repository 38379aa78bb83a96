"""A cluster of two nodes: what the doctor says of both, and what is left when one is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.ray.conftest import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What `tests.ray.lost_node` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.ray.lost_node"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_doctor_compares_all_nodes(found: dict[str, Any]) -> None:
    assert found["doctor"]["versions"] == ["ok", "2 nodes have the same Python and packages"]
    status, said = found["doctor"]["workers"]
    assert status == "broken" and "wanted, 5 CPUs and 0 GPUs there: " in said
    assert "no node is large enough for one worker of: learner" in said


def test_a_run_starts_on_nodes_of_its_own_version_only(found: dict[str, Any]) -> None:
    same, other = found["versions"]
    assert same == ""
    assert "videorl 0.1.0 on node" in other
    assert "but 0.0.1-other on the driver's" in other


def test_a_lost_node_takes_along_only_what_nobody_will_learn_from(found: dict[str, Any]) -> None:
    # The middle one of three is in no pair, so nobody copied it.
    assert found["kept"] == [0.0, "MediaLostError", 2.0]
    (first, one), (second, other) = found["resources"]
    assert first == second == "stays" and one != other, "the nodes take turns"
    assert found["torch"] == [False, False], "bytes are moved"
    assert found["too_late"] == "MediaLostError", "lost before the copy: to be sampled again"
