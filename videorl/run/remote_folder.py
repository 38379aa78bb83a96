"""Folders in an object store, with a copy of what was used on this machine."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from videorl.errors import CheckpointError, ConfigError, StoreLostError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_WRONG = r"NO_SUCH_BUCKET|ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|no such bucket|forbidden"
"""What a store says where somebody has to change the URI or the credentials."""


class RemoteFolder:
    """Named folders of files below one URI; a folder counts once its last file is there.

    Args:
        uri: What `pyarrow.fs.FileSystem.from_uri` opens.

    Raises:
        ConfigError: pyarrow knows no such URI.
    """

    LAST = "state.json"
    """Uploaded last and deleted first."""

    def __init__(self, uri: str) -> None:
        from pyarrow.fs import FileSystem

        self._uri = uri.rstrip("/")
        try:
            self._files: FileSystem
            self._files, self._root = FileSystem.from_uri(self._uri)
        except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise ConfigError(
                f"checkpoint.location: cannot open {self._uri!r}: {error}; give a folder, or a "
                "URI such as s3://bucket/run or gs://bucket/run"
            ) from error
        # One for each process: ranks that restore together must not write into each other's.
        self.copy = Path(tempfile.mkdtemp(prefix="videorl-checkpoints-"))
        atexit.register(shutil.rmtree, self.copy, ignore_errors=True)

    def check_writable(self) -> None:
        """Write a small object and remove it.

        Raises:
            CheckpointError: That is not possible.
        """
        probe = f"{self._root}/.writable"
        with self._reaching():
            self._files.create_dir(self._root, recursive=True)
            with self._files.open_output_stream(probe) as stream:
                stream.write(b"0")
            self._files.delete_file(probe)

    def complete(self) -> list[str]:
        """Return the names of complete folders."""
        from pyarrow.fs import FileSelector

        with self._reaching():
            found = self._files.get_file_info(
                FileSelector(self._root, recursive=True, allow_not_found=True)
            )
        parts = [info.path.removeprefix(self._root).strip("/").split("/") for info in found]
        return sorted(part[0] for part in parts if len(part) == 2 and part[1] == self.LAST)

    def upload(self, folder: Path) -> None:
        """Copy a local folder under its own name; the local one is removed if that fails.

        Raises:
            CheckpointError: It could not be written.
        """
        try:
            self.withdraw(folder.name)
            self.add(folder, folder.name)
        except CheckpointError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def withdraw(self, name: str) -> None:
        """Make a folder incomplete, before any of its files is written."""
        with self._reaching():
            self._files.create_dir(f"{self._root}/{name}", recursive=True)
            self._remove_last(f"{self._root}/{name}")

    def add(self, folder: Path, name: str) -> None:
        """Copy the files of a local folder into the folder `name`; other files there stay."""
        target = f"{self._root}/{name}"
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        paths.sort(key=lambda path: path.name == self.LAST)
        with self._reaching():
            for path in paths:
                to = f"{target}/{path.relative_to(folder).as_posix()}"
                self._files.create_dir(to.rpartition("/")[0], recursive=True)
                with path.open("rb") as source, self._files.open_output_stream(to) as stream:
                    shutil.copyfileobj(source, stream, 16 * 2**20)

    def download(self, folder: Path) -> None:
        """Copy the remote folder of the same name to `folder`, unless it was written here."""
        from pyarrow.fs import LocalFileSystem, copy_files

        if (folder / self.LAST).exists():
            return
        with self._reaching():
            folder.mkdir(parents=True, exist_ok=True)
            copy_files(
                f"{self._root}/{folder.name}",
                str(folder),
                source_filesystem=self._files,
                destination_filesystem=LocalFileSystem(),
            )

    def delete(self, name: str) -> None:
        """Remove one folder."""
        with self._reaching():
            self._remove_last(f"{self._root}/{name}")
            self._files.delete_dir(f"{self._root}/{name}")

    def _remove_last(self, target: str) -> None:
        from pyarrow.fs import FileType

        if self._files.get_file_info(f"{target}/{self.LAST}").type != FileType.NotFound:
            self._files.delete_file(f"{target}/{self.LAST}")

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            is_wrong = isinstance(error, FileNotFoundError | PermissionError)
            is_wrong = is_wrong or re.search(_WRONG, str(error))
            kind = CheckpointError if is_wrong else StoreLostError
            raise kind(f"cannot use {self._uri}: {error}") from error
