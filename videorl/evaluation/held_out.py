"""Sample and score fixed held-out prompts with fixed seeds."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from pathlib import Path

import numpy as np

from videorl.config import Recipe
from videorl.data.prompts import evaluation_prompts
from videorl.errors import PromptError, WorkLostError
from videorl.evaluation.kept_groups import KeptGroups
from videorl.protocols import Generator, Scorer
from videorl.rollouts import chain
from videorl.run.progress import progress
from videorl.sampling.parts import PART_LOST, InParts
from videorl.seeds import derive_seed
from videorl.types import Prompt, SampleRequest, ScoredGroup, WeightVersion

logger = logging.getLogger(__name__)

_LOOK_S = 1.0
"""While nothing comes back, look so often whether to stop."""


def held_out_prompts(recipe: Recipe, count: int | None = None) -> list[Prompt]:
    """Return evaluation prompts, chosen by `evaluation.seed` alone.

    A weight of 0 leaves a prompt out; other weights do not matter: each counts once in the means.

    Args:
        recipe: Its `evaluation` says which.
        count: So many, which are among those of any larger number; None =
            `evaluation.num_prompts`.
    """
    rows = [row for row in evaluation_prompts(recipe) if row.weight > 0]
    order = np.random.default_rng(recipe.evaluation.seed).permutation(len(rows))
    count = recipe.evaluation.num_prompts if count is None else count
    indices = sorted(order[:count].tolist())
    return [rows[index].prompt(index) for index in indices]


def evaluation_seeds(recipe: Recipe, prompt: Prompt, count: int) -> tuple[int, ...]:
    """Return the first `count` seeds of a prompt; the same for every policy."""
    seed = recipe.evaluation.seed
    return tuple(derive_seed(seed, "evaluation", prompt.text, index) for index in range(count))


def held_out_requests(
    recipe: Recipe, prompts: Sequence[Prompt], samples: int, version: WeightVersion
) -> list[SampleRequest]:
    """Return a request for `samples` candidates of every prompt."""
    return [
        SampleRequest(0, prompt, evaluation_seeds(recipe, prompt, samples), version)
        for prompt in prompts
    ]


def most_in_flight(recipe: Recipe) -> int:
    """Return how many prompts are sampled and scored at once: enough that no worker idles."""
    scoring = max(reward.most_workers for reward in recipe.rewards)
    return max(recipe.prompts_in_flight, 2 * (recipe.generators.max_workers + scoring))


def sample_and_score(
    recipe: Recipe,
    version: WeightVersion,
    generator: Generator,
    scorer: Scorer,
    *,
    samples: int,
    should_stop: Callable[[], bool],
    kept: KeptGroups,
) -> list[ScoredGroup] | None:
    """Return one scored group of `samples` candidates per held-out prompt, in prompt order.

    A prompt that is lost on the way is logged and left out.

    Args:
        recipe: Its `evaluation` names prompts and seeds.
        version: The weights to sample from.
        generator: Samples, in this process or on a pool.
        scorer: Scores, likewise.
        samples: Candidates per prompt, >= 1.
        should_stop: Asked between results, and while there are none; None is returned when it says
            so before the last one.
        kept: Groups that are there already are not sampled again; the others are added as they
            come.
    """
    requests = held_out_requests(recipe, held_out_prompts(recipe), samples, version)
    generator = InParts(generator, recipe.candidates_per_request())
    run = partial(chain, generator=generator, scorer=scorer)
    num_done = sum(kept.find(request) is not None for request in requests)
    with progress(f"held-out prompts, version {version.step}", len(requests), num_done) as reach:
        return stream(requests, run, most_in_flight(recipe), should_stop, kept, reach)


def stream(
    requests: Sequence[SampleRequest],
    run: Callable[[SampleRequest], Future[ScoredGroup]],
    most: int,
    should_stop: Callable[[], bool],
    kept: KeptGroups,
    reach: Callable[[int], None] = lambda done: None,
) -> list[ScoredGroup] | None:
    """Return the groups of requests, in prompt order, with a bounded number under way.

    Args:
        requests: One per prompt.
        run: Begins a request.
        most: Requests (>= 1) that may be under way at once.
        should_stop: As of `sample_and_score`.
        kept: Likewise.
        reach: Told how many are done.

    Raises:
        Exception: What a request failed with, unless that only loses its prompt; what came
            meanwhile is kept.
    """
    found = {
        request.prompt.index: group
        for request in requests
        if (group := kept.find(request)) is not None
    }
    missing = [request for request in requests if request.prompt.index not in found]
    num_done, failed = len(found), list[Exception]()
    reach(num_done)
    for request, future in _finished(missing, run, most, lambda: bool(failed) or should_stop()):
        try:
            group = future.result()
            if PART_LOST in group.dropped:
                raise WorkLostError(f"{group.dropped[PART_LOST]} of its candidates")
            found[request.prompt.index] = group
            if (video := kept.add(request, group)) is not None:
                print(_seen(video, group), file=sys.stderr, flush=True)
        except (PromptError, WorkLostError) as error:
            logger.warning("a held-out prompt was lost: %s", error)
        except Exception as error:  # ends the evaluation, once what else came is kept
            failed.append(error)
        num_done += 1
        reach(num_done)
    if failed:
        raise failed[0]
    if num_done < len(requests):
        return None
    return [found[index] for index in sorted(found)]


def _seen(video: Path, group: ScoredGroup) -> str:
    """Return a line about a video that can be looked at already."""
    score = group.candidates[0].score
    parts = ", ".join(f"{name} {value:+.2f}" for name, value in score.dimensions.items())
    return f"{video}: {group.prompt.text!r}, total {score.total:+.2f} ({parts})"


_Pending = dict[Future[ScoredGroup], SampleRequest]


def _finished(
    requests: Sequence[SampleRequest],
    run: Callable[[SampleRequest], Future[ScoredGroup]],
    most: int,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[SampleRequest, Future[ScoredGroup]]]:
    """Yield requests with their results as these come, until all have or it is to stop."""
    pending: _Pending = {}
    for request in requests:
        while len(pending) >= most and not should_stop():
            yield from _done(pending, _LOOK_S)
        if should_stop():
            break
        pending[run(request)] = request
        yield from _done(pending, 0.0)  # parts of this process answer at once
    while pending and not should_stop():
        yield from _done(pending, _LOOK_S)
    yield from _done(pending, 0.0)  # what came meanwhile is not thrown away


def _done(
    pending: _Pending, timeout_s: float
) -> Iterator[tuple[SampleRequest, Future[ScoredGroup]]]:
    done, _ = wait(pending, timeout_s, FIRST_COMPLETED)
    for future in done:
        yield pending.pop(future), future


NOTHING_SHARED = (
    "base and aligned policy cannot be compared: every held-out prompt lost a candidate of one of "
    "them; the counts in evaluation/before.json and after.json say why"
)


def shared_prompts(
    before: Sequence[ScoredGroup], after: Sequence[ScoredGroup]
) -> tuple[list[ScoredGroup], list[ScoredGroup]]:
    """Return the groups of prompts that lost no candidate in either list, in the same order."""
    by_index = {group.prompt.index: group for group in after if not group.dropped}
    kept = [group for group in before if not group.dropped and group.prompt.index in by_index]
    return kept, [by_index[group.prompt.index] for group in kept]
