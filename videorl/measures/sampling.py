"""Sample a suite with a policy, into a folder that a stop leaves usable."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from videorl.errors import PromptError, WorkLostError
from videorl.files import write_text
from videorl.measures.suites import Suite
from videorl.protocols import Generator
from videorl.types import CandidateGroup, Media, Prompt, SampleRequest, WeightVersion

logger = logging.getLogger(__name__)

Save = Callable[[Mapping[Path, Media]], None]
"""Writes videos, or what their handles stand for, as mp4 files by path, each whole or not."""
_LOOK_S = 1.0
"""While nothing comes back, look so often whether to stop."""


def file_name(prompt: Prompt, sample: int) -> str:
    """Return the name of a video: equal for all policies, so that they are paired by it."""
    return f"{prompt.index:05d}-{sample:02d}.mp4"


def missing_requests(
    suite: Suite, folder: Path, version: WeightVersion, most: int
) -> Iterator[SampleRequest]:
    """Yield what is to be sampled, in parts of at most `most` candidates."""
    for prompt in suite.prompts:
        seeds = suite.seeds(prompt)
        left = [n for n in range(suite.samples) if not (folder / file_name(prompt, n)).exists()]
        while left:
            # A request has candidates of consecutive numbers.
            count = next((n for n in range(1, len(left)) if left[n] != left[0] + n), len(left))
            taken, left = left[: min(count, most)], left[min(count, most) :]
            part = tuple(seeds[n] for n in taken)
            yield SampleRequest(0, prompt, part, version, first=taken[0])


def num_missing(suite: Suite, folder: Path) -> int:
    """Return how many videos are not there yet."""
    names = (file_name(p, n) for p in suite.prompts for n in range(suite.samples))
    return sum(not (folder / name).exists() for name in names)


def sample_suite(
    requests: Iterator[SampleRequest],
    generator: Generator,
    save: Save,
    folder: Path,
    done: Callable[[int], None],
    should_stop: Callable[[], bool],
    *,
    max_pending: int,
) -> bool:
    """Write a video per candidate; return False if stopped.

    What is lost on the way is logged, and sampled by the next call.

    Args:
        requests: See `missing_requests`.
        generator: In this process or on a pool.
        save: See `Save`.
        folder: Gets the videos.
        done: Is told of the number of videos of each request that has ended.
        should_stop: Asked between results; what is being sampled then is dropped.
        max_pending: Requests that are sampled or wait for it at the same time (>= 1).
    """
    pending: dict[Future[CandidateGroup], SampleRequest] = {}
    is_left = True
    while not should_stop():
        while is_left and len(pending) < max_pending:
            if (request := next(requests, None)) is None:
                is_left = False
                break
            pending[generator.submit(request)] = request
        if not pending:
            return True
        ended, _ = wait(pending, _LOOK_S, FIRST_COMPLETED)
        for future in ended:
            request = pending.pop(future)
            _write(future, request, save, folder)
            done(len(request.seeds))
    return False


def _write(
    future: Future[CandidateGroup], request: SampleRequest, save: Save, folder: Path
) -> None:
    try:
        group = future.result()
        save(
            {
                folder / file_name(request.prompt, candidate.index): candidate.video
                for candidate in group.candidates
            }
        )
    except (PromptError, WorkLostError) as error:
        logger.warning("%d videos are lost: %s", len(request.seeds), error)
        return
    for reason, count in group.dropped.items():
        logger.warning("%d videos of %r are lost: %s", count, request.prompt.text[:60], reason)


def list_prompts(suite: Suite, folder: Path) -> int:
    """Write `prompts.csv`, which names every video of the suite; return how many are missing."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(("video", "prompt"))
    lost = 0
    for prompt in suite.prompts:
        for name in (file_name(prompt, n) for n in range(suite.samples)):
            if (folder / name).exists():
                table.writerow((name, prompt.text))
            else:
                lost += 1
    write_text(folder / "prompts.csv", text.getvalue())
    return lost


def folders_of(out: Path, labels: Sequence[str]) -> dict[str, Path]:
    """Return where the videos of each policy lie."""
    return {label: out / "videos" / label for label in labels}
