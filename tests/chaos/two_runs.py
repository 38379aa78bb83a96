"""Faults that are another run on the same cluster, which has no room beside the first."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.chaos.world import STOPPED, WAIT_S, World, await_text, kill

BESIDE = "beside"
"""Name of the other run."""


def stop_another_run(world: World) -> None:
    """Let a run wait for room beside this, kill two processes of this, and stop the other."""
    with another_run(world) as other:
        made = world.num_steps()
        world.wait(lambda: world.num_steps() >= made + 2, "went on beside a run that waits")
        if other.poll() is not None or len(world.nodes.workers("Encoder")) != 1:
            raise AssertionError(f"the other run did not wait, exit code {other.poll()}")
        world.strike("kill -TERM the other run, which waits")
        other.send_signal(signal.SIGTERM)
        if (code := other.wait(WAIT_S)) != STOPPED:
            raise AssertionError(f"a run that waited was stopped, and ended with exit code {code}")


def make_room_for_another_run(world: World) -> None:
    """Let a run wait for room beside this, kill two processes of this, and stop this.

    The other must work then, and this must go on when the other is stopped.
    """
    with another_run(world) as other:
        made = world.num_steps()
        world.wait(lambda: world.num_steps() >= made + 2, "went on beside a run that waits")
        world.strike("kill -TERM the driver, so that the other run has room")
        world.driver.send_signal(signal.SIGTERM)
        if (code := world.driver.wait(WAIT_S)) != STOPPED:
            raise AssertionError(f"a driver that was stopped ended with exit code {code}")
        metrics = world.folder / BESIDE / "metrics.jsonl"
        world.wait(metrics.exists, "finished a step of the run that waited for room")
        world.strike("kill -TERM the other run, which has made a step")
        other.send_signal(signal.SIGTERM)
        if (code := other.wait(WAIT_S)) != STOPPED:
            raise AssertionError(f"the other run was stopped, and ended with exit code {code}")


@contextmanager
def another_run(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """Give a run that has said it waits for room, and who has it; two processes of this are killed.

    This run is held up until the other has spoken, so that it cannot be over before.
    """
    run, log = world.folder / BESIDE, world.log.with_suffix(f".{BESIDE}")
    log.unlink(missing_ok=True)
    held = world.nodes.workers("GeneratorWorker")
    for process in held:
        os.kill(process.pid, signal.SIGSTOP)
    other = world.beside(run, log)
    try:
        try:
            await_text(log, "waiting for places for all workers at once")
            await_text(log, f"kept for run {world.log.stem}: ")
        finally:
            for process in held:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
        world.said.append("another run waits, and has said who has its places")
        kill("GeneratorWorker", world)
        kill("RayTrainWorker", world)
        yield other
    finally:
        other.kill()
        other.wait()
        shutil.rmtree(run, ignore_errors=True)
