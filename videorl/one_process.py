"""A whole run in one process: the same parts, without a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from videorl.canary import Canary, canary_request, compare, explain
from videorl.config import Recipe
from videorl.data.archive import Archive
from videorl.data.preference_videos import has_videos
from videorl.data.preferences import read_preferences
from videorl.data.prompts import PromptStream, load_prompts
from videorl.errors import WeightMismatchError
from videorl.evaluation.unseen import unseen_metrics
from videorl.learning.engines.local import LocalEngine
from videorl.learning.from_candidates import PolicyLearner
from videorl.learning.from_rewards import ReFLLearner
from videorl.learning.loop import run_learner
from videorl.learning.prompts import PromptExamples
from videorl.learning.reference import CurriculumReference, LocalReferenceUpdater
from videorl.learning.stored_pairs import (
    PairStream,
    check_archive,
    check_shape,
    encode_archive,
    probe_sampling,
)
from videorl.loop import Parts, Progress
from videorl.objectives import load_objective
from videorl.policies import load_policy
from videorl.protocols import MetricSink
from videorl.rewards import load
from videorl.rewards.differentiable import load_differentiable
from videorl.run.checkpoints import open_checkpoints
from videorl.run.folder import RunFolder
from videorl.sampling.local import LocalGenerator, LocalScorer
from videorl.types import WeightVersion
from videorl.weighting import load_selection

_ALL_PARTS = frozenset({"transformer", "vae", "text_encoder"})


def local_parts(recipe: Recipe, folder: RunFolder, sink: MetricSink) -> tuple[Parts, Progress]:
    """Build or restore every part of a run in this process."""
    trained = load_policy(
        recipe.policy,
        recipe.sampling,
        parts=frozenset({"transformer"}),
        seed=recipe.seed,
        trainable=True,
    )
    learner = PolicyLearner(
        trained,
        load_objective(recipe.objective, trained.process),
        LocalEngine(trained.trainable_module(), recipe.optimizer),
        recipe,
        open_checkpoints(recipe.checkpoint, folder.root),
    )
    version, state = learner.start()
    curriculum = CurriculumReference(recipe.reference.interval, version)
    if state is not None:
        curriculum.restore(state["reference"])
    sampler = load_policy(recipe.policy, recipe.sampling, parts=_ALL_PARTS, seed=recipe.seed)
    models = {one.key: load(one.name, one.path, **one.options) for one in recipe.rewards}
    archive = Archive(folder.archive, recipe.archive.videos, recipe.archive.latents)
    archive.truncate(version.step)
    generator = LocalGenerator(sampler, recipe.sampling.negative_prompt, learner.published)
    parts = Parts(
        prompts=PromptStream(load_prompts(recipe.prompts.source, "train"), recipe.seed),
        generator=generator,
        scorer=LocalScorer(models, recipe.rewards, unseen_metrics),
        select=load_selection(recipe),
        learner=learner,
        reference=LocalReferenceUpdater(learner, curriculum),
        archive=archive,
        sink=sink,
        canary=local_canary(recipe, generator, learner),
    )
    return parts, Progress(version.step, learner.in_use())


def local_canary(recipe: Recipe, generator: LocalGenerator, learner: PolicyLearner) -> Canary:
    """Return the canary of a run in one process."""

    def check(version: WeightVersion) -> float:
        request = canary_request(recipe, version)
        wanted = learner.sample(request, *generator.embeds(request.prompt.text))
        try:
            return compare(
                generator.latents(request), wanted, version, recipe.rollouts.canary_tolerance
            )
        except WeightMismatchError as error:
            raise explain(version, error) from error

    return check


def run_offline(recipe: Recipe, folder: RunFolder, should_stop: Callable[[], bool]) -> bool:
    """Run the recipe in this process, or go on with it; return whether it reached its last step.

    The aligned policy is exported to the run folder then; nothing is evaluated.

    Raises:
        ArchiveError: The archive cannot be learned from, or holds latents of another model.
    """
    check_archive(recipe, folder)
    if has_videos(archive := Path(recipe.offline.archive)):
        encode_archive(recipe, folder)
        archive = folder.latents
    preferences = read_preferences(archive)
    policy = load_policy(
        recipe.policy,
        probe_sampling(recipe.sampling),
        parts=frozenset({"transformer", "text_encoder"}),
        seed=recipe.seed,
        trainable=True,
    )
    probe_BCTHW = policy.sample(policy.encode([preferences.prompts[0]])[0], None, [0])
    check_shape(preferences, probe_BCTHW)
    learner = PolicyLearner(
        policy,
        load_objective(recipe.objective, policy.process),
        LocalEngine(policy.trainable_module(), recipe.optimizer),
        recipe,
        open_checkpoints(recipe.checkpoint, folder.root),
    )
    pairs = PairStream(preferences, lambda text: policy.encode([text])[0], recipe.seed)
    return run_learner(recipe, folder, learner, pairs, should_stop)


def run_refl(recipe: Recipe, folder: RunFolder, should_stop: Callable[[], bool]) -> bool:
    """Run the recipe in this process, or go on with it; return whether it reached its last step.

    The aligned policy is exported to the run folder then; nothing is evaluated.

    Args:
        recipe: With `objective.name=refl`.
        folder: Of the run, as `videorl.run.folder.open_run` gives it.
        should_stop: Asked between steps.
    """
    examples: PromptExamples[Tensor]
    reward = load_differentiable(recipe.rewards)
    policy = load_policy(
        recipe.policy,
        recipe.sampling,
        parts=frozenset({"transformer", "vae", "text_encoder"}),
        seed=recipe.seed,
        trainable=True,
    )
    examples = PromptExamples(recipe, lambda text: policy.encode([text])[0])
    learner = ReFLLearner(
        policy,
        reward,
        LocalEngine(policy.trainable_module(), recipe.optimizer),
        recipe,
        open_checkpoints(recipe.checkpoint, folder.root),
    )
    return run_learner(recipe, folder, learner, examples, should_stop)
