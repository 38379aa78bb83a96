"""Studies as Label Studio has them: JSON tasks, annotations, and the configuration that shows them.

Written from the tags `Pairwise` and `Choices` of HumanSignal/label-studio. A task's `data` has the
two videos as `A` and `B`. A `Pairwise` can say left or right alone, so `Overall` has a `Choices`
for ties beside it, and the dimensions and the checklist are `Choices`. A `TextArea` keeps the name
of who judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape, quoteattr

from videorl.errors import DatasetError
from videorl.files import write_text
from videorl.judging.answers import Answers
from videorl.judging.questions import OVERALL, SAME, A, B
from videorl.judging.sources import problem_of_video
from videorl.judging.study import Answer, Side, Study, StudyPair

_SIDES = {"left": A, "right": B}
_TIE = "tie"
_WHO = "annotator"
_LOCAL = "/data/local-files/?d="
"""How Label Studio names a file of its machine, relative to its document root."""


def configuration(study: Study) -> str:
    """Return the labelling interface to paste into Label Studio."""
    lines = ["<View>", '  <Header value="$prompt"/>']
    lines += [f'  <Video name="{side}" value="${side}"/>' for side in (A, B)]
    for question in study.asks.questions:
        lines.append(f"  <Header value={quoteattr(question.about('$prompt'))}/>")
        values = [choice.value for choice in study.asks.choices]
        name = question.name
        if name == OVERALL:
            lines.append(f'  <Pairwise name="{name}" toName="{A},{B}"/>')
            name, values = _TIE, [SAME]
        lines.append(f'  <Choices name="{name}" toName="{A}">')
        lines += [f'    <Choice value="{escape(value)}"/>' for value in values]
        lines.append("  </Choices>")
    lines += [f'  <TextArea name="{_WHO}" toName="{A}" maxSubmissions="1"/>', "</View>", ""]
    return "\n".join(lines)


def export_tasks(path: Path, study: Study, answers: Sequence[Answer]) -> None:
    """Write all pairs as tasks, with complete answers as annotations; and the configuration.

    Videos are files of Label Studio's own machine, below a document root of `/`
    (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT).
    """
    tasks = [
        {
            "id": number,
            "data": {
                A: _LOCAL + quote(pair.a.video.lstrip("/")),
                B: _LOCAL + quote(pair.b.video.lstrip("/")),
                "prompt": pair.prompt,
                "pair": pair.id,
                "study": study.id,
            },
            "annotations": [
                {"result": _result(answer), "lead_time": answer.seconds}
                for answer in answers
                if answer.pair == pair.id
            ],
        }
        for number, pair in enumerate(study.pairs, 1)
    ]
    write_text(path, json.dumps(tasks, indent=1) + "\n")
    write_text(path.with_suffix(".xml"), configuration(study))


def _result(answer: Answer) -> list[dict[str, Any]]:
    def region(name: str, kind: str, value: dict[str, Any], to_name: str = A) -> dict[str, Any]:
        return {"from_name": name, "to_name": to_name, "type": kind, "value": value}

    found = [region(_WHO, "textarea", {"text": [answer.annotator]})]
    names = {side: name for name, side in _SIDES.items()}
    for question, choice in answer.choices.items():
        if question == OVERALL and choice in names:
            found.append(region(OVERALL, "pairwise", {"selected": names[choice]}, OVERALL))
        else:
            name = _TIE if question == OVERALL else question
            found.append(region(name, "choices", {"choices": [choice]}))
    return found


def read_tasks(path: Path) -> list[dict[str, Any]]:
    """Return the tasks of a JSON file that Label Studio exported, or would import.

    Raises:
        DatasetError: It is no such file.
    """
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error
    if not isinstance(tasks, list) or not tasks:
        raise DatasetError(f"{path} must hold a list of Label Studio's tasks: export it as JSON")
    for number, task in enumerate(tasks, 1):
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise DatasetError(
                f"{path}, task {number} has no `data`; export it as JSON, not as JSON-MIN"
            )
    return tasks


def study_of_tasks(path: Path, seed: int, answers_per_pair: int) -> Study:
    """Return a study of what tasks compare, in the mode `overall`.

    The two videos are the values `A` and `B` of a task's data, or the only two that are addresses
    or paths of files. A path is absolute, or relative to the folder of the file.

    Raises:
        DatasetError: The file holds no tasks, or a task has no two videos on this machine.
    """
    pairs: list[StudyPair] = []
    for number, task in enumerate(read_tasks(path), 1):
        data = task["data"]
        names = (A, B) if A in data and B in data else _names_of_videos(data)
        if len(names) != 2:
            raise DatasetError(
                f"{path}, task {number} must name two videos in its data, got {', '.join(names)}"
            )
        videos = [_local(path, number, str(data[name])) for name in names]
        sides = [Side(video, str(name)) for video, name in zip(videos, names, strict=True)]
        prompt = next((data[key] for key in ("prompt", "text") if key in data), "")
        pairs.append(StudyPair(f"p{number - 1:05d}", str(prompt), *sides))
    return Study("overall", seed, answers_per_pair, tuple(pairs))


def _names_of_videos(data: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        name
        for name, value in data.items()
        if isinstance(value, str) and (_LOCAL in value or Path(urlsplit(value).path).suffix)
    )


def _local(path: Path, number: int, place: str) -> str:
    parts = urlsplit(place)
    if query := parse_qs(parts.query).get("d"):
        tried = [Path("/", query[0]), path.parent / query[0]]
    elif parts.scheme in ("http", "https"):
        raise DatasetError(f"{path}, task {number}: {place} is not on this machine; download it")
    else:
        tried = [(path.parent / place.removeprefix("file://")).absolute()]
    for found in tried:
        if found.is_file():
            if problem := problem_of_video(found):
                raise DatasetError(f"{path}, task {number}: {problem}")
            return str(found)
    raise DatasetError(f"{path}, task {number}: there is no file {tried[0]}")


def import_annotations(path: Path, answers: Answers, study: Study) -> tuple[int, int]:
    """Add the annotations of an export to a study; return how many were new, and how many known.

    Tasks are matched by `data.pair`, where `data.study` is this study, or by their order if no
    task names a study and there are as many as pairs.

    Raises:
        DatasetError: The tasks are those of another study, or an annotation cannot be read.
    """
    tasks = read_tasks(path)
    pairs = _matched(path, tasks, study)
    new = known = 0
    for number, (task, pair) in enumerate(zip(tasks, pairs, strict=True), 1):
        for annotation in task.get("annotations") or ():
            try:
                answer = _answer(annotation, pair, study)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise DatasetError(
                    f"{path}, task {number}: an annotation cannot be read ({error!r:.80})"
                ) from error
            if answer is None:
                continue
            earlier = answers.latest.get((answer.pair, answer.annotator))
            if earlier and earlier.is_complete:
                known += 1
            else:
                answers.add(answer)
                new += 1
    return new, known


def _matched(path: Path, tasks: Sequence[dict[str, Any]], study: Study) -> list[StudyPair]:
    named = [task["data"].get("study") for task in tasks]
    if strange := [name for name in named if name not in (None, study.id)]:
        raise DatasetError(f"{path} holds tasks of the study {strange[0]}, not of {study.id}")
    if not any(named):
        if len(tasks) != len(study.pairs):
            raise DatasetError(f"{path} has {len(tasks)} tasks, the study {len(study.pairs)} pairs")
        return list(study.pairs)
    try:
        return [study.by_id[task["data"]["pair"]] for task in tasks]
    except KeyError as error:
        raise DatasetError(f"{path} has a task whose pair is not in the study: {error}") from error


def _answer(annotation: dict[str, Any], pair: StudyPair, study: Study) -> Answer | None:
    """Return what an annotation says; None if it was skipped, or leaves a question open."""
    names = [question.name for question in study.asks.questions]
    choices: dict[str, str] = {}
    who = ""
    for name, kind, value in _regions(annotation):
        if kind == "pairwise":
            choices[name if name in names else names[0]] = _SIDES[value["selected"]]
        elif kind == "choices" and (name in names or name == _TIE):
            choices[OVERALL if name == _TIE else name] = value["choices"][0]
        elif kind == "textarea" and name == _WHO:
            who = value["text"][0] if isinstance(value["text"], list) else value["text"]
    if annotation.get("was_cancelled") or len(choices) < len(names):
        return None
    if problem := study.asks.check(choices):
        raise ValueError(f"the study {problem}")
    by = annotation.get("completed_by", "unknown")
    who = who or str(by.get("email") or by.get("id") if isinstance(by, dict) else by)
    seconds = float(annotation.get("lead_time") or 0.0)
    return Answer(pair.id, who, choices, True, A, seconds, 0.0)


def _regions(annotation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for region in annotation["result"]:
        yield region["from_name"], region["type"], region["value"]
