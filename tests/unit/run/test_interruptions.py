"""Work that is interrupted at random ends as if it had not been; see `tests/interruptions.py`.

Longer, and from other moments: `VIDEORL_FUZZ_S=600 VIDEORL_FUZZ_SEED=7`.
"""

from __future__ import annotations

import os

import pytest

from tests.interruptions import WORKS, Interrupter, make_inputs, rounds

SECONDS = float(os.environ.get("VIDEORL_FUZZ_S", "0"))
SEED = int(os.environ.get("VIDEORL_FUZZ_SEED", "0"))


@pytest.fixture(scope="module")
def interrupter(tmp_path_factory: pytest.TempPathFactory) -> Interrupter:
    root = tmp_path_factory.mktemp("interruptions")
    return Interrupter(make_inputs(root / "in"), root / "out", SEED)


@pytest.mark.parametrize("name", WORKS)
def test_the_same_command_again_gives_the_same_result(name: str, interrupter: Interrupter) -> None:
    for chosen in rounds([name], SECONDS or (10.0 if name == "scores" else 0.0)):
        interrupter.check(chosen)
