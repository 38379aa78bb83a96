"""How busy each stage of a short training run is; `jobs.bench.generation` prints it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.assembly import Assembly
    from actors.pool.state import PoolStats
    from videorl.config import Recipe


@dataclass
class Watch:
    """A metric sink that notes the time, the metrics and the pools' state after every step."""

    assembly: Assembly | None = None
    times: list[float] = field(default_factory=list[float])
    rows: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    generators: list[PoolStats] = field(default_factory=list["PoolStats"])
    scorers: list[PoolStats] = field(default_factory=list["PoolStats"])

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note one step."""
        assert self.assembly is not None
        self.times.append(time.perf_counter())
        self.rows.append(dict(metrics))
        self.generators.append(self.assembly.generator.pool.stats())
        self.scorers.append(self.assembly.scorer.pools[0].stats())


def training(recipe: Recipe, num_steps: int) -> dict[str, Any]:
    """Train on a Ray of its own for some steps; return how busy each stage was.

    The first step, which warms up, does not count, nor the last, when nothing is sampled ahead.
    """
    from actors.assembly import assemble
    from actors.cluster import connect
    from actors.placement import place
    from videorl.config import CheckpointConfig
    from videorl.loop import train
    from videorl.run.folder import open_run

    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        short = replace(
            recipe,
            num_steps=num_steps + 2,
            run_dir=folder,
            checkpoint=CheckpointConfig(interval=0),
        )
        with (
            open_run(short) as run,
            connect("local", num_cpus=place(short, []).num_cpus()),
            assemble(short, run, watch) as assembly,
        ):
            watch.assembly = assembly
            train(short, assembly.parts, assembly.progress, lambda: False)
            loads = assembly.generator.stages()["load_s"]
            load_s = loads.seconds / loads.count
    return {**shares(watch), "generator load (pull, copy, digest), s": round(load_s, 4)}


def shares(watch: Watch) -> dict[str, Any]:
    """Return the share of wall time in which each stage worked, and what publishing cost."""
    wall_s, rows = watch.times[-2] - watch.times[0], watch.rows[1:-1]
    learn_s, publish_s = (
        sum(row[f"time/{name}_s"] for row in rows) for name in ("learn", "publish")
    )
    busy = {
        "generation": busy_share(watch.generators[0], watch.generators[-2]),
        "scoring": busy_share(watch.scorers[0], watch.scorers[-2]),
        "learning": (learn_s + publish_s) / wall_s,
    }
    bottleneck = max(("generation", "learning"), key=lambda stage: busy[stage])
    return {
        "steps": len(rows),
        "seconds per step": round(wall_s / len(rows), 3),
        **{f"{stage} busy": round(share, 3) for stage, share in busy.items()},
        "bottleneck": f"{bottleneck}, {busy[bottleneck]:.1%} of the wall time",
        "publication (digest, pack, put), s": round(publish_s / len(rows), 4),
        "publication, bytes": int(rows[-1]["weights/bytes"]),
    }


def busy_share(before: PoolStats, after: PoolStats) -> float:
    """Return the share of worker time that went into requests between two moments."""
    ready_s = after.ready_s - before.ready_s
    return (after.busy_s - before.busy_s) / ready_s if ready_s else 0.0
