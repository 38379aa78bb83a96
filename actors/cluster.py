"""Connecting to Ray: to the job's cluster, a named cluster, or a new one on this machine."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from videorl.errors import ResourceError, UnreachableError
from videorl.run.node_facts import NodeFacts, facts_here, versions_here

_PACKAGES = ("videorl", "actors")
_LOCAL_OBJECT_STORE_BYTES = 512 * 2**20
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    # Learner ranks stay in the driver's directory, so that relative paths mean the same there.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # A process less; a rank that is gone is replaced whether or not that was announced.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Of a cluster that starts here: its head keeps 3 kB for each task that it remembers, 100,000 of
    # them by default. Its pages and `ray list tasks` show no more than 10,000.
    "RAY_task_events_max_num_task_in_gcs": "10000",
    # Read by glibc as a process starts, which the workers of a new cluster do from here. Otherwise
    # it gives the memory of activations back after every layer, and the kernel has to clear the
    # same pages again and again: up to 15 % of what a small model computes on CPUs. Blocks above
    # 32 MiB, its largest limit, still go back at once.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
}


_ANSWER_S = 60.0
"""How long a node may take to start a process that tells its versions."""
_SHOWN = 4

logger = logging.getLogger(__name__)
_TOKEN_LOGGER = logging.getLogger("ray._private.authentication.authentication_token_setup")


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether one of Ray's messages about tokens is worth reading.

    That a cluster is protected by a token, which Ray makes and finds by itself, asks for nothing:
    printed first of all, it looks like a mistake of the user's. That it is *not* protected stays.
    """
    return not record.getMessage().startswith("Token authentication is enabled for this Ray")


def prepare_environment() -> None:
    """Set what Ray reads when it starts, unless the user has, and keep it from idle warnings."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _TOKEN_LOGGER.addFilter(_is_news)


@contextmanager
def connect(
    address: str | None = None,
    *,
    num_cpus: float = 0,
    object_store_bytes: int = _LOCAL_OBJECT_STORE_BYTES,
    metadata: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Be connected to Ray inside the `with` block.

    Args:
        address: Address of a running cluster; None = that in `RAY_ADDRESS` (`ray job submit` sets
            it) or, if that is not set, a new cluster on this machine that ends with the block.
        num_cpus: Logical CPUs of a new cluster, at the least. Stages take turns on a small
            machine, so there may be more of them than cores.
        object_store_bytes: Size of a new cluster's object store.
        metadata: What Ray's list of jobs shows of this driver, if it was not submitted.

    Raises:
        ResourceError: The cluster does not answer, or a new one cannot be started here.
    """
    prepare_environment()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {
        "log_to_driver": True,
        "logging_level": logging.WARNING,
        "job_config": JobConfig(metadata=dict(metadata or {})),
    }
    if address == "local":
        options |= {
            "num_cpus": max(os.cpu_count() or 1, int(num_cpus + 0.999)),
            "object_store_memory": object_store_bytes,
            # Ray Train cleans up through the state API, which is the dashboard's.
            "include_dashboard": True,
        }
    elif "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        # Submitted jobs bring the code as their working directory; other drivers send it along.
        options["runtime_env"] = {"py_modules": [str(_package(name)) for name in _PACKAGES]}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, OSError) as error:
        raise _why_not(error, address) from error
    if callable(handler) and threading.current_thread() is threading.main_thread():
        # Ray's own exits with the signal's number, which says nothing of a stop.
        signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        ray.shutdown()


def facts_of_nodes(run_dir: str, models: Mapping[str, str]) -> list[NodeFacts]:
    """Return what every node of the connected cluster has, that of this process first.

    Args:
        run_dir: The folder of the run.
        models: Setting -> folder, file, shipped name or hub id.
    """
    here = ray.get_runtime_context().get_node_id()
    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    order = sorted(alive, key=lambda node: node != here)
    task: Any = ray.remote(facts_here)
    refs = [
        task.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(run_dir, models)
        for node in order
    ]
    # A task without a GPU does not see those of its node.
    return [
        replace(facts, resources=alive[node])
        for node, facts in zip(order, ray.get(refs), strict=True)
    ]


def check_versions() -> None:
    """Refuse a connected cluster whose nodes have other versions than the driver.

    A node that is too busy to answer is left out, with a warning, and so are nodes that an
    autoscaler adds later.

    Raises:
        ResourceError: A node has other versions, or cannot run this code at all.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    task: Any = ray.remote(num_cpus=0, max_retries=0)(versions_here)
    asked: dict[Any, str] = {}
    for node in nodes.keys() - {here}:
        place = NodeAffinitySchedulingStrategy(node, soft=False)
        asked[task.options(scheduling_strategy=place).remote()] = nodes[node]
    if not asked:
        return
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    answers: list[tuple[str, Mapping[str, str]]] = []
    for ref in done:
        try:
            answers.append((asked[ref], ray.get(ref)[1]))
        except RayError as error:
            raise ResourceError(
                f"node {asked[ref]} cannot run this version's code: {str(error).splitlines()[-1]}; "
                "install the same Python and packages there"
            ) from error
    for ref in late:
        ray.cancel(ref)
        logger.warning("node %s did not tell its versions within %.0f s", asked[ref], _ANSWER_S)
    if found := differing_versions(*versions_here(), answers):
        raise ResourceError(found)


def differing_versions(
    driver: str, wanted: Mapping[str, str], nodes: Sequence[tuple[str, Mapping[str, str]]]
) -> str:
    """Return which nodes have other versions than the driver's, as a sentence; empty if none.

    Args:
        driver: Name of its machine.
        wanted: Package -> version there.
        nodes: Names and versions of the others.
    """
    found = [
        f"{package} {versions.get(package, 'missing')} on node {name}, but {version} on the "
        f"driver's, {driver}"
        for name, versions in nodes
        for package, version in wanted.items()
        if versions.get(package) != version
    ]
    listed = "; ".join(found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"nodes have different versions: {listed}{more}. Install the same" if found else ""


def _why_not(error: Exception, address: str) -> ResourceError:
    """Return what to do about a Ray that cannot be reached or started."""
    if "://" in address and not address.startswith("ray://"):
        return ResourceError(
            f"{address!r} (from --address or RAY_ADDRESS) is a web address, which `ray job submit "
            "--address` takes; a command needs that of the cluster itself, HOST:6379, or `auto` on "
            "one of its nodes"
        )
    if "AF_UNIX path length" in str(error):
        return ResourceError(
            f"the folder of temporary files, {tempfile.gettempdir()}, has too long a path for "
            "Ray's sockets: set TMPDIR to a short one, such as /tmp"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return ResourceError(
            f"Ray cannot write {error.filename} ({error.strerror}): set HOME, where it keeps a "
            "token, and RAY_TMPDIR, where it keeps its logs, to folders that can be written"
        )
    return UnreachableError(
        f"cannot connect to Ray at {address!r} (from --address or RAY_ADDRESS): is it running, and "
        f"are RAY_AUTH_MODE and its token the same here as there? ({type(error).__name__}: "
        f"{str(error).splitlines()[0] if str(error) else 'no reason given'})"
    )


def _package(name: str) -> Path:
    """Return the folder of a package."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None, name
    return Path(spec.origin).parent
