"""Answers that come back from Label Studio."""

from __future__ import annotations

import itertools
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from os.path import realpath
from pathlib import Path
from typing import Any

from videorl.errors import DatasetError
from videorl.judging.annotators import checked_name
from videorl.judging.answers import Answers
from videorl.judging.label_studio import SIDES, TIE, WHO, read_tasks, videos_of
from videorl.judging.questions import OVERALL
from videorl.judging.study import Answer, Study, StudyPair

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of the annotations of an export."""

    num_new: int
    num_known: int
    """This person's answer on the pair was there before, and was kept as it is."""
    left_out: Mapping[str, int]
    """Why others are no answers -> how many."""


class _NoAnswerError(Exception):
    """An annotation that can be read, but is no answer."""


def import_annotations(path: Path, answers: Answers, study: Study) -> Imported:
    """Add the annotations of an export to a study.

    Tasks are matched by `data.pair`, where `data.study` is this study, or else by their two videos;
    of several pairs of the same videos, the first task is of the first.

    Label Studio does not say which side was where on the screen, and not always how long it took
    and when: such an answer has None there.

    Raises:
        DatasetError: The tasks are those of another study, or an annotation cannot be read; no
            answer has been added.
    """
    tasks = read_tasks(path)
    found: list[Answer] = []
    left_out: Counter[str] = Counter()
    for number, (task, pair) in enumerate(zip(tasks, _matched(path, tasks, study), strict=True), 1):
        for annotation in task.get("annotations") or ():
            try:
                found.append(_answer(annotation, pair, study))
            except _NoAnswerError as reason:
                left_out[str(reason)] += 1
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise DatasetError(
                    f"{path}, task {number}: an annotation cannot be read ({error!r:.80})"
                ) from error
    for reason, count in left_out.items():
        logger.warning("%d annotations are left out: %s", count, reason)
    num_new = 0
    for answer in found:
        earlier = answers.latest.get((answer.pair, answer.annotator))
        if not (earlier and earlier.is_complete):
            answers.add(answer)
            num_new += 1
    return Imported(num_new, len(found) - num_new, left_out)


def _matched(path: Path, tasks: Sequence[dict[str, Any]], study: Study) -> list[StudyPair]:
    by_videos: defaultdict[tuple[str, str], deque[StudyPair]] = defaultdict(deque)
    for pair in study.pairs:
        by_videos[realpath(pair.a.video), realpath(pair.b.video)].append(pair)
    found: list[StudyPair] = []
    for number, task in enumerate(tasks, 1):
        name, pair = task["data"].get("study"), task["data"].get("pair")
        if name is None:
            found.append(_of_these_videos(path, number, task, by_videos))
        elif name != study.id:
            raise DatasetError(f"{path} holds tasks of the study {name}, not of {study.id}")
        elif pair not in study.by_id:
            raise DatasetError(f"{path}, task {number}: its pair is not in the study: {pair!r}")
        else:
            found.append(study.by_id[pair])
    return found


def _of_these_videos(
    path: Path,
    number: int,
    task: Mapping[str, Any],
    by_videos: Mapping[tuple[str, str], deque[StudyPair]],
) -> StudyPair:
    """Take the next pair of a task's two videos."""
    firsts, seconds = videos_of(path, number, task).values()
    for a, b in itertools.product(firsts, seconds):
        if pairs := by_videos.get((realpath(a), realpath(b))):
            return pairs.popleft()
    raise DatasetError(
        f"{path}, task {number} compares {firsts[0]} with {seconds[0]}, and the study has no pair "
        "(or no further pair) of these two in this order; is it the export of another project?"
    )


def _answer(annotation: dict[str, Any], pair: StudyPair, study: Study) -> Answer:
    """Return what an annotation says.

    Raises:
        _NoAnswerError: It was skipped, is incomplete or contradicts itself, or has no author.
    """
    if annotation.get("was_cancelled"):
        raise _NoAnswerError("skipped by whoever judged")
    names = [question.name for question in study.asks.questions]
    choices: dict[str, str] = {}
    who = ""
    for name, kind, value in _regions(annotation):
        if kind == "textarea" and name == WHO:
            who = value["text"][0] if isinstance(value["text"], list) else value["text"]
            continue
        if kind == "pairwise":
            question, choice = name if name in names else names[0], SIDES[value["selected"]]
        elif kind == "choices" and (name in names or name == TIE):
            (choice,) = value["choices"]
            question = OVERALL if name == TIE else name
        else:
            continue
        if choices.setdefault(question, choice) != choice:
            raise _NoAnswerError(f"two answers to {question}")
    if len(choices) < len(names):
        raise _NoAnswerError("a question is open")
    if problem := study.asks.check(choices):
        raise ValueError(f"the study {problem}")
    seconds = annotation.get("lead_time")
    return Answer(
        pair.id,
        checked_name(who or _author(annotation)),
        choices,
        is_complete=True,
        left=None,
        seconds=None if seconds is None else float(seconds),
        time=_time(annotation),
    )


def _author(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    found = (by.get("email") or by.get("id")) if isinstance(by, dict) else by
    if found is None:
        raise _NoAnswerError("nothing says who judged (completed_by)")
    return str(found)


def _time(annotation: Mapping[str, Any]) -> float | None:
    """Return seconds since 1970; Label Studio writes `2026-01-31T12:00:00.000000Z`."""
    text = annotation.get("created_at")
    time = None if text is None else datetime.fromisoformat(text)
    return time.timestamp() if time and time.tzinfo else None


def _regions(annotation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for region in annotation["result"]:
        yield region["from_name"], region["type"], region["value"]
