"""Checkpoints in an object store whose writers are cut off, or that is away for a while."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
import pytest

from videorl.config import CheckpointConfig
from videorl.errors import CheckpointError, StoreLostError
from videorl.run.checkpoints import CheckpointFolder
from videorl.run.published_weights import newest_weights
from videorl.storage.place import Place

KEPT = {"loop": {"loop": {"kept_here": True}}}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "copies"))
    return tmp_path / "store"


def opened(store: Path, keep: int = 2, keep_every: int = 0) -> CheckpointFolder:
    return CheckpointFolder(f"file://{store}", keep, keep_every)


def put(folder: Path, name: str, content: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def write(folder: CheckpointFolder, step: int) -> Path:
    put(folder.begin(step), "optimizer.pt", "whole")
    return folder.commit(step, {"loop": {"at": step}})


def keep(folder: CheckpointFolder, step: int) -> None:
    put(folder.begin(step), "optimizer.pt", "whole")
    with pytest.raises(StoreLostError, match="it is kept in"):
        folder.commit(step, KEPT)


def write_parts(ranks: list[CheckpointFolder], step: int, *, stored: bool = True) -> Path:
    """Write a checkpoint in slices as the ranks of a learner do."""
    first = ranks[0]
    first.begin(step, in_parts=True, stored=stored)
    parts = list[dict[str, int]]()
    for number, rank in enumerate(ranks):
        put(rank.partial(step), f"optimizer/shard-{number}-of-{len(ranks)}", f"{number}")
        parts.append(rank.add_part(step, is_whole=rank is first, stored=stored))
    return first.finish(step, {}, {"loop": {"at": step}} if stored else KEPT, parts)


def names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def test_what_an_earlier_attempt_left_of_a_step_is_not_part_of_the_next(store: Path) -> None:
    ranks = [opened(store) for _ in range(3)]
    write_parts(ranks, 10)
    (store / "step-000010/state.json").unlink()  # as if rank 0 had been killed before
    write_parts(ranks[:2], 10)
    shards = ["optimizer/shard-0-of-2", "optimizer/shard-1-of-2"]
    assert names(store / "step-000010") == [*shards, "state.json"]
    write(ranks[0], 10)
    found = opened(store).latest()
    assert found is not None
    assert names(found[0]) == ["optimizer.pt", "state.json"], "no slices: restore reads the whole"


def test_ranks_leave_no_slices_on_their_machines(store: Path) -> None:
    ranks = [opened(store) for _ in range(2)]
    for step in (10, 20):
        write_parts(ranks, step)
    assert names(ranks[1].partial(20).parent) == []


def test_the_machine_of_rank_0_has_a_copy_of_the_newest_only(store: Path) -> None:
    folder = opened(store, keep=1, keep_every=10)
    for step in (10, 20, 30):
        newest = write(folder, step)
    assert folder.steps() == [10, 20, 30]
    assert [path.name for path in newest.parent.iterdir()] == ["step-000030"]
    assert (folder.at(10)[0] / "optimizer.pt").read_text() == "whole"


@pytest.mark.parametrize("is_remote", [True, False])
def test_what_is_left_of_unfinished_steps_goes_with_the_next_checkpoint(
    is_remote: bool, store: Path
) -> None:
    folder = opened(store) if is_remote else CheckpointFolder(store, 2)
    left = "step-000010" if is_remote else "step-000010.partial"
    put(store, f"{left}/optimizer/shard-1", "large")
    put(store, "notes/mine.txt", "of somebody")
    write(folder, 20)
    assert sorted(path.name for path in store.iterdir()) == ["notes", "step-000020"]


def test_a_download_that_was_cut_off_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    location = "memory://cut/checkpoints"
    written = CheckpointFolder(location, 2)
    put(written.begin(10), "training.pt", "weights")  # listed after state.json
    written.commit(10, {"loop": {}})
    folder, download = CheckpointFolder(location, 2), Place.download

    def cut(self: Place, name: str, path: Path) -> None:
        if name.endswith("training.pt"):
            raise StoreLostError("away")
        download(self, name, path)

    monkeypatch.setattr(Place, "download", cut)
    with pytest.raises(StoreLostError):
        folder.latest()
    monkeypatch.setattr(Place, "download", download)
    found = folder.latest()
    assert found is not None
    assert (found[0] / "training.pt").read_text() == "weights"
    fsspec.filesystem("memory").rm("/cut", recursive=True)


def test_a_kept_checkpoint_that_names_files_elsewhere_is_refused(store: Path) -> None:
    """What it names is read here and stored."""
    folder = opened(store)
    write(folder, 10)
    keep(folder, 20)
    (kept,) = (store.parent / "copies").rglob("step-000020/state.json")
    state = json.loads(kept.read_text())
    kept.write_text(json.dumps({**state, "files": {"../../../secret": 6}}))
    with pytest.raises(CheckpointError, match=r"names '\.\./\.\./\.\./secret', a file outside"):
        opened(store).bring_kept()


def test_what_is_kept_after_an_older_one_was_overtaken_is_brought(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = opened(store)
    write(folder, 10)
    keep(folder, 20)
    write(folder, 30)  # the store is back
    keep(folder, 40)
    opened(store).bring_kept()
    assert folder.steps() == [10, 30, 40]
    assert "could not be stored then are in" in caplog.text


def test_what_was_overtaken_is_moved_aside_once(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = opened(store)
    keep(folder, 20)
    write(folder, 30)
    opened(store).bring_kept()
    assert "has gone on since" in caplog.text
    caplog.clear()
    opened(store).bring_kept()
    assert not caplog.records
    assert folder.steps() == [30]


def test_bringing_that_was_cut_off_goes_on(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, upload = opened(store, keep=9), Place.upload
    write(folder, 10)
    for step in (20, 30):
        keep(folder, step)

    def cut(self: Place, path: Path, name: str) -> os.stat_result:
        if name.startswith("step-000030"):
            raise StoreLostError("away")
        return upload(self, path, name)

    monkeypatch.setattr(Place, "upload", cut)
    with pytest.raises(StoreLostError):
        opened(store).bring_kept()
    monkeypatch.setattr(Place, "upload", upload)
    opened(store).bring_kept()
    assert folder.steps() == [10, 20, 30]


def test_a_rollback_forgets_what_is_kept_of_later_steps(store: Path) -> None:
    folder = opened(store)
    write(folder, 10)
    keep(folder, 20)
    folder.remove_after(10)
    opened(store).bring_kept()
    assert folder.steps() == [10]


def test_a_rollback_that_cannot_remove_a_checkpoint_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path / "here", 2)
    for step in (10, 20):
        write(folder, step)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(PermissionError):
        folder.remove_after(10)


def test_slices_of_ranks_on_this_machine_are_kept_together(store: Path) -> None:
    ranks = [opened(store) for _ in range(2)]
    write_parts(ranks, 10)
    with pytest.raises(StoreLostError, match="it is kept in"):
        write_parts(ranks, 20, stored=False)
    assert names(store / "step-000020") == [], "the store is away: nothing was tried there"
    (left,) = (store.parent / "copies").rglob("step-000020/optimizer")
    put(left, "shard-2-of-3", "kept by an earlier attempt")
    opened(store).bring_kept()
    found = opened(store).latest()
    assert found is not None
    assert found[1]["step"] == 20
    shards = ["optimizer/shard-0-of-2", "optimizer/shard-1-of-2"]
    assert names(found[0]) == [*shards, "state.json"]


def test_slices_that_another_machine_kept_are_not_brought_without_it(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Elsewhere(CheckpointFolder):
        def add_part(self, step: int, *, is_whole: bool, stored: bool = True) -> dict[str, int]:
            with monkeypatch.context() as there:
                there.setenv("VIDEORL_COPIES", str(store.with_name("another machine")))
                return super().add_part(step, is_whole=is_whole, stored=stored)

    ranks = [opened(store), Elsewhere(f"file://{store}", 2)]
    write_parts(ranks, 10)
    with pytest.raises(StoreLostError):
        write_parts(ranks, 20, stored=False)
    opened(store).bring_kept()
    assert opened(store).steps() == [10]
    assert "step-000020 has no optimizer/shard-1-of-2, which another machine wrote" in caplog.text


def test_weights_of_another_run_are_not_taken_for_those_of_a_run_that_was_moved(
    store: Path, tmp_path: Path
) -> None:
    """As after --from-scratch: the old run's recipe names the place that the new one has."""
    put(tmp_path / "run.old", "checkpoint.json", '{"run": "old", "step": 10}')
    config = CheckpointConfig(location=f"file://{store}")
    state = {"published": {"10": "digest"}}
    opened(store).write(10, {"published-10": {}}, {"loop": {"run": "old"}, **state})
    assert newest_weights(config, tmp_path / "run.old")[0].step == 10
    loop = {"command": 3, "loop": {"run": "new"}}
    opened(store).write(10, {"published-10": {}}, {"loop": loop, **state})
    with pytest.raises(CheckpointError, match=r"of another run than .*run\.old"):
        newest_weights(config, tmp_path / "run.old")
