"""One run of the main job: the command, its progress, and whether it is what it should be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.chaos.nodes import Nodes
from videorl.audit import audit
from videorl.data.archive import committed_steps, read_table
from videorl.data.archive_tables import SCHEMAS
from videorl.run.folder import RunFolder

SETTINGS: dict[str, object] = {
    "policy.lora.rank": 4,
    "sampling.num_inference_steps": 2,
    "sampling.merge_lora": "false",  # as one process samples, which the runs are compared with
    "prompts.per_round": 3,
    "prompts.candidates_per_prompt": 3,
    "optimizer.learning_rate": 1e-2,
    "reference.interval": 2,
    "generators.min_workers": 2,
    "generators.max_workers": 2,
    "generators.num_cpus": 1,
    "learner.num_cpus": 1,
    "learner.max_failures": 2,
    "learner.worker_timeout_s": 30,
    "rewards.0.start_timeout_s": 60,
    # As many workers as may die in half a minute, some with the same work; 3, the default, would
    # cost a group, which is no loss in silence, but not the run without faults.
    "rewards.0.max_retries": 100,
    "checkpoint.interval": 3,
    "archive.latents": "true",
    "evaluation.source": "",
}


class Run:
    """One run folder, and the command that works in it."""

    def __init__(
        self,
        nodes: Nodes,
        folder: RunFolder,
        log: Path,
        max_staleness: int,
        overrides: Sequence[str],
    ) -> None:
        self.folder = folder
        self.log = log
        self.max_staleness = max_staleness
        self.driver: subprocess.Popen[bytes]
        self._nodes = nodes
        self.overrides = overrides

    def start(self, command: Sequence[str] | None = None) -> None:
        """Start the command, or go on; `command` is another one than `videorl train`."""
        command = command or ["-m", "jobs.train"]
        driver = [sys.executable, *command, "moving_shapes", *self.overrides]
        self.driver = self._nodes.popen(driver, self.log)

    def refused(self, others: list[str]) -> int:
        """Run the command with further settings until it ends; return its exit code."""
        driver = [sys.executable, "-m", "jobs.train", "moving_shapes", *self.overrides, *others]
        return self._nodes.popen(driver, self.log).wait(300)

    def beside(self, folder: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start the command in another folder, with so many generators that both have no room."""
        others = [f"run_dir={folder}", "generators.min_workers=6", "generators.max_workers=6"]
        driver = [sys.executable, "-m", "jobs.train", "moving_shapes", *self.overrides, *others]
        return self._nodes.popen(driver, log)

    def stop(self) -> None:
        self.driver.kill()
        self.driver.wait()


class Watch:
    """Sees from the metrics when steps were finished for the first time."""

    def __init__(self, folder: RunFolder) -> None:
        self._metrics = folder.metrics
        self._times: list[float] = []

    def look(self, now: float) -> int:
        """Return how many steps were ever finished."""
        try:
            count = self._metrics.read_bytes().count(b"\n")
        except FileNotFoundError:
            count = 0
        self._times += [now] * (count - len(self._times))
        return len(self._times)

    def gaps(self, since: float) -> list[float]:
        """Return the seconds before each new step after `since`."""
        times = [since, *(one for one in self._times if one > since)]
        return [after - before for before, after in pairwise(times)]


def contradictions(folder: RunFolder) -> list[str]:
    """Return what the audit finds."""
    return [f"{one.where}: {one.what}" for one in audit(folder).contradictions]


def differences(found: RunFolder, expected: RunFolder, *, is_finished: bool) -> list[str]:
    """Return what differs so far in archive and metrics, and at the end in weights.

    Every candidate in the archive carries the digest of the weights that sampled it. Which of them
    have an mp4 file is not compared: a video that is lost before it is written is left out.
    """
    steps = committed_steps(found.archive)
    names = [
        f"archive: {name}"
        for name in SCHEMAS
        if not _table(found, name, steps).equals(_table(expected, name, steps))
    ]
    rows = _metrics(found)
    if rows != _metrics(expected)[: len(rows)]:
        names.append("metrics")
    if is_finished and _weights(found) != _weights(expected):
        names.append("weights")
    return names


def _table(folder: RunFolder, name: str, steps: Sequence[int]) -> Any:
    table = read_table(folder.archive, name, steps=steps)
    return table.drop_columns(["video"]) if name == "candidates" else table


def _weights(folder: RunFolder) -> dict[str, Any]:
    return json.loads(folder.summary.read_text())["policy_version"]


def _metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """Return all rows without times, and without how the pools were."""
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in folder.metrics.read_text().splitlines()
    ]
    return [
        {name: one for name, one in row.items() if not name.startswith(("time/", "pool/", "work/"))}
        for row in rows
    ]
