"""One real Ray for all tests of this folder."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.ray.pools import Make, pool_of
from tests.ray.whole_runs import Baseline, baseline_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A local Ray with 8 logical CPUs, whose workers can import `tests`."""
    import os

    from actors.cluster import connect
    from actors.naming import job_metadata

    os.environ["PYTHONPATH"] = str(ROOT)
    # Ray's metrics, of which a test waits for several.
    os.environ.setdefault("RAY_metrics_report_interval_ms", "3000")
    with connect("local", num_cpus=8, metadata=job_metadata(ROOT / "runs/of_tests")):
        yield


@pytest.fixture(scope="session")
def baseline(
    tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Baseline:
    """The run without faults."""
    return baseline_run(tiny_checkpoints["wan"], tmp_path_factory.mktemp("baseline") / "run")


@pytest.fixture
def make() -> Iterator[Make]:
    """Make pools that are closed in the end; see `pool_of`."""
    with ExitStack() as stack:

        def make_one(*kind: Any, **changes: Any) -> Any:
            return stack.enter_context(closing(pool_of(*kind, **changes)))

        yield make_one
