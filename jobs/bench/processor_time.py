"""Which processes of a server use how much processor time."""

from __future__ import annotations

import os
from collections import defaultdict

import psutil

_PARTS = {
    "ServeReplica:videorl:": "replica ",
    "ProxyActor": "Serve's proxy",
    "videorl.serving.sandbox": "decoding of uploads",
    "ServeController": "Serve's controller",
}
"""Part of a command line -> what is said of it; the rest of a replica's title is its name."""


def by_part() -> defaultdict[str, float]:
    """Return the seconds of processor time so far of this process and all below it, by part."""
    found: defaultdict[str, float] = defaultdict(float)
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            with process.oneshot():
                line, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        seconds = times.user + times.system
        if "videorl.serving.sandbox" in line:  # whose forks are counted once they are buried
            seconds += times.children_user + times.children_system
        found[_part(line, process.pid)] += seconds
    return found


def _part(line: str, process: int) -> str:
    if process == os.getpid():
        return "clients"
    for word, part in _PARTS.items():
        if word in line:
            rest = line.partition(word)[2].split() if part.endswith(" ") else []
            return part + "".join(rest[:1])
    return "rest of Ray"
