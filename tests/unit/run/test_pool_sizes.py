"""How `videorl scale` and a driver talk through the run folder."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from videorl.errors import ConfigError, RunFolderError
from videorl.files import write_text
from videorl.run.folder import RunFolder
from videorl.run.pool_sizes import (
    PoolSize,
    PoolState,
    next_states,
    read_states,
    read_wishes,
    resize,
    write_states,
)

RECIPE = PoolSize(1, 2)


def state(size: PoolSize) -> dict[str, PoolState]:
    return {"generator": PoolState(size, RECIPE, workers=1, starting=0, busy=1, queued=3)}


def test_states_read_as_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_states(folder) is None
    write_states(folder, 7, state(PoolSize(2, 4)))
    assert read_states(folder) == (7, state(PoolSize(2, 4)))


def test_a_wish_is_granted_by_a_driver_that_lives(tmp_path: Path) -> None:
    folder, stop = RunFolder(tmp_path), threading.Event()

    def drive() -> None:
        beat, size = 0, RECIPE
        while not stop.wait(0.05):
            if wish := read_wishes(folder).get("generator"):
                assert wish.recipe == RECIPE
                size = wish.size
            beat += 1
            write_states(folder, beat, state(size))

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        states = resize(folder, "generator", PoolSize(2, 8), timeout_s=30)
    finally:
        stop.set()
        driver.join()
    assert states["generator"].size == PoolSize(2, 8)


@pytest.mark.parametrize(("finished", "said"), [(True, "is finished"), (False, "no driver works")])
def test_nobody_answers_in_a_folder_without_a_driver(
    tmp_path: Path, finished: bool, said: str
) -> None:
    folder = RunFolder(tmp_path)
    write_states(folder, 7, state(RECIPE))  # left by a driver that is gone
    if finished:
        write_text(folder.summary, "{}")
    with pytest.raises(RunFolderError, match=said):
        next_states(folder, timeout_s=0.3)


@pytest.mark.parametrize(("low", "high"), [(3, 2), (0, 4), (0, 0)])
def test_impossible_sizes_are_refused(low: int, high: int) -> None:
    with pytest.raises(ConfigError, match=f"got min {low} and max {high}"):
        PoolSize(low, high)
