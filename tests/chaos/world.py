"""What faults can reach, and how they wait for it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.nodes import Nodes, Process

WAIT_S = 90.0
"""How long whatever a fault waits for may take."""
REFUSED, STOPPED = 2, 130
"""Exit codes of the command."""


@dataclass
class World:
    """What faults can reach."""

    nodes: Nodes
    folder: Path
    """On a small file system that holds nothing but run folders."""
    log: Path
    """Of the driver."""
    chance: random.Random
    driver: subprocess.Popen[bytes]
    start: Callable[[list[str]], int]
    """Runs the command with further settings, and returns its exit code."""
    beside: Callable[[Path, Path], subprocess.Popen[bytes]]
    """Starts the command in another run folder, with a log of its own."""
    touched: set[int] = field(default_factory=set[int])
    """Nodes that must be started anew before the next scenario."""
    said: list[str] = field(default_factory=list[str])
    struck_at: float = 0.0
    """Of `time.monotonic()`."""
    timers: list[threading.Timer] = field(default_factory=list[threading.Timer])

    def find(self, class_name: str) -> Process:
        """Return one process of a class, as soon as there is one."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end and self.driver.poll() is None:
            if found := sorted(self.nodes.workers(class_name), key=lambda one: one.pid):
                return self.chance.choice(found)
            time.sleep(0.05)
        raise LookupError(f"no {class_name} to harm")

    def num_steps(self) -> int:
        """Return how many steps the metrics of the run have."""
        return (self.folder / self.log.stem / "metrics.jsonl").read_bytes().count(b"\n")

    def wait(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait until something is so, which the run `what`."""
        end = time.monotonic() + 2 * WAIT_S
        while not is_so():
            if time.monotonic() > end:
                raise AssertionError(f"the run never {what}")
            time.sleep(0.1)

    def strike(self, what: str) -> None:
        """Note what is done now, and when the first blow fell."""
        self.said.append(what)
        self.struck_at = self.struck_at or time.monotonic()

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Act after some seconds, whatever happens meanwhile."""
        timer = threading.Timer(seconds, action)
        timer.start()
        self.timers.append(timer)


def kill(class_name: str, world: World) -> None:
    """Kill a process of a class, the simplest of faults."""
    found = world.find(class_name)
    world.strike(f"kill -9 {class_name} on node {found.node}")
    os.kill(found.pid, signal.SIGKILL)


def await_text(log: Path, text: str) -> None:
    """Wait until a log has a text."""
    end = time.monotonic() + WAIT_S
    while not log.exists() or text not in log.read_text():
        if time.monotonic() > end:
            raise LookupError(f"{log.name} never said {text!r}")
        time.sleep(0.1)
