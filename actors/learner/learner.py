"""The driver's view of the policy learner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.actor import ActorHandle

from actors.learner.commands import (
    RehearseCheckpoint,
    RehearseStep,
    Restored,
    Sample,
    Step,
    UpdateReference,
)
from actors.learner.deadlines import policy_deadlines
from actors.learner.policy_rank import make_policy_rank
from actors.learner.rank_group import LearnerResources, RankGroup
from actors.naming import run_name
from actors.store.handles import to_learn_from
from videorl.config import Recipe
from videorl.storage.access import access, taking
from videorl.types import (
    LearnerOutput,
    Media,
    PromptExample,
    SampleRequest,
    TrainingExample,
    WeightVersion,
)

if TYPE_CHECKING:
    from torch import Tensor


class RayLearner:
    """Implements `videorl.protocols.Learner` on a group of Ray Train workers.

    Args:
        recipe: The run.
        run_dir: Its folder, visible to every rank.
        weight_store: Where rank 0 puts published weights; None = nobody else needs them.
        resources: Of each rank.
        places: Says who has what of the cluster, while the ranks wait for a place.
        should_stop: Asked while `start` waits.
    """

    def __init__(
        self,
        recipe: Recipe,
        run_dir: Path,
        weight_store: ActorHandle | None,
        resources: LearnerResources,
        places: Callable[[], str],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        make = partial(make_policy_rank, recipe, run_dir, weight_store)
        make = taking(access(run_dir, recipe.checkpoint.location), make)
        failures, deadlines = recipe.learner.max_failures, policy_deadlines(recipe)
        run = run_name(recipe)
        self._ranks = RankGroup(make, run_dir, resources, failures, deadlines, places, run)
        if not recipe.checkpoint.interval:  # or the latents of all steps would have to be kept
            self._ranks.keep_no_commands()
        self._versions: list[WeightVersion] = []
        self._num_versions = recipe.versions_sampled
        self._should_stop = should_stop
        self._num_parameters = 0

    def begin(self) -> None:
        """Start the worker group without waiting for it."""
        self._ranks.begin()

    def restored(self, should_stop: Callable[[], bool] = lambda: False) -> Restored:
        """Wait until the learner is up; return where it stands.

        Raises:
            StoppedError: `should_stop`, which is asked every second, said so.
        """
        restored = self._ranks.restored(should_stop)
        self._versions, self._num_parameters = [*restored.versions], restored.num_parameters
        return restored

    def start(self) -> tuple[WeightVersion, Mapping[str, Any] | None]:
        """Begin, and return the newest version with the loop state saved beside it.

        Raises:
            StoppedError: As `restored`, of the learner's own `should_stop`.
        """
        self.begin()
        restored = self.restored(self._should_stop)
        return restored.versions[-1], restored.loop_state

    def step(self, step: int, examples: Sequence[TrainingExample | PromptExample]) -> LearnerOutput:
        """Apply one optimizer step on all ranks; the new weights are in the weight store."""
        output: LearnerOutput = self._ranks.call(Step(step, tuple(map(to_learn_from, examples))))
        self._versions = [*self._versions, output.version][-self._num_versions :]
        return output

    def sample(self, request: SampleRequest, embeds: Media, negative_embeds: Media) -> Tensor:
        """Return the latents [B, C, T, H, W] that the learner samples for a request."""
        latents: Tensor = self._ranks.call(Sample(request, embeds, negative_embeds))
        return latents

    def update_reference(self, version: WeightVersion) -> None:
        """Make the reference equal to the policy at `version`."""
        self._ranks.call(UpdateReference(version))

    def save(self, loop_state: Mapping[str, Any]) -> Future[None]:
        """Write a checkpoint in the background; the future fails as the write did."""
        return self._ranks.save(loop_state)

    def export(self, directory: Path) -> None:
        """Write the policy for diffusers pipelines."""
        self._ranks.export(directory)

    def num_parameters(self) -> int:
        """Return how many weights the policy's transformer has, once it is up."""
        return self._num_parameters

    def rehearse_step(self, examples: Sequence[TrainingExample | PromptExample]) -> float:
        """Go forward and backward on all ranks; return the peak of rank 0's GPU in GiB."""
        return self._ranks.rehearse(RehearseStep(tuple(map(to_learn_from, examples))))

    def rehearse_checkpoint(self) -> float:
        """Write, read and remove a checkpoint; return the peak of rank 0's GPU in GiB."""
        return self._ranks.rehearse(RehearseCheckpoint())

    def newest(self) -> WeightVersion:
        """Return the version of the policy."""
        assert self._versions, "restored() comes first"
        return self._versions[-1]

    def in_use(self) -> list[WeightVersion]:
        """Return the published versions that samples may be asked of, oldest first."""
        return list(self._versions)

    def starts(self) -> int:
        """Return how often the worker group has started."""
        return self._ranks.starts()

    def nodes(self) -> frozenset[str]:
        """Return the ids of the nodes that ranks are on."""
        return self._ranks.nodes()

    def num_ranks(self) -> int:
        """Return how many ranks the running worker group has."""
        return self._ranks.num_ranks()

    def close(self) -> None:
        """Let the ranks leave; a group that does not within seconds is killed with the driver."""
        self._ranks.close()
