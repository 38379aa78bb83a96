"""One thread per process and no network, set before anything imports torch; GPU tests skipped.

So are those marked `long`, unless they are asked for: `make test-long`.

Property tests take seconds, and the same examples every time. More, and others each time:
`HYPOTHESIS_PROFILE=long pytest tests/fuzz`.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.s3_server import BUCKET, Way, environment, s3_server

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Ray's workers give way to other processes, unless told not to: the tests without Ray run beside.
os.environ.setdefault("RAY_worker_niceness", "0")
# A machine that does much else takes long to start Ray.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "90")

# Temporary folders are made once per test, and examples may decode videos: neither is a fault.
_ALIKE = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
settings.register_profile("default", max_examples=20, derandomize=True, database=None, **_ALIKE)
settings.register_profile("long", max_examples=5000, derandomize=False, **_ALIKE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") and "long" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip(reason="make test-long"))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny, genuine checkpoint per policy family, with random weights. Never write to it."""
    from tests.tiny import TINY

    root = tmp_path_factory.mktemp("checkpoints")
    return {family: tiny.save(root / family) for family, tiny in TINY.items()}


@pytest.fixture(autouse=True)
def _copies(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep copies of what is in stores out of the user's cache."""
    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path_factory.getbasetemp() / "copies"))


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
