"""Files below a URI, through pyarrow, or through fsspec for what pyarrow does not know."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit

from videorl.errors import ConfigError, StoreLostError
from videorl.storage.patience import patiently

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

_P = ParamSpec("_P")
_T = TypeVar("_T")
_WRONG = re.compile(
    # Amazon's, as its SDK and the servers that speak its protocol name them
    r"no.?such.?bucket|bucket '' not found|access.?denied|invalid.?access.?key|signature|forbidden"
    r"|expired.?token|token has expired|invalid.?(client.?)?token|unrecognized.?client"
    r"|missing.?authentication|permanent.?redirect"
    # Google's
    r"|permission.?denied|unauthenticated"
    # Azure's
    r"|authentication.?failed|failed to authenticate|authorization.?(failure|permission)"
    r"|not authorized to perform|container.?not.?found",
    re.IGNORECASE,
)
"""What a store says where somebody has to change the URI or the credentials."""
_QUOTED = re.compile(r"'[^']*'")
"""Names of buckets and files in what it says."""
_BLOCK = 16 * 2**20


def is_uri(place: str | Path) -> bool:
    """Tell whether a place is a URI and no path."""
    return "://" in str(place)


def below(uri: str, name: str) -> str:
    """Return the URI of something below another one, whose query (`?endpoint_override=…`) stays."""
    start, mark, query = uri.partition("?")
    return f"{start.rstrip('/')}/{name}{mark}{query}"


def name_of(uri: str) -> str:
    """Return the last part of a URI's path."""
    return uri.partition("?")[0].rstrip("/").rpartition("/")[2]


def is_safe(name: str) -> bool:
    """Tell whether a relative name stays below the folder that it is joined to."""
    parts = name.split("/")
    return "\\" not in name and "\0" not in name and not {"", ".", ".."} & set(parts)


@dataclass(frozen=True)
class Stored:
    """What a store tells of a file; equal = not changed, as far as it can tell."""

    size: int
    mtime_ns: int
    """Of full seconds in S3."""


def _patient(method: Callable[Concatenate[Place, _P], _T]) -> Callable[Concatenate[Place, _P], _T]:
    """Have a method try again as long as its place has patience."""

    @wraps(method)
    def waiting(self: Place, *args: _P.args, **named: _P.kwargs) -> _T:
        do = partial(method, self, *args, **named)
        return patiently(do, self.patience_s, self.uri)

    return waiting


class Place:
    """Named files below one URI.

    Args:
        uri: Such as `s3://bucket/run`, with the credentials of the environment.
        setting: That names it, for messages.
        wrong: The error of what somebody has to mend: no such bucket, no permission.
        patience_s: How long each call waits for a store that does not answer.

    Raises:
        ConfigError: Nobody knows such a URI, or there are credentials in it.
        StoreLostError: The store does not answer.
    """

    def __init__(
        self,
        uri: str,
        setting: str,
        wrong: Callable[[str], Exception],
        patience_s: float = 0.0,
    ) -> None:
        self.uri = uri
        self._setting, self._wrong, self.patience_s = setting, wrong, patience_s
        parts = urlsplit(uri)
        if parts.password is not None:
            raise ConfigError(
                f"{setting}: {parts.scheme}://…@{parts.hostname}{parts.path} has credentials, "
                "which would be written into the run: set them in the environment "
                "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or a profile)"
            )
        _check_parts(parts.path, uri, setting)
        self.files, self.root = patiently(lambda: _open(uri, setting), patience_s, uri)
        _check_parts(self.root, uri, setting)  # also if it was written with %2e

    def with_patience(self, patience_s: float) -> Place:
        """Return the same place with another patience."""
        other = copy.copy(self)
        other.patience_s = patience_s
        return other

    @property
    def local(self) -> Path | None:
        """Where the files are on this machine; None = they are elsewhere."""
        return Path(self.root) if self.files.type_name == "local" else None

    def check_writable(self) -> None:
        """Write a small file and remove it.

        Raises:
            StoreLostError: The store does not answer, or has no room.
            Exception: `wrong`, as below: it can be written to only once somebody changes something.
        """
        name = f".writable-{os.getpid()}"
        self.write(name, b"0")
        self.delete(name)

    @_patient
    def list(self, folder: str = "") -> dict[str, Stored]:
        """Return name below the URI -> what is told of it, of all files at any depth.

        Raises:
            StoreLostError: The store does not answer.
            Exception: A name would climb out of the folder that it is copied to.
        """
        from pyarrow.fs import FileSelector, FileType

        with self.reaching():
            found = self.files.get_file_info(
                FileSelector(self._path(folder), recursive=True, allow_not_found=True)
            )
        files: dict[str, Stored] = {}
        start = self.root.rstrip("/") + "/"
        for info in found:
            if info.type != FileType.File:
                continue
            name = info.path.removeprefix(start)
            if name.endswith(".partial"):
                continue  # left by a writer that was killed
            if not is_safe(name):
                raise self._wrong(
                    f"{self._setting}: {self.uri} holds {name!r}, a name that leaves its folder: "
                    "no run wrote it; remove it"
                )
            files[name] = Stored(info.size or 0, info.mtime_ns or 0)
        return files

    @_patient
    def stat(self, name: str) -> Stored | None:
        """Return what is told of a file; None = there is none."""
        from pyarrow.fs import FileType

        with self.reaching():
            info = self.files.get_file_info(self._path(name))
        return Stored(info.size or 0, info.mtime_ns or 0) if info.type == FileType.File else None

    @_patient
    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        with self.reaching(), self.files.open_input_stream(self._path(name)) as stream:
            return stream.read()

    @_patient
    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with self._writing(name) as path, self.files.open_output_stream(path) as stream:
            stream.write(content)

    @_patient
    def upload(self, path: Path, name: str) -> os.stat_result:
        """Copy a local file, as it is when this begins; return what the system told of it then.

        Raises:
            FileNotFoundError: It is gone.
            StoreLostError: It could not be stored now.
        """
        with path.open("rb") as source:
            known = os.fstat(source.fileno())
            left = known.st_size
            with self._writing(name) as target, self.files.open_output_stream(target) as stream:
                # No more than that: what is appended meanwhile comes the next time.
                while left > 0 and (block := source.read(min(left, _BLOCK))):
                    stream.write(block)
                    left -= len(block)
        return known

    @_patient
    def download(self, name: str, path: Path) -> None:
        """Copy a file to `path`, which appears when it is whole.

        Raises:
            OSError: It cannot be written here, on a full disk for instance.
        """
        partial = path.with_name(f".{path.name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.reaching():
            stream = self.files.open_input_stream(self._path(name))
        try:
            with stream, partial.open("wb") as target:
                while block := self._block(stream):
                    target.write(block)
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise

    def _block(self, stream: NativeFile) -> bytes:
        # What the disk says is no word of the store: neither lost nor wrong.
        with self.reaching():
            return stream.read(_BLOCK)

    @_patient
    def copy(self, name: str, other: Place) -> None:
        """Copy a file to the same name below another URI of the same store."""
        with other._writing(name) as path:
            self.files.copy_file(self._path(name), path)

    @_patient
    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        from pyarrow.fs import FileType

        with self.reaching():
            if self.files.get_file_info(self._path(name)).type != FileType.NotFound:
                self.files.delete_file(self._path(name))

    @_patient
    def delete_folder(self, name: str) -> None:
        """Remove all that is in a folder."""
        with self.reaching():
            self.files.delete_dir(self._path(name))

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Say what is wrong where the store refuses or does not answer.

        Raises:
            StoreLostError: It may pass.
            Exception: `wrong`, of what somebody must change.
        """
        try:
            yield
        except OSError as error:
            is_wrong = isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError)
            kind = self._wrong if is_wrong or _is_refused(error) else StoreLostError
            raise kind(f"cannot use {self.uri}: {error}") from error

    def _path(self, name: str) -> str:
        """Return the path of a file or folder below the URI, of a name that stays there."""
        if name and not is_safe(name):
            raise self._wrong(
                f"{self._setting}: {self.uri} has no {name!r}: the name leaves its folder"
            )
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    @contextmanager
    def _writing(self, name: str) -> Iterator[str]:
        """Yield the path to write a file to, which is seen once it is whole.

        An object of S3 or GCS is so by itself; folders would be empty objects there.
        """
        path = self._path(name)
        folder, _, last = path.rpartition("/")
        with self.reaching():
            if self.files.type_name in ("s3", "gcs"):
                yield path
                return
            self.files.create_dir(folder, recursive=True)
            if self.files.type_name != "local":
                yield path
                return
            partial = f"{folder}/.{last}.partial"
            yield partial
            self.files.move(partial, path)


def _check_parts(path: str, uri: str, setting: str) -> None:
    """Refuse what would be another folder than it seems, here and in the store."""
    if {".", ".."} & set(path.split("/")):
        raise ConfigError(f"{setting}: {uri!r} has a part `.` or `..`: give the URI without it")


def _is_refused(error: OSError) -> bool:
    """Tell whether a store would say the same again, until somebody changes something."""
    return _WRONG.search(_QUOTED.sub("''", str(error))) is not None


def _open(uri: str, setting: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        return FileSystem.from_uri(uri)
    except OSError as error:  # S3 is asked where the bucket is
        if _is_refused(error):
            raise _unknown(uri, setting, error) from error
        raise StoreLostError(f"{setting}: cannot reach {uri}: {error}") from error
    except ValueError as error:  # as pyarrow's ArrowInvalid is
        import fsspec

        if uri.partition("://")[0] in ("file", "s3", "gs"):
            raise _unknown(uri, setting, error) from error
        try:
            files, root = fsspec.core.url_to_fs(uri)
        except (ValueError, ImportError, OSError):
            raise _unknown(uri, setting, error) from error
        return PyFileSystem(FSSpecHandler(files)), root


def _unknown(uri: str, setting: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{setting}: cannot open {uri!r}: {error}; give a folder, or a URI such as "
        "s3://bucket/run or gs://bucket/run"
    )
