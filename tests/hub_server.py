"""A small HTTP server that answers the Hugging Face library as the hub does, from a dict."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest


@dataclass
class Hub:
    """Repositories by name, and what was asked of them."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Name -> revision (a branch or tag) -> file -> content."""
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Name -> status and error code of every answer."""
    gated: set[str] = field(default_factory=set)
    """Repositories that everybody may know about, but this user may not read."""
    hanging: dict[str, threading.Event] = field(default_factory=dict)
    """Repositories that are not answered for before the event."""
    asked: list[str] = field(default_factory=list)
    """Paths of the requests for files."""

    def add(self, name: str, files: Mapping[str, bytes | str], revision: str = "main") -> str:
        """Put files under a revision; return its commit."""
        content = {
            file: data.encode() if isinstance(data, str) else data for file, data in files.items()
        }
        known = self.repositories.setdefault(name, {})
        if revision in known:  # what was there before is still known by its commit
            known[_commit(known[revision])] = known[revision]
        known[revision] = content
        return _commit(content)

    def commit(self, name: str, revision: str = "main") -> str:
        """Return the commit of a revision."""
        return _commit(self.repositories[name][revision])

    def add_folder(self, name: str, folder: Path, revision: str = "main") -> str:
        """Put the files of a folder under a revision; return its commit."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        return self.add(name, files, revision)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        words = unquote(urlsplit(path).path).strip("/").split("/")
        is_api = words[:2] == ["api", "models"]
        words = words[2:] if is_api else words
        name, rest = "/".join(words[:2]), words[2:]
        if name in self.hanging:
            self.hanging[name].wait()
        if name in self.refusals:
            status, code = self.refusals[name]
            return status, {"X-Error-Code": code}, b"{}"
        if name not in self.repositories:
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if name in self.gated and not is_api:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        wanted = rest[1] if rest else "main"
        known = self.repositories[name]
        found = next((r for r in known if wanted in (r, _commit(known[r]))), None)
        if found is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        files, commit = known[found], _commit(known[found])
        if is_api:
            gated = "manual" if name in self.gated else False
            body = _listing(rest, name, files, commit, gated)
            return 200, {"Content-Type": "application/json"}, body
        file = "/".join(rest[2:])
        self.asked.append(f"{name}/{file}")
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        etag = hashlib.sha1(files[file]).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, files[file]


@contextmanager
def serve(patch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Let the Hugging Face library ask a server of this process, and keep files in `cache`."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            with suppress(ConnectionError):  # a client that does not wait
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    use_endpoint(patch, f"http://127.0.0.1:{server.server_port}", cache)
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use_endpoint(patch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """Let the Hugging Face library ask `endpoint`, and keep files in `cache`."""
    from huggingface_hub import constants

    patch.setattr(constants, "ENDPOINT", endpoint)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + template)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)


def _commit(files: Mapping[str, bytes]) -> str:
    found = hashlib.sha1()
    for name, data in sorted(files.items()):
        found.update(name.encode() + data)
    return found.hexdigest()


def _listing(
    rest: list[str], name: str, files: Mapping[str, bytes], commit: str, gated: str | bool
) -> bytes:
    if rest and rest[0] == "tree":
        rows = [
            {
                "type": "file",
                "path": file,
                "size": len(data),
                "oid": hashlib.sha1(data).hexdigest(),
            }
            for file, data in files.items()
        ]
        return json.dumps(rows).encode()
    siblings = [{"rfilename": file, "size": len(data)} for file, data in files.items()]
    row = {"id": name, "_id": "0", "sha": commit, "siblings": siblings, "private": False}
    return json.dumps({**row, "gated": gated, "tags": [], "downloads": 0, "likes": 0}).encode()
