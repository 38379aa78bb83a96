"""Runs of the main job under faults, started again whenever they end, and judged each time."""

from __future__ import annotations

import json
import random
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.faults import FAULTS, RESIZED
from tests.chaos.nodes import Nodes
from tests.chaos.runs import SETTINGS, Run, Watch, contradictions, differences
from tests.chaos.world import World
from videorl.one_process import train_online
from videorl.recipes.reading import load_recipe
from videorl.run.folder import RunFolder, open_run

_MAX_STARTS = 6
_RESTART_S = 2.0
"""As job controllers do, it waits a little before it starts a command again."""
_PATIENCE_S = 300.0
"""How long a run may take to start, and then to get over a fault, before that counts as failed."""
_NEW_STEPS = 4
"""Steps that must be finished after a fault: at least one checkpoint is among them."""
_ROOM = 12
"""A run with fewer steps before it is left to finish."""
LOST = {"lost video": "video", "lost latents": "latents"}
_OWN_RUN = {*LOST, RESIZED}
"""These need a run from its first steps on."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens when; `number` seeds what is left to chance."""

    number: int
    fault: str
    """A name in `FAULTS`."""
    after_steps: int
    """It strikes so many steps after the one before was over."""
    delay_s: float


@dataclass
class Result:
    """What became of a scenario."""

    scenario: Scenario
    max_staleness: int
    at_step: int = 0
    """How many steps were finished when it struck."""
    said: list[str] = field(default_factory=list[str])
    driver_exits: list[int] = field(default_factory=list[int])
    """Exit codes of the command, which was started again after each but 0."""
    seconds: float = 0.0
    recovery_s: float | None = None
    """The longest time without a new finished step, from the fault on."""
    audit: list[str] = field(default_factory=list[str])
    """Contradictions."""
    differs: list[str] = field(default_factory=list[str])
    """What is not as in the run without faults."""
    error: str = ""
    """Why the scenario could not be carried out or judged."""

    @property
    def is_right(self) -> bool:
        return not (self.audit or self.differs or self.error)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "is_right": self.is_right}


class Stage:
    """Carries scenarios out, one after the other, on one cluster.

    Many strike the same run: after each the run must go on, be clean, and be what the run without
    faults was at that step. A run that is finished or failed is followed by a new one.

    Args:
        nodes: The cluster.
        folder: For run folders; on a file system that may be filled.
        logs: For what drivers say.
        checkpoint: Of a tiny policy.
        num_steps: Of every run.
    """

    def __init__(
        self, nodes: Nodes, folder: Path, logs: Path, checkpoint: Path, num_steps: int
    ) -> None:
        self._nodes = nodes
        self._folder = folder
        self._logs = logs
        self._checkpoint = checkpoint
        self._num_steps = num_steps
        self._expected: dict[int, RunFolder] = {}
        """Staleness -> the run without faults."""
        self._num_runs = 0
        self._run: Run | None = None
        self.finished: list[list[str]] = []
        """What was wrong with each run that reached its end."""

    def rehearse(self, max_staleness: int, keep: Path) -> list[float]:
        """Make the run without faults in `keep`, if it is not there; return the steps' seconds."""
        folder = RunFolder(keep / f"quiet-{max_staleness}")
        log = self._logs / f"{folder.root.name}.log"
        run = self._new_run(folder, log, max_staleness)
        if not folder.summary.exists():
            run.start()
            with suppress(subprocess.TimeoutExpired):
                run.driver.wait(2 * _PATIENCE_S)
            run.stop()
        if not folder.summary.exists() or contradictions(folder):
            raise RuntimeError(f"the run without faults failed: {run.log.read_text()[-2000:]}")
        self._expected[max_staleness] = folder
        rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
        return [row["time/step_s"] for row in rows[1:]]

    def rehearse_alone(self, keep: Path) -> None:
        """Make the run without faults in this process, without staleness: the same numbers, sooner.

        That they are the same is shown by `tests/ray/test_single_process.py`.
        """
        folder = RunFolder(keep / "quiet-0")
        recipe = load_recipe("moving_shapes", self._new_run(folder, self._logs, 0).overrides)
        with open_run(recipe):
            train_online(recipe, folder, lambda: False)
        self._expected[0] = folder

    def perform(self, scenario: Scenario) -> Result:
        """Carry out one scenario, and leave the cluster whole."""
        if self._run is not None and self._steps_left(self._run) < _ROOM:
            self._finish(self._run)
        if self._run is None or scenario.fault in _OWN_RUN:
            self._open_run(LOST.get(scenario.fault), scenario.after_steps)
        run = self._run
        assert run is not None
        result = Result(scenario, run.max_staleness)
        chance = random.Random(scenario.number)
        world = World(
            self._nodes, self._folder, run.log, chance, run.driver, run.refused, run.beside
        )
        started = time.monotonic()
        try:
            self._strike_and_watch(scenario, run, world, result)
            self._judge(run, result)
        except Exception as error:  # one scenario that fails must not cost the others
            said = f"{type(error).__name__}: {error}"
            result.error = said.replace(f"{Path.cwd()}/", "").replace(f"{self._folder}/", "")
        result.said, result.seconds = world.said, time.monotonic() - started
        if result.error or result.differs or result.audit:
            self.close()
        for timer in world.timers:
            timer.join()
        (self._folder / "ballast").unlink(missing_ok=True)
        self._repair(world)
        return result

    def close(self) -> None:
        """End the run at hand."""
        if self._run is not None:
            self._run.stop()
            self._run = None

    def _steps_left(self, run: Run) -> int:
        return self._num_steps - Watch(run.folder).look(time.monotonic())

    def _finish(self, run: Run) -> None:
        """Wait for the run's end and judge it as a whole."""
        self._run = None
        with suppress(subprocess.TimeoutExpired):
            run.driver.wait(_PATIENCE_S)
        run.stop()
        code = run.driver.returncode
        wrong = [f"exit code {code}"] if code else []
        wrong += contradictions(run.folder)
        wrong += differences(run.folder, self._expected[run.max_staleness], is_finished=code == 0)
        self.finished.append(wrong)

    def _open_run(self, lost: str | None, number: int) -> None:
        self.close()
        self._num_runs += 1
        staleness = sorted(self._expected)[self._num_runs % len(self._expected)]
        name = f"run-{self._num_runs:02d}"
        folder = RunFolder(self._folder / name)
        log = self._logs / f"{name}.log"
        self._run = self._new_run(folder, log, staleness)
        self._run.start(["-m", "tests.chaos.losing", lost, str(number)] if lost else None)

    def _new_run(self, folder: RunFolder, log: Path, max_staleness: int) -> Run:
        settings: dict[str, object] = {
            **SETTINGS,
            "num_steps": self._num_steps,
            "policy.path": self._checkpoint,
            "run_dir": folder.root,
            "rollouts.max_staleness": max_staleness,
        }
        overrides = [f"{name}={value}" for name, value in settings.items()]
        return Run(self._nodes, folder, log, max_staleness, overrides)

    def _strike_and_watch(self, scenario: Scenario, run: Run, world: World, result: Result) -> None:
        """Strike once; return when the run has got well beyond that, or is finished."""
        watch = Watch(run.folder)
        base = watch.look(time.monotonic())
        end = time.monotonic() + 3 * _PATIENCE_S
        while not world.struck_at or not self._is_over(result, watch, world):
            done = watch.look(now := time.monotonic())
            if not world.struck_at and done >= base + scenario.after_steps:
                time.sleep(scenario.delay_s)
                result.at_step = watch.look(time.monotonic())
                FAULTS[scenario.fault](world)
                end = time.monotonic() + _PATIENCE_S
            if now > end:
                raise TimeoutError("never over" if world.struck_at else "never so far")
            self._start_again_if_ended(run, world, result)
            time.sleep(0.02)
        result.recovery_s = max(watch.gaps(world.struck_at), default=None)

    def _is_over(self, result: Result, watch: Watch, world: World) -> bool:
        if any(timer.is_alive() for timer in world.timers):
            return False
        done = watch.look(time.monotonic())
        return done >= min(result.at_step + _NEW_STEPS, self._num_steps)

    def _start_again_if_ended(self, run: Run, world: World, result: Result) -> None:
        if (code := run.driver.poll()) is None:
            return
        if code == 0:
            if not world.struck_at:
                raise LookupError("the run was finished before the fault")
            return
        result.driver_exits.append(code)
        if len(result.driver_exits) == _MAX_STARTS:
            raise TimeoutError(f"the driver ended {_MAX_STARTS} times")
        if 0 in world.touched:
            self._nodes.restart()
            world.touched.clear()
        time.sleep(_RESTART_S)
        run.start()
        world.driver = run.driver

    def _judge(self, run: Run, result: Result) -> None:
        result.audit = contradictions(run.folder)
        expected = self._expected[run.max_staleness]
        result.differs = differences(run.folder, expected, is_finished=False)

    def _repair(self, world: World) -> None:
        """Nodes that were harmed begin anew."""
        dead = {node for node in range(self._nodes.count) if not self._nodes.is_up(node)}
        if 0 in dead:
            self.close()
            self._nodes.restart()
            return
        for node in sorted(world.touched | dead):
            self._nodes.heal(node)
            self._nodes.kill(node)
            self._nodes.start(node)
