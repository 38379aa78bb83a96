"""What every process of a run needs that writes to its store, on whatever node it is.

A process knows a run by its working copy, as a name: the folder is on the driver's node alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from videorl.errors import RunFolderError
from videorl.storage.copies import uri_of
from videorl.storage.lock import check_raised
from videorl.storage.place import Place, is_uri

_P = ParamSpec("_P")
_T = TypeVar("_T")
_CREDENTIALS = (
    (
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        (
            "AWS_PROFILE",
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        ),
    ),
    (
        (
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_CONNECTION_STRING",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_TENANT_ID",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
        ),
        ("AZURE_FEDERATED_TOKEN_FILE",),
    ),
)
"""What belongs together, and by what else a node has credentials, which is of no use elsewhere: a
node that has some of its own gets none of the driver's."""
_PLACES = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "VIDEORL_COPIES",  # where the next start looks for a checkpoint that a rank has kept
)

_flags: dict[Path, tuple[str, str]] = {}
"""Working copy -> URI of its run, and the name of the driver's flag there."""


@dataclass(frozen=True)
class StoreAccess:
    """What the driver hands to a process that writes checkpoints to a store.

    It travels as an argument: what is in a runtime environment, Ray's pages and logs show.
    """

    root: Path
    """The run's working copy, or its folder."""
    flag: tuple[str, str] | None
    """As in `_flags`; None = only the checkpoints are in a store, which has no lock."""
    variables: Mapping[str, str] = field(repr=False)

    def take(self) -> None:
        """Let this process have it. What its node sets itself stays as it is."""
        for together, own in _CREDENTIALS:
            if not any(name in os.environ for name in (*together, *own)):
                os.environ.update({k: v for k, v in self.variables.items() if k in together})
        for name in _PLACES:
            if name in self.variables:
                os.environ.setdefault(name, self.variables[name])
        raised(self.root, self.flag)


def taking(access: StoreAccess | None, make: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return `make`, which takes the access first, in the process where it is called."""
    return make if access is None else partial(_made_with, access, make)


def _made_with(
    access: StoreAccess, make: Callable[_P, _T], *args: _P.args, **named: _P.kwargs
) -> _T:
    access.take()
    return make(*args, **named)


def raised(root: Path, flag: tuple[str, str] | None) -> None:
    """Note under which flag a run is written to in this process; None = under none any more."""
    if flag is None:
        _flags.pop(root, None)
    else:
        _flags[root] = flag


def access(root: Path, location: str) -> StoreAccess | None:
    """Return what ranks of this run need; None = it has nothing in a store.

    Args:
        root: Its folder, or working copy.
        location: Of its checkpoints.
    """
    if uri_of(root) is None and not is_uri(location):
        return None
    names = {*_PLACES, *(name for together, _ in _CREDENTIALS for name in together)}
    found = {name: os.environ[name] for name in sorted(names) if name in os.environ}
    return StoreAccess(root, _flags.get(root), found)


def checker(root: Path) -> Callable[[], None]:
    """Return what sees that the run is still this driver's, in a store that it asks each time.

    It raises BusyError if another driver took the run over, StoreLostError if nobody answers.
    """
    return partial(_check, root)


def _check(root: Path) -> None:
    if root in _flags:
        uri, name = _flags[root]
        check_raised(Place(uri, "run_dir", RunFolderError), name)
