"""The Hugging Face hub: ids with a revision, their commits, their files, and clear refusals.

A revision is part of the id, `owner/name@revision`, so that whatever takes an id takes a revision
too: settings, options of reward models and the command line.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from videorl.errors import CheckpointError

logger = logging.getLogger(__name__)

_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?P<file>/[\w./ -]+)?(@(?P<revision>[\w./+-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 30.0
"""How long the hub may take to say which commit a revision is."""


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository of the hub, a file of it perhaps, and a revision."""

    repository: str
    """`owner/name`."""
    revision: str | None = None
    """Branch, tag or commit; None = the main branch."""
    file: str = ""

    def __str__(self) -> str:
        """Return what `parse` reads."""
        file = f"/{self.file}" if self.file else ""
        return f"{self.repository}{file}" + (f"@{self.revision}" if self.revision else "")

    @property
    def is_commit(self) -> bool:
        """Whether the revision is one that cannot move."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    @property
    def cache(self) -> Path:
        """Where the hub's library keeps it."""
        from huggingface_hub.constants import HF_HUB_CACHE

        return Path(HF_HUB_CACHE) / f"models--{self.repository.replace('/', '--')}"


def local_path(text: str | os.PathLike[str]) -> Path:
    """Return the path that a setting means: `~` and `$NAME` stand for what they do in a shell."""
    return Path(os.path.expanduser(os.path.expandvars(text)))


def parse(text: str) -> HubId | None:
    """Return the hub id that `owner/name[/file][@revision]` is; None if it is none."""
    match = _ID.fullmatch(text)
    if match is None:
        return None
    return HubId(match["repository"], match["revision"], (match["file"] or "").lstrip("/"))


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE asks to read only what was downloaded before."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def cached_commit(name: HubId) -> str | None:
    """Return the commit that was downloaded last for a revision; None if there is none here."""
    if name.is_commit:
        return name.revision if (name.cache / "snapshots" / str(name.revision)).is_dir() else None
    ref = name.cache / "refs" / (name.revision or "main")
    return ref.read_text().strip() if ref.is_file() else None


def remember(name: HubId, commit: str) -> None:
    """Note that this commit is what a branch, a tag or the main branch was, for `cached_commit`.

    The hub's library does so only for what it is asked for by another name than its commit.
    """
    if not name.is_commit:
        ref = name.cache / "refs" / (name.revision or "main")
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)


def resolved(name: HubId, where: str) -> HubId:
    """Return the id with the commit that its revision is now, or offline was when downloaded.

    A commit that is not on this machine is asked for too; a hub that does not answer is no error
    then, as other nodes may have it.

    Args:
        name: The id.
        where: The setting that names it, for errors.

    Raises:
        CheckpointError: The hub does not know the repository or the revision, does not let this
            user read it, or does not answer.
    """
    if name.is_commit and (is_offline() or cached_commit(name) is not None):
        return name
    commit = cached_commit(name) if is_offline() else _asked(name, where)
    if commit is None:
        raise _not_here(name, where)
    found = HubId(name.repository, commit, name.file)
    if cached_commit(found) is not None:
        remember(name, commit)
    return found


def file_sizes(name: HubId, where: str) -> dict[str, int]:
    """Return the bytes of every file of a repository, by name; the hub is asked.

    Raises:
        CheckpointError: As `resolved`.
    """
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(
            name.repository, revision=name.revision, timeout=_TIMEOUT_S, files_metadata=True
        )
    except _errors() as error:
        raise refusal(error, name, where) from error
    return {sibling.rfilename: sibling.size or 0 for sibling in found.siblings or ()}


def file_names(name: HubId, where: str) -> Collection[str]:
    """Return the names of all files of a repository; offline, of those downloaded before.

    Raises:
        CheckpointError: As `resolved`.
    """
    if is_offline():
        return _cached_names(name, where)
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(name.repository, revision=name.revision, timeout=_TIMEOUT_S)
    except _errors() as error:
        if _is_unreachable(error) and cached_commit(name) is not None:
            return _cached_names(name, where)
        raise refusal(error, name, where) from error
    return [sibling.rfilename for sibling in found.siblings or ()]


def read_json(name: HubId, file: str, where: str) -> dict[str, Any]:
    """Download one small JSON file and return what it holds.

    Raises:
        CheckpointError: As `resolved`; or it is not there or holds no JSON object.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(name.repository, file, revision=name.revision)
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except _errors() as error:
        raise refusal(error, name, where) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: {file} of {name} holds no JSON object")
    return cast("dict[str, Any]", content)


def tensor_types(name: HubId, file: str, where: str) -> set[str]:
    """Return the types of the tensors of a safetensors file, as it names them.

    Only the header is read. A file that is here already is not asked for: empty then.

    Raises:
        CheckpointError: As `resolved`; or it is no safetensors file.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import SafetensorsParsingError

    if is_offline() or try_to_load_from_cache(name.repository, file, revision=name.revision):
        return set()
    try:
        found = HfApi().parse_safetensors_file_metadata(
            name.repository, file, revision=name.revision
        )
    except SafetensorsParsingError as error:
        raise CheckpointError(
            f"{where}: {file} of {name} is no safetensors file: {error}"
        ) from error
    except _errors() as error:
        raise refusal(error, name, where) from error
    return {tensor.dtype for tensor in found.tensors.values()}


def download(name: HubId, patterns: Sequence[str] | None, where: str) -> Path:
    """Download the files that match; what is in the cache already is not downloaded again.

    Args:
        name: The id.
        patterns: Globs of the files; None = all.
        where: The setting that names it, for errors.

    Returns:
        The folder with the files.

    Raises:
        CheckpointError: As `resolved`.
    """
    from huggingface_hub import snapshot_download

    wanted = None if patterns is None else list(patterns)
    try:
        return Path(
            snapshot_download(name.repository, revision=name.revision, allow_patterns=wanted)
        )
    except _errors() as error:
        raise refusal(error, name, where) from error


def refusal(error: Exception, name: HubId, where: str) -> CheckpointError:
    """Return the error that says why the hub did not give something, and what to do."""
    from huggingface_hub import errors

    if is_offline():
        return _not_here(name, where)
    cause = _answer(error)
    status = _status(cause)
    if isinstance(cause, errors.GatedRepoError) or status == 403:
        what = (
            f"{name} is gated, and this user may not read it: ask for access on its page, "
            "huggingface.co, and set HF_TOKEN on every node"
        )
    elif isinstance(cause, errors.RevisionNotFoundError):
        what = f"{name.repository} has no revision {name.revision!r}: give a branch, tag or commit"
    elif isinstance(error, errors.RemoteEntryNotFoundError):
        what = f"{name} lacks a file that is needed ({_first_line(error)})"
    elif isinstance(cause, errors.RepositoryNotFoundError) or status in (401, 404):
        what = (
            f"{name} is neither a folder here nor a repository that the hub shows to this user: "
            "check the spelling and, if it is private or gated, set HF_TOKEN on every node"
        )
    elif _is_unreachable(error):
        what = (
            f"{name} is neither a folder here nor in the cache, and the hub does not answer "
            f"({_first_line(error)}): check the network and HF_ENDPOINT, or give a local folder"
        )
    else:
        what = f"{name} is neither a folder here nor a readable hub id ({_first_line(error)})"
    return CheckpointError(f"{where}: {what}")


def _asked(name: HubId, where: str) -> str | None:
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(name.repository, revision=name.revision, timeout=_TIMEOUT_S)
        commit = name.revision if name.is_commit else found.sha
        if found.gated and commit and cached_commit(HubId(name.repository, commit)) is None:
            _try_one(name, commit, [sibling.rfilename for sibling in found.siblings or ()])
        return commit
    except _errors() as error:
        known = name.revision if name.is_commit else cached_commit(name)
        if not _is_unreachable(error) or known is None:
            raise refusal(error, name, where) from error
        logger.warning(
            "%s: the hub does not answer (%s); %s",
            where, _first_line(error),
            f"{name} is not checked" if name.is_commit
            else f"{name} is {known}, as downloaded before",
        )  # fmt: skip
        return known


def _try_one(name: HubId, commit: str, files: Sequence[str]) -> None:
    """Ask for the head of a file: everybody may know of a gated repository, but not download it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    for file in files[:1]:
        url = hf_hub_url(name.repository, file, revision=commit)
        get_hf_file_metadata(url, timeout=_TIMEOUT_S)


def _cached_names(name: HubId, where: str) -> Collection[str]:
    commit = cached_commit(name)
    if commit is None:
        raise _not_here(name, where)
    folder = name.cache / "snapshots" / commit
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _not_here(name: HubId, where: str) -> CheckpointError:
    return CheckpointError(
        f"{where}: {name} is neither a folder here nor was it downloaded before, and "
        "HF_HUB_OFFLINE=1 forbids to ask the hub: download it where there is a network (`videorl "
        "fetch RECIPE`) and bring the cache (HF_HOME) here, or give a local folder"
    )


def _answer(error: BaseException) -> BaseException:
    """Return the error with the hub's answer, which another may hide; without it, the first."""
    found: BaseException | None = error
    while found is not None:
        if _status(found) is not None or _is_of_network(found):
            return found
        found = found.__cause__
    return error


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_of_network(error: BaseException) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"TransportError", "ConnectionError", "TimeoutError"})


def _is_unreachable(error: BaseException) -> bool:
    """Tell whether no answer came, or that of a broken server."""
    cause = _answer(error)
    return _is_of_network(cause) or (_status(cause) or 0) >= 500


def _errors() -> tuple[type[Exception], ...]:
    """Return what the hub's library raises; its HTTP client's errors are no OSErrors."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionResolutionError

    client = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    own = (EntryNotFoundError, RevisionResolutionError, cast("type[Exception]", client))
    return (*own, OSError, ValueError)


def _first_line(error: BaseException) -> str:
    lines: Mapping[str, None] = dict.fromkeys(str(error).strip().splitlines())
    return next(iter(lines), type(error).__name__)
