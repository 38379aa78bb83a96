"""Work that is interrupted at random ends as if it had not been; see `tests/interruptions.py`.

Each kind of work once, at the same moments every time; `HYPOTHESIS_PROFILE=long` does it for ten
minutes each, at others.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.interruptions import WORKS, Interrupter, make_inputs, rounds

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def interrupter(tmp_path_factory: pytest.TempPathFactory) -> Interrupter:
    root = tmp_path_factory.mktemp("interruptions")
    seed = time.time_ns() if IS_LONG else 0
    return Interrupter(make_inputs(root / "in"), root / "out", seed)


@pytest.mark.parametrize("name", WORKS)
def test_the_same_command_again_gives_the_same_result(name: str, interrupter: Interrupter) -> None:
    for chosen in rounds([name], 600.0 if IS_LONG else 0.0):
        interrupter.check(chosen)
