"""The policy learner on one Ray Train rank."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray.actor import ActorHandle

from actors.learner.commands import (
    Command,
    Export,
    Nothing,
    Rehearse,
    RehearseCheckpoint,
    RehearseStep,
    Restored,
    Sample,
    Step,
    UpdateReference,
)
from actors.learner.rank_worker import is_first
from actors.store.folders import write_on
from actors.store.media import opened
from actors.store.weights import publish
from videorl.config import Recipe
from videorl.errors import RehearsalError
from videorl.learning.build import build_learner
from videorl.learning.engines.deepspeed import DeepSpeedEngine
from videorl.learning.learner import Learner
from videorl.types import LearnerOutput


def make_policy_rank(
    recipe: Recipe, run_dir: Path, weight_store: ActorHandle | None, device: torch.device
) -> PolicyRank:
    """Build this rank's learner on its device; torch.distributed is up already."""
    learner, _ = build_learner(
        recipe,
        run_dir,
        partial(
            DeepSpeedEngine,
            config=recipe.optimizer,
            zero_stage=recipe.learner.zero_stage,
            micro_batch_size=recipe.learner.videos_at_once,
        ),
        device=device,
        fetch=opened,
        in_shards=recipe.learner.zero_stage == 3,
    )
    return PolicyRank(learner, weight_store)


class PolicyRank:
    """Implements `rank_worker.Rank`: after each step, rank 0 puts the weights into the store.

    Args:
        learner: Its part.
        weight_store: None if nobody else needs the weights.
    """

    def __init__(self, learner: Learner, weight_store: ActorHandle | None) -> None:
        self._learner = learner
        self._weight_store = weight_store

    def start(self) -> Restored:
        """Restore, and put every version in use into the weight store."""
        _, state = self._learner.start()
        if self._weight_store and is_first():
            for version in self._learner.in_use():
                publish(self._weight_store, version, self._learner.published(version))
        versions, size = tuple(self._learner.in_use()), self._learner.num_parameters()
        if state is None:
            return Restored(0, versions, None, size)
        return Restored(int(state["command"]) + 1, versions, state["loop"], size)

    def apply(self, command: Command) -> Any:
        """Apply one command on this rank; return what rank 0 answers."""
        match command:
            case Step(step, examples):
                return self._published(self._learner.step(step, examples))
            case Sample(request, embeds, negative_embeds):
                return self._learner.sample(request, embeds, negative_embeds)
            case UpdateReference(version):
                return self._learner.update_reference(version)
            case Export(directory, node):
                return write_on(node, Path(directory), self._learner.export)
            case RehearseStep() | RehearseCheckpoint():
                return self._rehearsed(command)
            case Nothing():
                return None
        raise AssertionError(f"unknown command {command!r}")

    def save(self, index: int, loop_state: dict[str, Any]) -> Future[None]:
        """Write a checkpoint in the background."""
        return self._learner.save({"command": index, "loop": loop_state})

    def close(self) -> None:
        """Return when everything begun is written."""
        self._learner.close()

    def _rehearsed(self, command: Rehearse) -> float:
        """Do it, and make any error one that ends the learner: the same would come again."""
        try:
            if isinstance(command, RehearseStep):
                return self._learner.rehearse_step(command.examples)
            return self._learner.rehearse_checkpoint()
        except Exception as error:
            raise RehearsalError(f"{type(error).__name__}: {error}") from error

    def _published(self, output: LearnerOutput) -> LearnerOutput:
        if not self._weight_store or not is_first():
            return output
        started = time.perf_counter()
        publish(self._weight_store, output.version, self._learner.published(output.version))
        publish_s = output.metrics["time/publish_s"] + time.perf_counter() - started
        return replace(output, metrics={**output.metrics, "time/publish_s": publish_s})
