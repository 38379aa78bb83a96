"""Checkpoints are whole or they do not exist."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from videorl.errors import CheckpointError, ConfigError, StoreLostError
from videorl.run.checkpoint_state import WORTH_KEEPING
from videorl.run.checkpoints import CheckpointFolder


def write(folder: CheckpointFolder, step: int, content: str = "weights") -> Path:
    partial = folder.begin(step)
    (partial / "engine").mkdir()
    (partial / "engine/rank0.pt").write_text(content)
    return folder.commit(step, {"loop": {"at": step}})


def test_what_was_committed_is_found(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "made/on/demand", keep=2)
    assert folder.latest() is None
    path = write(folder, 10)
    found = CheckpointFolder(tmp_path / "made/on/demand", keep=2).latest()
    assert found is not None
    assert found[0] == path
    assert found[1]["step"] == 10
    assert found[1]["loop"] == {"at": 10}
    assert (path / "engine/rank0.pt").read_text() == "weights"


def test_the_newest_stay_by_number_not_by_name(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (999_999, 1_000_000, 1_000_010):
        write(folder, step)
    assert folder.steps() == [1_000_000, 1_000_010]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1000000", "step-1000010"]


def test_a_half_written_checkpoint_does_not_exist(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    write(folder, 10)
    (folder.begin(20) / "engine.pt").write_text("half")
    found = folder.latest()
    assert found is not None
    assert found[1]["step"] == 10
    assert list(folder.begin(20).iterdir()) == [], "the next attempt starts empty"


def test_an_abandoned_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    write(folder, 10)
    folder.begin(20)
    folder.abandon(20)
    folder.abandon(30)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]


def test_a_step_written_again_replaces_the_first(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    write(folder, 10, "first")
    path = write(folder, 10, "second")
    assert (path / "engine/rank0.pt").read_text() == "second"
    assert folder.steps() == [10]


@pytest.mark.parametrize("on_cluster", [False, True])
def test_what_is_worth_keeping_stays_beside_the_newest(on_cluster: bool, tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=1, keep_every=20)

    def commit(step: int, *worth: int) -> list[int]:
        folder.begin(step)
        loop = {WORTH_KEEPING: worth}
        folder.commit(step, {"loop": {"command": 7, "loop": loop} if on_cluster else loop})
        return folder.steps()

    for step in (5, 10, 15):
        commit(step, 10)
    assert folder.steps() == [10, 15]
    assert commit(20, 10) == [10, 20]
    assert commit(25, 15) == [20, 25], "10 is worth it no more, and of 15 there is none"
    assert commit(30, 25) == [20, 25, 30]
    path, state = folder.at(25)
    assert (path.name, state["step"]) == ("step-000025", 25)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 10 in .*: 20, 25, 30"):
        folder.at(10)
    cut_state(path)
    with pytest.raises(CheckpointError, match=r"step-000025 cannot be read"):
        folder.at(25)


def remove_state(path: Path) -> None:
    (path / "state.json").unlink()


def cut_state(path: Path) -> None:
    (path / "state.json").write_text('{"format": 1, "st')


def remove_file(path: Path) -> None:
    (path / "engine/rank0.pt").unlink()


def cut_file(path: Path) -> None:
    (path / "engine/rank0.pt").write_text("wei")


def strange_state(path: Path) -> None:
    (path / "state.json").write_text("[]")


@pytest.mark.parametrize("damage", [remove_state, cut_state, remove_file, cut_file, strange_state])
def test_a_damaged_checkpoint_falls_back_with_a_warning(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    write(folder, 10)
    damage(write(folder, 20))
    with caplog.at_level(logging.WARNING):
        found = folder.latest()
    assert found is not None
    assert found[1]["step"] == 10
    assert "step-000020" in caplog.text


def test_only_damaged_checkpoints_are_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    cut_file(write(folder, 10))
    remove_state(write(folder, 20))
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read") as caught:
        folder.latest()
    assert "engine/rank0.pt has 3 of its 7 bytes" in str(caught.value)
    assert "step-000020" in str(caught.value)


def test_a_newer_format_is_refused_even_if_an_older_checkpoint_could_be_read(
    tmp_path: Path,
) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    write(folder, 10)
    state = write(folder, 20) / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"format": 2}))
    with pytest.raises(CheckpointError, match="format 2, this version reads up to 1"):
        folder.latest()


def test_other_things_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=1)
    for name in ("step-000010.bak", "step-by-step", "notes"):
        (tmp_path / name).mkdir()
    write(folder, 20)
    assert folder.steps() == [20]
    assert len(list(tmp_path.iterdir())) == 4


def remote(folder: Path, keep: int = 2) -> CheckpointFolder:
    """Return checkpoints behind a URI: the way of object stores, on a folder."""
    return CheckpointFolder(f"file://{folder}", keep)


def test_checkpoints_behind_a_uri_are_found_from_another_machine(tmp_path: Path) -> None:
    assert remote(tmp_path / "made/on/demand").latest() is None
    written = remote(tmp_path / "made/on/demand")
    for step in (10, 20, 30):
        write(written, step, f"weights {step}")
    found = remote(tmp_path / "made/on/demand").latest()
    assert found is not None
    path, state = found
    assert state["loop"] == {"at": 30}
    assert tmp_path not in path.parents
    assert (path / "engine/rank0.pt").read_text() == "weights 30"
    assert written.steps() == [20, 30]


def test_a_half_uploaded_checkpoint_does_not_exist(tmp_path: Path) -> None:
    written = remote(tmp_path)
    write(written, 10)
    write(written, 20)
    (tmp_path / "step-000020/state.json").unlink()
    found = remote(tmp_path).latest()
    assert found is not None
    assert found[1]["step"] == 10


def test_a_store_whose_names_climb_out_is_refused_on_restore() -> None:
    location = "memory://climbing/checkpoints"
    write(CheckpointFolder(location, keep=2), 10)
    files = fsspec.filesystem("memory").store
    stolen = "/climbing/checkpoints/step-000010/../../../.ssh/authorized_keys"
    files[stolen] = files["/climbing/checkpoints/step-000010/engine/rank0.pt"]
    with pytest.raises(CheckpointError, match=r"\.ssh/authorized_keys', a name that leaves"):
        CheckpointFolder(location, keep=2).latest()


def test_what_a_store_did_not_take_is_kept_and_brought_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "copies"))
    written = remote(tmp_path / "store")
    write(written, 10)
    assert written.steps() == [10]
    kept = {"loop": {"loop": {"kept_here": True}}}
    for step in (20, 30):
        written.begin(step)
        with pytest.raises(StoreLostError, match="it is kept in"):
            written.commit(step, kept)
    assert written.steps() == [10]
    remote(tmp_path / "store").bring_kept()
    assert written.steps() == [10, 20, 30]
    written.begin(40)
    with pytest.raises(StoreLostError):
        written.commit(40, kept)
    write(remote(tmp_path / "store"), 35)  # by another machine
    remote(tmp_path / "store").bring_kept()
    assert 40 not in written.steps()
    assert "has gone on since" in caplog.text


def test_a_place_out_of_reach_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot use file://"):
        write(remote(tmp_path / "file"), 10)
    with pytest.raises(ConfigError, match=r"checkpoint\.location: cannot open 'what://is/this'"):
        CheckpointFolder("what://is/this", keep=1)
