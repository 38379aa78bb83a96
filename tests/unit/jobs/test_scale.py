"""`videorl scale` with words that make no sense for the run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import scale
from videorl.errors import ConfigError, RunFolderError
from videorl.run.folder import RunFolder
from videorl.run.pool_sizes import PoolSize, PoolState, read_wishes, write_states


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    """A folder in which a driver writes the states of two pools."""
    folder, stop = RunFolder(tmp_path), threading.Event()
    folder.config.write_text("name: mine\n")
    size = PoolSize(1, 2)
    pools = {name: PoolState(size, size, 1, 0, 0, 0) for name in ("generator", "encoder")}

    def drive() -> None:
        beat = 0
        while not stop.wait(0.02):
            beat += 1
            write_states(folder, beat, pools)

    driver = threading.Thread(target=drive)
    driver.start()
    yield folder
    stop.set()
    driver.join()


def test_a_pool_that_is_not_there_is_refused_and_nothing_is_asked_for(run: RunFolder) -> None:
    before = sorted(path.name for path in run.root.iterdir() if path != run.pools)
    with pytest.raises(ConfigError, match="no pool 'generators'; there are: encoder, generator"):
        scale.main([str(run.root), "--pool", "generators", "--max", "4"])
    assert not read_wishes(run)
    assert not run.scale.exists()
    after = sorted(path.name for path in run.root.iterdir() if "pools.json" not in path.name)
    assert after == [name for name in before if "pools.json" not in name]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not the folder of a run"):
        scale.main([str(tmp_path), "--max", "4"])
    assert list(tmp_path.iterdir()) == []
