"""What other processes of a run get to write to its store, and that they stop in time."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from videorl.errors import BusyError, CheckpointError, ConfigError, RunFolderError
from videorl.run.checkpoints import CheckpointFolder
from videorl.storage.access import access, checker, raised, taking
from videorl.storage.copies import cache
from videorl.storage.lock import hold_place
from videorl.storage.place import Place, below
from videorl.storage.preparing import open_place


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def seen() -> list[str | None]:
    return [os.environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SESSION_TOKEN", "REGION")]


def test_a_rank_gets_the_credentials_of_the_driver_unless_its_node_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_SESSION_TOKEN": "t"}
    given(monkeypatch, **mine)
    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "copies"))
    assert access(tmp_path, "") is None, "nothing is in a store: nothing is handed on"
    found = access(tmp_path, "s3://bucket/checkpoints")
    assert found is not None and "hidden" not in repr(found)
    make = pickle.loads(pickle.dumps(taking(found, divmod)))

    given(monkeypatch)
    monkeypatch.delenv("VIDEORL_COPIES")
    assert make(7, 2) == (3, 1)
    assert cache() == tmp_path / "copies", "the next start looks there for what the rank kept"
    assert seen() == ["me", "t", None]
    given(monkeypatch, AWS_ACCESS_KEY_ID="the node's", AWS_REGION="there")
    make(7, 2)
    assert seen() == ["the node's", None, "there"], "no token of another key"


@pytest.mark.parametrize(
    "name", ["AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]
)
def test_a_node_with_a_profile_or_a_role_keeps_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys in variables would come before it, and a token of the driver's ends some day."""
    given(monkeypatch, AWS_ACCESS_KEY_ID="me", AWS_SECRET_ACCESS_KEY="hidden")
    found = access(tmp_path, "s3://bucket/checkpoints")
    given(monkeypatch)
    monkeypatch.setenv(name, "the node's")
    assert found is not None
    found.take()
    assert seen() == [None, None, None]


def put(folder: CheckpointFolder, step: int) -> None:
    partial = folder.begin(step)
    for name in ("optimizer.pt", "published.safetensors"):
        (partial / name).write_text(str(step))
    folder.commit(step, {"loop": {}})


def names(uri: str) -> set[str]:
    return {name for name in open_place(uri).list() if name.startswith("checkpoints")}


@pytest.mark.parametrize("is_late", [False, True])
def test_a_rank_of_a_driver_that_was_taken_over_finishes_no_checkpoint(
    is_late: bool, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other driver comes before the upload, or in the middle of it."""
    location, root = below(uri, "checkpoints"), tmp_path / "a"
    upload = Place.upload
    with hold_place(open_place(uri), root, beat_s=1000) as flag:
        raised(root, (uri, flag.name))
        folder = CheckpointFolder(location, keep=1, is_ours=checker(root))
        put(folder, 10)
        before = names(uri)
        taken = hold_place(open_place(uri), tmp_path / "b", take_over=True)

        def slow(self: Place, path: Path, name: str) -> object:
            taken.__enter__()
            return upload(self, path, name)

        if is_late:
            monkeypatch.setattr(Place, "upload", slow)
        else:
            taken.__enter__()
        with pytest.raises(CheckpointError, match=r"left as it is: .*another driver|was taken"):
            put(folder, 20)
        monkeypatch.setattr(Place, "upload", upload)
        assert folder.steps() == [10]
        for forbidden in (lambda: folder.remove_after(0), lambda: put(folder, 10)):
            with pytest.raises(CheckpointError, match="left as it is"):
                forbidden()
        left = {"checkpoints/step-000020/optimizer.pt"} if is_late else set[str]()
        assert names(uri) == before | left
        with pytest.raises(BusyError):
            checker(root)()
        taken.__exit__(None, None, None)
        raised(root, None)
    checker(root)()


def test_a_part_of_a_checkpoint_is_not_gone_on_with_either(tmp_path: Path) -> None:
    """The other driver may have a whole one of the same step by then."""
    asked: list[str] = []

    def is_ours() -> None:
        asked.append("")
        if len(asked) == 3:
            raise BusyError("another driver is working in it")

    uri = f"file://{tmp_path}/store"
    folder = CheckpointFolder(uri, keep=1, is_ours=is_ours)
    partial = folder.begin(10, in_parts=True)
    for name in ("rank0-0", "rank0-1"):
        (partial / name).write_text("slice")
    with pytest.raises(CheckpointError, match="left as it is"):
        folder.add_part(10, is_whole=False)
    assert list(open_place(uri).list()) == ["step-000010/rank0-0"]


@pytest.mark.parametrize("kind", [RunFolderError, ConfigError])
def test_a_checkpoint_is_kept_where_nobody_may_look_whose_the_run_is(
    kind: type[Exception], tmp_path: Path
) -> None:
    """A token has expired, for instance."""

    def is_ours() -> None:
        raise kind("cannot use s3://bucket/run: ACCESS_DENIED")

    uri = f"file://{tmp_path}/store"
    folder = CheckpointFolder(uri, keep=1, is_ours=is_ours)
    with pytest.raises(CheckpointError, match=r"left as it is: .*ACCESS_DENIED; it is kept in"):
        put(folder, 10)
    again = CheckpointFolder(uri, keep=1)
    again.bring_kept()
    assert again.steps() == [10]
