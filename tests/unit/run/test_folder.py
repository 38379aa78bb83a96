"""Who may work in a run folder."""

from __future__ import annotations

import itertools
import json
import threading
import time
from errno import ENOSPC
from pathlib import Path

import pytest

from videorl.config import Recipe
from videorl.errors import ConfigError, RunFolderError
from videorl.files import write_text
from videorl.recipes.reading import load_recipe
from videorl.run.folder import open_run
from videorl.run.lock import hold


def recipe(folder: Path, *overrides: str) -> Recipe:
    return load_recipe("moving_shapes", [f"run_dir={folder}", *overrides])


def test_a_folder_is_reopened_by_its_recipe_whatever_its_length_and_sizes(tmp_path: Path) -> None:
    with open_run(recipe(tmp_path / "run")) as folder:
        assert folder.root == tmp_path / "run"
    longer = recipe(tmp_path / "run", "num_steps=99", "generators.max_workers=7")
    with open_run(longer) as folder:
        assert "num_steps: 99" in folder.config.read_text()


def test_a_folder_of_another_recipe_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    with open_run(recipe(tmp_path)) as folder:
        before = folder.config.read_text()
    other = recipe(tmp_path, "objective.beta=7", "seed=5")
    with (
        pytest.raises(RunFolderError, match=r"objective.beta: [\d.]+ -> 7.0; seed: 0 -> 5"),
        open_run(other),
    ):
        pass
    assert folder.config.read_text() == before


def test_two_drivers_cannot_share_a_folder(tmp_path: Path) -> None:
    with (
        open_run(recipe(tmp_path)),
        pytest.raises(RunFolderError, match="another driver is working in"),
        open_run(recipe(tmp_path)),
    ):
        pass
    with open_run(recipe(tmp_path)):
        pass


def test_a_folder_in_use_on_another_machine_is_refused_even_if_the_lock_is_free(
    tmp_path: Path,
) -> None:
    died = threading.Event()

    def live() -> None:
        for beat in itertools.count():
            other = {"machine": "another", "host": "node-7", "pid": 12, "beat": beat}
            write_text(tmp_path / ".driver", json.dumps(other))
            if died.wait(0.05):
                return

    beats = threading.Thread(target=live)
    beats.start()
    while not (tmp_path / ".driver").exists():
        time.sleep(0.01)
    wanted = r"another driver is working in .* \(process 12 on node-7"
    with (
        pytest.raises(RunFolderError, match=wanted),
        hold(tmp_path, patience_s=30.0),
    ):
        pass
    died.set()
    beats.join()
    with hold(tmp_path, patience_s=0.2):
        assert "node-7" not in (tmp_path / ".driver").read_text(), "it gave no sign of life"
    assert not (tmp_path / ".driver").exists()


def test_a_holder_gives_signs_of_life_and_a_killed_one_of_this_machine_costs_no_wait(
    tmp_path: Path,
) -> None:
    with hold(tmp_path, beat_s=0.01):
        end = time.monotonic() + 180
        while json.loads((tmp_path / ".driver").read_text())["beat"] < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        left = (tmp_path / ".driver").read_text()
    write_text(tmp_path / ".driver", left)
    with hold(tmp_path, patience_s=1e6):
        pass


@pytest.mark.parametrize("place", ["file/run", "/proc/none/run"])
def test_a_place_that_cannot_be_written_is_said_so(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("kept")
    with (
        pytest.raises(RunFolderError, match=r"cannot write into the run folder .*; set run_dir"),
        open_run(recipe(tmp_path / place)),
    ):
        pass
    assert (tmp_path / "file").read_text() == "kept"


def test_a_uri_that_nobody_knows_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = recipe(tmp_path)
    chosen.run_dir = "what://bucket/run"
    with pytest.raises(ConfigError, match="run_dir: cannot open 'what://bucket/run'"):
        open_run(chosen).__enter__()
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder/config.yaml"
    write_text(path, "first")
    write_text(path, "second")
    assert path.read_text() == "second"
    assert [one.name for one in path.parent.iterdir()] == ["config.yaml"]


def test_a_disk_that_becomes_full_is_said_so_and_other_errors_stay(tmp_path: Path) -> None:
    full = OSError(ENOSPC, "No space left on device", "metrics.jsonl")
    match = r"a disk is full \(.*metrics.jsonl.*make room and start the same command again"
    with pytest.raises(RunFolderError, match=match), open_run(recipe(tmp_path / "run")):
        raise full
    with pytest.raises(PermissionError), open_run(recipe(tmp_path / "run")):
        raise PermissionError("not yours")
