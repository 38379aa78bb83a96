"""What may go wrong, one function each. All of them act from outside, as the world does."""

from __future__ import annotations

import io
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import partial

from jobs.scale import main as scale
from tests.chaos.two_runs import make_room_for_another_run, stop_another_run
from tests.chaos.world import REFUSED, STOPPED, WAIT_S, World, await_text, kill

STARVING = "chaos: waiting for every place"
"""What `tests.chaos.starving` says when it does."""
DOOMED = "chaos: media are on node "
"""What `tests.chaos.losing` says before the id of a node that it waits to lose."""

RESIZED = "generators resized again and again"
Fault = Callable[[World], None]


def kill_node(class_name: str, world: World) -> None:
    node = world.find(class_name).node
    world.strike(f"kill -9 everything on node {node}, with a {class_name}")
    world.nodes.kill(node)
    world.touched.add(node)


def replace_node(class_name: str, world: World) -> None:
    """Kill a node and let it come back some seconds later."""
    kill_node(class_name, world)
    node = max(world.touched)
    world.later(5.0, partial(world.nodes.start, node))


def cut_node(class_name: str, seconds: float, world: World) -> None:
    node = world.find(class_name).node
    world.strike(f"cut node {node}, with a {class_name}, for {seconds:.0f} s")
    world.nodes.cut(node)
    world.touched.add(node)
    world.later(seconds, partial(world.nodes.heal, node))


def drain_node(class_name: str, world: World) -> None:
    """Tell Ray that a node will leave, and take it away when its time is up."""
    node = world.find(class_name).node
    world.strike(f"drain node {node}, with a {class_name}; killed 15 s later")
    world.touched.add(node)
    world.nodes.drain(node, 15)
    world.later(15.0, partial(world.nodes.kill, node))


def kill_as_it_starts(class_name: str, seconds: float, world: World) -> None:
    """Kill a process, and for some seconds every one that takes its place, while it loads."""
    found = world.find(class_name)
    world.strike(f"kill -9 {class_name} on node {found.node}, and its successors for {seconds} s")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for process in world.nodes.workers(class_name):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.2)


def hang(class_name: str, world: World) -> None:
    """Stop a process for good: it lives, and answers nothing."""
    found = world.find(class_name)
    world.strike(f"kill -STOP {class_name} on node {found.node}")
    os.kill(found.pid, signal.SIGSTOP)


def hang_as_it_starts(class_name: str, world: World) -> None:
    """Kill a process, and let the one that takes its place hang while it loads."""
    before = world.find(class_name)
    world.strike(f"kill -9 {class_name} on node {before.node}, kill -STOP its successor")
    os.kill(before.pid, signal.SIGKILL)
    while (after := world.find(class_name)).pid == before.pid:
        time.sleep(0.05)
    os.kill(after.pid, signal.SIGSTOP)


def slow_down(class_name: str, seconds: float, world: World) -> None:
    """Let a process rest for some seconds, as on a node that is busy or hot."""
    found = world.find(class_name)
    world.strike(f"{class_name} on node {found.node} rests for {seconds:.0f} s")
    os.kill(found.pid, signal.SIGSTOP)

    def wake() -> None:
        with suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGCONT)

    world.later(seconds, wake)


def stop_in_a_wait(world: World) -> None:
    """Ask the driver to stop while all generators hang, so that it waits for a round."""
    held = world.nodes.workers("GeneratorWorker")
    for process in held:
        os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1.0)
    world.strike("kill -TERM the driver, which waits for generators that hang")
    world.driver.send_signal(signal.SIGTERM)
    code = world.driver.wait(WAIT_S)
    for process in held:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    if code != STOPPED:
        raise AssertionError(f"a driver that was asked to stop ended with exit code {code}")


def move_checkpoints(world: World) -> None:
    """Kill the driver, and start the command with another place of checkpoints.

    Before there is a checkpoint, each start begins anew, wherever they are to be.
    """
    kept = world.folder / world.log.stem / "checkpoints"
    world.wait(lambda: any(kept.glob("step-*/state.json")), "wrote a checkpoint")
    world.strike("kill -9 the driver; the command again with another checkpoint.location")
    world.driver.kill()
    world.driver.wait()
    code = world.start([f"checkpoint.location={world.folder / 'elsewhere'}"])
    if code != REFUSED:
        raise AssertionError(f"a start that would begin anew ended with exit code {code}")


def starve(class_name: str, world: World) -> None:
    """Kill a process while others wait for any place that becomes free."""
    found, log = world.find(class_name), world.log.with_suffix(".starving")
    log.unlink(missing_ok=True)
    others = world.nodes.popen([sys.executable, "-m", "tests.chaos.starving", "40"], log)
    await_text(log, STARVING)
    world.strike(f"kill -9 {class_name} on node {found.node}, others wait for its place")
    os.kill(found.pid, signal.SIGKILL)
    world.later(40.0, others.wait)


def resize_again_and_again(num_steps: int, world: World) -> None:
    """Change the size of the generators' pool all the time, until so many steps were made."""
    run, made, times = world.folder / world.log.stem, world.num_steps(), 0
    world.strike(f"videorl scale, again and again for {num_steps} steps")
    end = time.monotonic() + 3 * WAIT_S
    while world.num_steps() < made + num_steps:
        if time.monotonic() > end or world.driver.poll() is not None:
            done, code = world.num_steps() - made, world.driver.poll()
            raise AssertionError(f"{done} of {num_steps} steps while resized, exit code {code}")
        sizes = ["--min", "1", "--max", str(world.chance.randint(1, 4))]
        # In this process: a new one would take as long as some steps.
        with redirect_stdout(io.StringIO()):
            scale([str(run), *sizes])
        times += 1
    world.said.append(f"{times} times")


def kill_driver(world: World) -> None:
    world.strike("kill -9 the driver")
    world.driver.kill()


def kill_head(world: World) -> None:
    world.strike("kill -9 everything on the head: driver, GCS, dashboard")
    world.touched.add(0)
    world.nodes.kill(0)


def fill_disk(world: World) -> None:
    """Leave no byte free for some seconds."""
    world.strike("disk of the run folder full for 6 s")
    ballast = world.folder / "ballast"
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
    world.later(6.0, partial(ballast.unlink, missing_ok=True))


def limit_learner_files(world: World) -> None:
    """Let the learner write no file beyond some bytes for a while, as if its disk were full."""
    pid = world.find("RayTrainWorker").pid
    world.strike("the learner cannot write files beyond 2 kB for 8 s")
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (2000, hard))

    def lift() -> None:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))

    world.later(8.0, lift)


def several(world: World) -> None:
    """Three processes at once."""
    for name in world.chance.sample(sorted(_SEVERAL), 3):
        FAULTS[name](world)


def lose(world: World) -> None:
    """Kill the node that holds what `tests.chaos.losing`, the driver of this scenario, names."""
    end = time.monotonic() + WAIT_S
    while not (found := re.search(rf"{DOOMED}(\w+)", world.log.read_text())):
        if time.monotonic() > end or world.driver.poll() is not None:
            raise LookupError("the driver named no node")
        time.sleep(0.05)
    node = next(one for one in range(world.nodes.count) if world.nodes.node_id(one) == found[1])
    world.strike(f"kill -9 everything on node {node}, which holds what comes next")
    world.nodes.kill(node)
    world.touched.add(node)


_SEVERAL = {"generator", "reward worker", "learner rank", "text encoder", "archive writer"}

FAULTS: dict[str, Fault] = {
    "generator": partial(kill, "GeneratorWorker"),
    "reward worker": partial(kill, "RewardWorker"),
    "learner rank": partial(kill, "RayTrainWorker"),
    "text encoder": partial(kill, "Encoder"),
    "weight store": partial(kill, "WeightStore"),
    "archive writer": partial(kill, "ArchiveWriter"),
    "reference updater": partial(kill, "CurriculumReference"),
    "command log": partial(kill, "CommandLog"),
    "Ray Train controller": partial(kill, "TrainController"),
    "node of a generator": partial(kill_node, "GeneratorWorker"),
    "node of the reward worker": partial(kill_node, "RewardWorker"),
    "node of the learner": partial(kill_node, "RayTrainWorker"),
    "node of a generator, which comes back": partial(replace_node, "GeneratorWorker"),
    "network of a generator's node, 30 s": partial(cut_node, "GeneratorWorker", 30.0),
    "network of a generator's node, 3 s": partial(cut_node, "GeneratorWorker", 3.0),
    "network of the learner's node, 30 s": partial(cut_node, "RayTrainWorker", 30.0),
    "drained node of a generator": partial(drain_node, "GeneratorWorker"),
    "driver": kill_driver,
    "head": kill_head,
    "full disk": fill_disk,
    "full disk of the learner": limit_learner_files,
    "text encoder, again and again while it loads": partial(kill_as_it_starts, "Encoder", 15.0),
    "reward worker, whose successors die for 30 s": partial(
        kill_as_it_starts, "RewardWorker", 30.0
    ),
    "reward worker, whose successor hangs as it starts": partial(hang_as_it_starts, "RewardWorker"),
    "learner rank, whose place others wait for": partial(starve, "RayTrainWorker"),
    "drained node of the learner": partial(drain_node, "RayTrainWorker"),
    RESIZED: partial(resize_again_and_again, 24),
    "another run without room": stop_another_run,
    "another run, for which room is made": make_room_for_another_run,
    "learner rank that hangs": partial(hang, "RayTrainWorker"),
    "straggling generator": partial(slow_down, "GeneratorWorker", 30.0),
    "SIGTERM in a wait": stop_in_a_wait,
    "other place of checkpoints": move_checkpoints,
    "lost video": lose,
    "lost latents": lose,
    "three processes at once": several,
}
"""What is harmed -> how."""
