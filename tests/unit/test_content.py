"""Files are known by their bytes; those of large ones are read again only when they may differ."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from videorl.files import content
from videorl.files.content import content_of, content_of_checkpoint, differences, file_digest

LARGE = b"weights " * 2**18
"""2 MiB."""


@pytest.fixture(autouse=True)
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read whole, with a cache and a clock of the test's own."""
    found: list[Path] = []
    original = content._hash

    def hashed(path: Path) -> str:
        found.append(path)
        return original(path)

    monkeypatch.setattr(content, "_hash", hashed)
    monkeypatch.setattr(content, "_SETTLED_S", -1.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def test_a_large_file_is_read_once_until_it_may_have_changed(
    tmp_path: Path, reads: list[Path]
) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(LARGE)
    first = file_digest(file)
    assert file_digest(file) == first and reads == [file]
    assert file_digest(file, fresh=True) == first and len(reads) == 2
    os.utime(file, (1, 1))
    assert file_digest(file) == first and len(reads) == 3
    moved = file.rename(tmp_path / "moved.pth")
    assert file_digest(moved) == first and len(reads) == 4


def test_a_changed_byte_is_seen_under_the_same_name_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(LARGE)
    before, first = file.stat(), file_digest(file)
    with file.open("r+b") as opened:
        opened.seek(2**20 + 1)
        opened.write(b"!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_digest(file) != first


def test_a_file_that_was_just_written_is_not_trusted(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_SETTLED_S", 60.0)
    file = tmp_path / "model.pth"
    file.write_bytes(LARGE)
    assert file_digest(file) == file_digest(file)
    assert len(reads) == 2


@pytest.mark.parametrize("harm", ["unwritable", "damaged"])
def test_without_a_usable_cache_files_are_read_each_time(
    harm: str, tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(LARGE)
    if harm == "unwritable":
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    first = file_digest(file)
    for kept in tmp_path.glob("cache/videorl/digests/*"):
        kept.write_bytes(b"\xff\xfe")
    assert file_digest(file) == first
    assert len(reads) == 2


def test_a_folder_is_its_files_wherever_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "vae").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "vae/weights.bin").write_bytes(b"weights")
    (folder / "vae/back").symlink_to("..")
    first = content_of(folder)
    assert set(first.parts) == {"config.json", "vae/weights.bin"}
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    for name in ("README.md", ".gitattributes", "a.lock"):
        (tmp_path / "copy" / name).write_text("not loaded")
    copied = content_of(tmp_path / "copy")
    assert differences(first, copied) == []
    (tmp_path / "copy/config.json").rename(tmp_path / "copy/model_config.json")
    (tmp_path / "copy/vae/weights.bin").write_bytes(b"others")
    assert differences(first, content_of(tmp_path / "copy")) == [
        "config.json is gone",
        "model_config.json is new",
        "vae/weights.bin differs",
    ]


def test_a_model_of_the_hub_is_known_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert content_of_checkpoint("owner/model", {}) is None
    head = tmp_path / "models--owner--model/refs/main"
    head.parent.mkdir(parents=True)
    head.write_text("abc\n")
    found = content_of_checkpoint("owner/model", {})
    assert found is not None and found.digest == "abc"
    assert content_of_checkpoint("no folder and no hub id", {}) is None
