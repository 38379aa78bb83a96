"""The other processes of a generator that shares every video among several.

The generator's actor, the leader, asks Ray for the GPUs of all of them, which are therefore of one
node, and starts the others as its children. They form a group of torch.distributed; the leader
tells them by pipes what all do next. If any of them dies, all do, and the pool starts anew: a group
with a hole would wait for ever.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NoReturn

from ray import cloudpickle

from videorl.errors import VideorlError, WeightMismatchError
from videorl.types import SampleRequest, WeightVersion

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from videorl.embedding import Embedding
    from videorl.protocols import Policy
    from videorl.sampling.sampler import CandidateSampler

logger = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_NOTICED_S = 5.0


@dataclass(frozen=True)
class Sharing:
    """The processes of one generator."""

    num_processes: int = 1
    """The leader included; each has an equal share of the worker's CPUs, and a GPU of its own."""
    load: Callable[[torch.device], Policy] | None = None
    """Builds the policy of a follower, which needs only the transformer."""


@dataclass(frozen=True)
class _Place:
    """Which process of which group."""

    rank: int
    size: int
    port: int
    on_gpu: bool
    num_threads: int


class Followers:
    """The followers of this process, which becomes rank 0 of the group.

    Args:
        sharing: How many, and what they load.
        device: Of this process.
        num_threads: Of each process.
    """

    def __init__(self, sharing: Sharing, device: torch.device, num_threads: int) -> None:
        from torch.distributed import TCPStore

        size, self._device, self._is_broken = sharing.num_processes, device, False
        self.is_uncompiled = False
        """The blocks of a follower did not compile."""
        store = TCPStore(_HOST, 0, size, is_master=True, wait_for_workers=False)
        spawn, self._pipes = multiprocessing.get_context("spawn"), list[Connection]()
        children = list[Any]()
        for rank in range(1, size):
            ours, theirs = spawn.Pipe()
            place = _Place(rank, size, store.port, device.type == "cuda", num_threads)
            packed = cloudpickle.dumps(sharing.load)
            arguments = (theirs, packed, place)
            children.append(spawn.Process(target=_follow, args=arguments, daemon=True))
            children[-1].start()
            theirs.close()
            self._pipes.append(ours)
        self._sentinels = [child.sentinel for child in children]
        threading.Thread(target=_die_with, args=(self._sentinels, "follower"), daemon=True).start()
        _join(store, 0, size, device)

    def wait_until_ready(self) -> None:
        """Return when every follower has its policy.

        Raises:
            RuntimeError: One could not load it.
        """
        for rank, pipe in enumerate(self._pipes, 1):
            if problem := pipe.recv_bytes().decode():
                raise RuntimeError(f"process {rank} of a generator: {problem}")

    def load(self, version: WeightVersion, weights: Mapping[str, Tensor]) -> None:
        """Hand weights to the followers, each of which proves their digest.

        Raises:
            WeightMismatchError: The live parameters of one are not those of `version`.
        """
        from torch.distributed import broadcast

        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}
        with self._in_step("load", version, shapes):
            for tensor in weights.values():
                broadcast(tensor.to(self._device).contiguous(), src=0)
            answers = [cloudpickle.loads(pipe.recv_bytes()) for pipe in self._pipes]
        for rank, problem in enumerate(answers, 1):
            if problem:
                raise WeightMismatchError(f"process {rank} of a generator: {problem}")

    @contextmanager
    def sampling(self, request: SampleRequest, *embeds: Embedding) -> Iterator[None]:
        """Have them sample what this process samples inside the `with` block, and nothing more.

        An error in the block breaks the group.
        """
        with self._in_step("sample", request, *embeds):
            yield
            failures = [cloudpickle.loads(pipe.recv_bytes()) for pipe in self._pipes]
        self.is_uncompiled = any(failures)

    @contextmanager
    def _in_step(self, *command: Any) -> Iterator[None]:
        """Send a command that all processes obey together.

        Where this process fails, the others wait in the middle of it: their next command would
        find them out of step, so there is none.
        """
        if self._is_broken:
            _die("the processes of a generator are out of step after an error")
        packed = cloudpickle.dumps(command)
        self._is_broken = True
        for pipe in self._pipes:
            pipe.send_bytes(packed)
        try:
            yield
        except VideorlError:
            raise
        except Exception:
            # Perhaps because another has died, which takes a moment to be seen: no error of ours.
            if wait(self._sentinels, _NOTICED_S):
                _die("a follower has died")
            raise
        self._is_broken = False


def _follow(pipe: Connection, packed: bytes, place: _Place) -> None:
    """Be a follower until the leader ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    leader = [parent.sentinel]
    threading.Thread(target=_die_with, args=(leader, "leader"), daemon=True).start()
    import torch
    from torch.distributed import TCPStore

    from videorl.policies.compiling import num_failures
    from videorl.sampling.sampler import CandidateSampler

    torch.set_num_threads(place.num_threads)
    device = torch.device("cuda", place.rank) if place.on_gpu else torch.device("cpu")
    _join(TCPStore(_HOST, place.port, place.size, is_master=False), place.rank, place.size, device)
    try:
        sampler = CandidateSampler(cloudpickle.loads(packed)(device))
    except Exception as error:
        # Dying would take the leader along before it can tell this error, or its own.
        pipe.send_bytes(f"{type(error).__name__}: {error}".encode())
        pipe.recv_bytes()
        raise
    pipe.send_bytes(b"")
    while True:
        match cloudpickle.loads(pipe.recv_bytes()):
            case ("load", version, shapes):
                problem = _received(sampler, version, shapes, device)
                pipe.send_bytes(cloudpickle.dumps(problem))
            case ("sample", request, *embeds):
                sampler.latents(request, *embeds)
                pipe.send_bytes(cloudpickle.dumps(num_failures()))
            case command:
                raise AssertionError(f"unknown command {command!r}")


def _received(
    sampler: CandidateSampler, version: WeightVersion, shapes: Mapping[str, Any], device: Any
) -> str:
    """Load weights that the leader sends; return what is wrong with them, or nothing."""
    import torch

    weights: dict[str, Tensor] = {}
    for name, (shape, dtype) in shapes.items():
        tensor = torch.empty(shape, dtype=dtype, device=device)
        torch.distributed.broadcast(tensor, src=0)
        weights[name] = tensor.cpu()
    try:
        sampler.load(version, weights)
    except WeightMismatchError as error:
        return str(error)
    return ""


def _join(store: Any, rank: int, size: int, device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size)


def _die_with(sentinels: Sequence[int], name: str) -> None:
    wait(sentinels)
    _die(f"a {name} has died")


def _die(reason: str) -> NoReturn:
    """End this process at once, whatever its threads wait for."""
    logger.error("this process of a generator ends: %s", reason)
    os._exit(1)
