"""Clusters that `ray start --head` makes: own ports, own folder, own token."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.ray.conftest import ROOT

BIN = Path(sys.executable).parent
PORTS = (
    "port",
    "dashboard-port",
    "node-manager-port",
    "object-manager-port",
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
"""Every port with a fixed default or a chance to collide with another cluster on this machine."""


@dataclass(frozen=True)
class Head:
    """A running cluster of one node."""

    address: str
    dashboard: str
    session: Path
    environment: dict[str, str]

    def submit(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        """Submit the repository as a job and wait for its end."""
        command = [str(BIN / "ray"), "job", "submit", "--address", self.dashboard]
        return subprocess.run(
            [*command, "--working-dir", str(ROOT), "--", *entrypoint],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def started_head(
    port: int, options: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Head]:
    """A cluster which ends with the block, and everything that it started with it."""
    folder = Path(tempfile.mkdtemp(prefix="vrl"))  # short: sockets lie in it
    ports = dict(zip(PORTS, [port, *free_ports(len(PORTS) - 1)], strict=True))
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "90",
        **(environment or {}),
    }
    variables.pop("PYTHONPATH", None)  # a job's code must come from its working directory
    sizes = [f"--object-store-memory={256 * 2**20}", f"--temp-dir={folder}"]
    listening = [f"--{name}={number}" for name, number in ports.items()]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / "ray"), "start", "--head", "--block", *sizes, *listening, *options],
            env=variables,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    head = Head(
        f"127.0.0.1:{port}",
        f"http://127.0.0.1:{ports['dashboard-port']}",
        folder / "session_latest",
        variables,
    )
    try:
        _wait_until_up(head, process, folder / "head.log")
        yield head
    finally:
        _end_tree(process)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_up(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    listing = [str(BIN / "ray"), "job", "list", "--address", head.dashboard]
    end = time.monotonic() + 240
    while True:
        try:
            if not subprocess.run(
                listing, env=head.environment, capture_output=True, timeout=30, check=False
            ).returncode:
                return
        except subprocess.TimeoutExpired:
            pass
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.5)


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    """End the head and everything that it started, and nothing else."""
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):  # it gave up by itself, and ended its children
        children = psutil.Process(process.pid).children(recursive=True)
    for one in (process, *children):
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(180)
    psutil.wait_procs(children, timeout=120)
