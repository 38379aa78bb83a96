"""What monitoring costs a run: the same run with and without it, in turns.

    python -m jobs.bench.monitoring

The loop, pools and stores are real; generators, reward model and learner sleep. Blocks of steps
with everything on (metrics.jsonl, TensorBoard, Ray metrics, also between steps, and a Prometheus
that scrapes every second, if one is installed) take turns with blocks without any of it. Printed
are medians per step: wall seconds, and processor seconds of the driver, which do not depend on what
else the machine does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from jobs import command
from jobs.bench.measuring import add_json, keep_priority, show, write_json

if TYPE_CHECKING:
    from jobs.bench.stand_in_run import StandInRun
    from videorl.config import Recipe
    from videorl.protocols import MetricSink
    from videorl.run.folder import RunFolder


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the ratios."""
    parser = command.new_parser("python -m jobs.bench.monitoring", __doc__)
    add_json(parser)
    command.add_option(parser, "--blocks", 4, "blocks with monitoring, and as many without")
    command.add_option(parser, "--steps", 11, "steps of a block; the first does not count")
    command.add_option(parser, "--seconds", 0.5, "what a step takes, about")
    options = parser.parse_args(argv)
    keep_priority()
    found = {"cores": os.cpu_count(), "load at the start": os.getloadavg()[0]}
    found |= monitoring(options) | {"load at the end": os.getloadavg()[0]}
    show(found)
    write_json(options.json, found)
    return 0


@dataclass
class Measured:
    """A metric sink that notes when each step ended, and hands it on."""

    sink: MetricSink | None
    wall_s: list[float] = field(default_factory=list[float])
    """Seconds of every step but the first of a block."""
    driver_s: list[float] = field(default_factory=list[float])
    """Processor seconds of this process in each of them."""
    _last: tuple[float, float] | None = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        if self.sink is not None:
            self.sink.write(step, metrics)
        now = time.perf_counter(), time.process_time()
        if self._last is not None:
            self.wall_s.append(now[0] - self._last[0])
            self.driver_s.append(now[1] - self._last[1])
        self._last = now


def monitoring(options: argparse.Namespace) -> dict[str, Any]:
    """Return the numbers of both kinds of blocks, and their ratios."""
    from actors.cluster import connect
    from jobs.bench.stand_in_run import stand_in_recipe, stand_in_run
    from jobs.bench.stand_ins import Pace
    from videorl.loop import train
    from videorl.run.folder import open_run

    pace = Pace(options.seconds / 8, options.seconds / 40, options.seconds / 10)
    kinds: dict[bool, list[Measured]] = {False: [], True: []}
    with ExitStack() as stack:
        stack.enter_context(connect("local", num_cpus=4))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        recipe = stand_in_recipe(str(work / "run"), prompts__per_round=4)
        folder = stack.enter_context(open_run(recipe))
        nothing: Any = Measured(None)
        run = stack.enter_context(stand_in_run(recipe, folder, nothing, pace))
        scraping = stack.enter_context(_prometheus(work))
        progress = run.progress
        for block in range(2 * options.blocks):
            is_on = block % 2 == 1
            with ExitStack() as inner:
                sink = inner.enter_context(_all_sinks(recipe, folder, run)) if is_on else None
                kinds[is_on].append(measured := Measured(sink))
                _stop_or_go(scraping, is_on)
                until = replace(recipe, num_steps=(block + 1) * options.steps)
                parts = replace(run.parts, sink=measured)
                progress = train(until, parts, progress, lambda: False)
        _stop_or_go(scraping, True)
    return {"scraped by Prometheus": scraping is not None, **_compared(kinds)}


def _compared(kinds: Mapping[bool, Sequence[Measured]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for what, name in (("wall_s", "wall"), ("driver_s", "driver's processor")):
        without, with_it = (
            median(value for block in kinds[is_on] for value in getattr(block, what))
            for is_on in (False, True)
        )
        found[f"{name} s per step without"] = without
        found[f"{name} s per step with"] = with_it
        found[f"{name}, with / without"] = with_it / without
    extra = (
        found["driver's processor s per step with"] - found["driver's processor s per step without"]
    )
    found["added processor time / wall time of a step"] = extra / found["wall s per step without"]
    return found


@contextmanager
def _all_sinks(recipe: Recipe, folder: RunFolder, run: StandInRun) -> Iterator[MetricSink]:
    from actors.monitoring.sink import ray_metrics
    from actors.pool.metrics import PoolSizesSink
    from videorl.run.sinks import fan_out, open_sinks

    with ray_metrics(recipe, folder, run.pools) as metrics, open_sinks(recipe, folder) as sinks:
        yield PoolSizesSink(fan_out([sinks, metrics]), run.pools, work=partial(_work, run))


def _work(run: StandInRun) -> dict[str, float]:
    sampling = {name: stage.seconds for name, stage in run.generator.stages().items()}
    return {**sampling, "score": run.scorer.score_s}


@contextmanager
def _prometheus(work: Path) -> Iterator[subprocess.Popen[bytes] | None]:
    """Scrape this cluster every second inside the block; None = there is no Prometheus here."""
    import ray

    if shutil.which("prometheus") is None:
        yield None
        return
    port = ray.nodes()[0]["MetricsExportPort"]
    (work / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n"
        f"  - {{job_name: ray, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
    )
    words = [
        "prometheus",
        f"--config.file={work / 'prometheus.yml'}",
        f"--storage.tsdb.path={work / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _stop_or_go(process: subprocess.Popen[bytes] | None, is_on: bool) -> None:
    if process is not None:
        process.send_signal(signal.SIGCONT if is_on else signal.SIGSTOP)


if __name__ == "__main__":
    raise SystemExit(command.run(main))
