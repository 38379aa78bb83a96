"""A real Prometheus for tests: started on a configuration, asked over HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MONITORING = Path(__file__).resolve().parents[1] / "cluster" / "monitoring"

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="needs Debian's package prometheus (prometheus and promtool)",
)


@dataclass(frozen=True)
class Prometheus:
    """A server that scrapes."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of every series of an expression, now."""
        found = self.get("query", query=expr)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = self.get("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    def rule_errors(self) -> dict[str, str]:
        """Return rule -> error of every rule that was evaluated and failed."""
        rules = [rule for group in self.get("rules")["groups"] for rule in group["rules"]]
        assert rules
        return {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")}


@contextmanager
def prometheus(folder: Path, config: str) -> Iterator[Prometheus]:
    """Run a Prometheus inside the block; `config` is its file, `folder` holds its data."""
    (folder / "prometheus.yml").write_text(config)
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    words = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        server = Prometheus(f"http://127.0.0.1:{port}")
        try:
            wait_for(lambda: _answers(server), "Prometheus to start", 180)
            yield server
        finally:
            process.terminate()
            process.wait(180)


def wait_for(is_true: Callable[[], object], what: str, timeout_s: float) -> None:
    """Wait until something is true; the error shows what it last was."""
    end = time.monotonic() + timeout_s
    while not (last := is_true()):
        assert time.monotonic() < end, f"waited {timeout_s:.0f} s for {what}: {last!r}"
        time.sleep(0.2)


def _answers(server: Prometheus) -> bool:
    try:
        with urllib.request.urlopen(f"{server.url}/-/ready", timeout=10):
            return True
    except OSError:
        return False
