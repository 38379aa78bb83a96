"""All runs of a folder at a glance, read again only where something changed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from videorl.run.folder import RunFolder
from videorl.run.lock import is_held
from videorl.run.overview import RunOverview, overview, run_folders, run_name
from videorl.run.sinks import read_metrics
from videorl.watch.run_state import sign_of

METRIC = "reward/total"
MOST_CURVES = 24
"""Runs whose curves are drawn, those that wrote last: more cannot be told apart."""
FRESH_S = 5.0
"""How long what was read is shown to all browsers."""
SIZES_FRESH_S = 600.0
"""How long the bytes of a run count: to know them, every file of it is looked at."""
_AT_ONCE = 8

Series = list[tuple[int, float | None]]


@dataclass(frozen=True)
class RunsFolder:
    """What there is to show of a folder of runs."""

    runs: dict[str, RunOverview]
    """Name, the path below the folder, -> its overview."""
    curves: dict[str, Series]
    """Name -> (step, reward) of the runs that wrote last."""


@dataclass(frozen=True)
class _Known:
    sign: tuple[object, ...]
    run: RunOverview
    counted: float
    """When its bytes were counted, by the monotonic clock."""


class RunsReader:
    """Reads all runs of a folder; may be used by several threads.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._reading = threading.Lock()
        self._known: dict[Path, _Known] = {}
        self._curves: dict[Path, tuple[object, Series]] = {}
        self.last: RunsFolder | None = None
        """What was read last."""
        self._read_at = 0.0

    def read(self) -> RunsFolder:
        """Return all runs as they are now, or were `FRESH_S` ago."""
        with self._reading:
            now = time.monotonic()
            if self.last is None or now - self._read_at > FRESH_S:
                self.last = self._read()
                self._read_at = now
            return self.last

    def _read(self) -> RunsFolder:
        folders = run_folders(self._root)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            self._known = dict(zip(folders, threads.map(self._look, folders), strict=True))
        runs = {run_name(folder, self._root): known.run for folder, known in self._known.items()}
        latest = sorted(folders, key=lambda folder: -self._known[folder].run.updated)[:MOST_CURVES]
        self._curves = {folder: self._curve(folder) for folder in folders if folder in latest}
        curves = {
            run_name(folder, self._root): series
            for folder, (_, series) in self._curves.items()
            if series
        }
        return RunsFolder(runs, curves)

    def _look(self, folder: Path) -> _Known:
        paths = RunFolder(folder)
        files = (paths.config, paths.metrics, paths.summary)
        sign = (*map(sign_of, files), is_held(folder))
        known, now = self._known.get(folder), time.monotonic()
        if known is not None and now - known.counted < SIZES_FRESH_S:
            if known.sign == sign:
                return known
            run = overview(folder, known.run.bytes_on_disk)
            return replace(known, sign=sign, run=run)
        return _Known(sign, overview(folder), now)

    def _curve(self, folder: Path) -> tuple[object, Series]:
        metrics = RunFolder(folder).metrics
        sign = sign_of(metrics)
        if (known := self._curves.get(folder)) and known[0] == sign:
            return known
        try:
            rows = read_metrics(metrics)
        except (OSError, ValueError):
            rows = []  # there is none yet, or its overview says what is wrong
        return sign, [(row["step"], row[METRIC]) for row in rows if METRIC in row]
