"""Stores of two kinds: a folder of this machine, and a real S3 server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_server import BUCKET, Way, environment, s3_server


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with s3_server(tmp_path_factory.mktemp("s3")) as port:
        yield port


@pytest.fixture
def way(s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """The only way to the S3 server, as the environment says."""
    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "copies"))
    found = Way(s3_port)
    for name, value in environment(found.port).items():
        monkeypatch.setenv(name, value)
    yield found
    found.close()


@pytest.fixture
def s3(way: Way) -> str:
    """A URI of an S3 server where nothing is yet."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/first"


@pytest.fixture(params=["file", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URI where nothing is yet, of either kind."""
    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "copies"))
    if request.param == "file":
        return f"file://{tmp_path}/store/first"
    return request.getfixturevalue("s3")
