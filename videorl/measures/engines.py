"""What samples the policies of a comparison: a policy in this process, or a pool elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from videorl.config import Recipe
from videorl.data.video_io import write_mp4
from videorl.errors import ConfigError, WorkLostError
from videorl.measures.policies import NamedPolicy, describe, note_policy
from videorl.measures.sampling import (
    Save,
    folders_of,
    list_prompts,
    missing_requests,
    num_missing,
    sample_suite,
)
from videorl.measures.suites import Suite
from videorl.protocols import Generator
from videorl.run.progress import progress
from videorl.types import Media, WeightVersion

_AT_ONCE = 4
"""Videos of a request, at most, where the recipe does not say: a stop loses no more than these."""


@dataclass(frozen=True)
class Engine:
    """A policy that is ready to sample."""

    generator: Generator
    version: WeightVersion
    save: Save
    max_pending: int
    """Requests that are worth having under way."""


Open = Callable[[NamedPolicy], AbstractContextManager[Engine]]


def sampling_only(recipe: Recipe) -> Recipe:
    """Return a recipe of which nothing but its policy's workers is started."""
    return replace(recipe, rewards=[], learner=recipe.learner.taking_nothing())


@contextmanager
def here(policy: NamedPolicy) -> Iterator[Engine]:
    """Load a policy into this process."""
    from videorl.policies import load_policy
    from videorl.policies.checkpoints import PARTS
    from videorl.sampling.local import LocalGenerator
    from videorl.weights import digest

    recipe = policy.recipe
    loaded = load_policy(recipe.policy, recipe.sampling, parts=PARTS, seed=recipe.seed)
    weights = policy.weights() or loaded.weights()
    version = WeightVersion(0, digest(weights))
    generator = LocalGenerator(loaded, recipe.sampling.negative_prompt, lambda _: weights)
    yield Engine(generator, version, _write, 1)


def _write(files: Mapping[Path, Media]) -> None:
    for path, video in files.items():
        write_mp4(path, video)


def sample_policies(
    policies: Sequence[NamedPolicy],
    suite: Suite,
    out: Path,
    open_engine: Open,
    should_stop: Callable[[], bool],
) -> dict[str, Path] | None:
    """Sample the suite with every policy, one policy after the other; go on where that stopped.

    Args:
        policies: A policy whose videos are all there is not loaded.
        suite: Prompts and seeds.
        out: Gets `videos/NAME`.
        open_engine: `here`, or one that opens a pool.
        should_stop: Asked between videos.

    Returns:
        Label -> folder; None if stopped.

    Raises:
        ConfigError: A folder has videos of something else.
        WorkLostError: A policy gave no video at all.
    """
    folders = folders_of(out, [policy.label for policy in policies])
    for policy in policies:  # what is wrong with a folder is said before hours of work
        note_policy(folders[policy.label], policy, suite)
    for policy in policies:
        folder = folders[policy.label]
        count = num_missing(suite, folder)
        if count and not _sample(policy, suite, folder, count, open_engine, should_stop):
            return None
        if list_prompts(suite, folder) == len(suite.prompts) * suite.samples:
            raise WorkLostError(f"{describe(policy)}: not a single video could be sampled")
    return folders


def _sample(
    policy: NamedPolicy,
    suite: Suite,
    folder: Path,
    count: int,
    open_engine: Open,
    should_stop: Callable[[], bool],
) -> bool:
    if should_stop():
        return False
    reached = 0
    with open_engine(policy) as engine, progress(f"videos of {policy.label}", count) as reach:

        def done(videos: int) -> None:
            nonlocal reached
            reached += videos
            reach(reached)

        most = policy.recipe.candidates_per_request() or _AT_ONCE
        requests = missing_requests(suite, folder, engine.version, most)
        return sample_suite(
            requests,
            engine.generator,
            engine.save,
            folder,
            done,
            should_stop,
            max_pending=engine.max_pending,
        )


def check_images(policies: Sequence[NamedPolicy], suite: Suite) -> None:
    """Refuse prompts that lack the picture that a policy needs, or have one in vain.

    Raises:
        ConfigError: They do.
    """
    from videorl.policies import takes_images

    for policy in policies:
        wanted = takes_images(policy.recipe.policy.family)
        if any(bool(prompt.image) != wanted for prompt in suite.prompts):
            needs = "a picture with each prompt" if wanted else "prompts without pictures"
            raise ConfigError(f"{policy.label} takes {needs}; {suite.name} has others")
