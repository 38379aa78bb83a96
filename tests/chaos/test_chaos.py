"""A node is killed on a cluster of several; all other faults: `python -m tests.chaos`.

Needs root and network namespaces, and is skipped without. Nothing here is judged by its duration:
what waits, waits for minutes (see `scenario`), so that a slow machine only takes longer.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.nodes import Nodes, why_not
from tests.chaos.scenario import Scenario, Stage
from tests.tiny import save_tiny_wan

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_NUM_STEPS = 9
"""Enough for one fault, which strikes after a step, and is over 4 steps later."""


@pytest.fixture
def nodes() -> Nodes:
    """Two nodes for work and a head; the names of clusters that run at once differ."""
    if reason := why_not():
        pytest.skip(reason)
    number = os.getpid() % 10000
    return Nodes(f"ch{number}", f"10.{100 + number // 100}.{number % 100}", count=3, cpus=4)


def test_a_run_survives_the_node_of_a_generator(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    checkpoint = save_tiny_wan(tmp_path / "tiny")
    with nodes.up():
        stage = Stage(nodes, tmp_path / "runs", tmp_path, checkpoint, _NUM_STEPS)
        stage.rehearse_alone(tmp_path)
        result = stage.perform(Scenario(0, "node of a generator", after_steps=1, delay_s=0.0))
        assert result.is_right, result
        stage.close()
