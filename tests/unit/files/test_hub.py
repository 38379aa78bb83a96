"""The hub's ids, answers and refusals, asked over HTTP from a server in this process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import Hub, serve, use_endpoint
from videorl.errors import CheckpointError
from videorl.files.hub import HubId, download, file_names, local_path, parse, resolved


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve(monkeypatch, tmp_path / "cache") as server:
        yield server


def test_an_id_has_a_revision_and_perhaps_a_file() -> None:
    assert parse("a/b") == HubId("a/b")
    assert parse("a/b@v1.0") == HubId("a/b", "v1.0")
    assert parse("a/b/c/d.safetensors@refs/pr/1") == HubId("a/b", "refs/pr/1", "c/d.safetensors")
    assert str(parse("a/b/c/d.safetensors@main")) == "a/b/c/d.safetensors@main"
    for text in ("a", "/a/b", "./a b", "a/b@", "~/a/b"):
        assert parse(text) is None, text


def test_home_and_variables_stand_for_what_they_do_in_a_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/user/me")
    assert (
        local_path("~/m") == local_path("$HOME/m") == local_path("${HOME}/m") == Path("/user/me/m")
    )


def test_a_branch_becomes_the_commit_that_it_is_now(hub: Hub) -> None:
    first = hub.add("a/b", {"x.json": "1"}, "main")
    second = hub.add("a/b", {"x.json": "2"}, "v2")
    assert resolved(HubId("a/b"), "here") == HubId("a/b", first)
    assert resolved(HubId("a/b", "v2", "x.json"), "here") == HubId("a/b", second, "x.json")


def test_what_was_downloaded_is_found_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add("a/b", {"x.json": "1", "y.json": "2"})
    folder = download(HubId("a/b"), ["x.json"], "here")
    assert [path.name for path in folder.iterdir()] == ["x.json"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolved(HubId("a/b"), "here") == HubId("a/b", commit)
    assert file_names(HubId("a/b", commit), "here") == ["x.json"]
    assert download(HubId("a/b", commit), ["x.json"], "here") == folder
    with pytest.raises(CheckpointError, match=r"here: c/d .*HF_HUB_OFFLINE=1 forbids.*fetch"):
        resolved(HubId("c/d"), "here")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "RepoNotFound", "check the spelling and, if it is private or gated, set HF_TOKEN"),
        (401, "", "set HF_TOKEN"),
        (403, "GatedRepo", "gated, and this user may not read it: ask for access"),
        (403, "", "ask for access"),
        (404, "RepoNotFound", "check the spelling"),
        (404, "RevisionNotFound", "has no revision 'v9': give a branch, tag or commit"),
    ],
)
def test_a_refusal_says_what_to_do(hub: Hub, status: int, code: str, said: str) -> None:
    hub.refusals["a/b"] = (status, code)
    name = HubId("a/b", "v9")
    for ask in (
        lambda: resolved(name, "rewards.0.path"),
        lambda: file_names(name, "rewards.0.path"),
        lambda: download(name, None, "rewards.0.path"),
    ):
        with pytest.raises(CheckpointError, match=f"^rewards.0.path: a/b.*{said}"):
            ask()


def test_a_hub_that_does_not_answer_is_an_error_unless_it_was_downloaded(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    commit = hub.add("a/b", {"x.json": "1"})
    download(HubId("a/b"), None, "here")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    use_endpoint(monkeypatch, f"http://127.0.0.1:{port}", tmp_path / "cache")
    for ask in (resolved, file_names, lambda name, where: download(name, None, where)):
        with pytest.raises(CheckpointError, match=r"here: c/d .*hub does not answer .*network"):
            ask(HubId("c/d"), "here")
    assert resolved(HubId("a/b"), "here") == HubId("a/b", commit)
    assert f"a/b is {commit}, as downloaded before" in caplog.text
