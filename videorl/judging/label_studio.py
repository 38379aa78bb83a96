"""Studies as Label Studio has them: JSON tasks, and the configuration that shows them.

Written from the tags `Pairwise` and `Choices` of HumanSignal/label-studio. A task's `data` has the
two videos as `A` and `B`. A `Pairwise` can say left or right alone, so `Overall` has a `Choices`
for ties beside it, and the dimensions and the checklist are `Choices`. A `TextArea` keeps the name
of who judged. `label_studio_answers` reads what comes back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape, quoteattr

from videorl.errors import DatasetError
from videorl.files import write_text
from videorl.judging.folders import PLAYABLE
from videorl.judging.questions import OVERALL, SAME, A, B
from videorl.judging.sources import problem_of_video
from videorl.judging.study import Answer, Side, Study, StudyPair
from videorl.videos.finding import SUFFIXES

SIDES = {"left": A, "right": B}
TIE = "tie"
WHO = "annotator"
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
            name, values = TIE, [SAME]
        lines.append(f'  <Choices name="{name}" toName="{A}">')
        lines += [f'    <Choice value="{escape(value)}"/>' for value in values]
        lines.append("  </Choices>")
    lines += [f'  <TextArea name="{WHO}" toName="{A}" maxSubmissions="1"/>', "</View>", ""]
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
            "annotations": [_annotation(answer) for answer in answers if answer.pair == pair.id],
        }
        for number, pair in enumerate(study.pairs, 1)
    ]
    write_text(path, json.dumps(tasks, indent=1) + "\n")
    write_text(path.with_suffix(".xml"), configuration(study))


def _annotation(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"result": _result(answer)}
    if answer.seconds is not None:
        found["lead_time"] = answer.seconds
    if answer.time is not None:
        found["created_at"] = datetime.fromtimestamp(answer.time, UTC).isoformat()
    return found


def _result(answer: Answer) -> list[dict[str, Any]]:
    def region(name: str, kind: str, value: dict[str, Any], to_name: str = A) -> dict[str, Any]:
        return {"from_name": name, "to_name": to_name, "type": kind, "value": value}

    found = [region(WHO, "textarea", {"text": [answer.annotator]})]
    names = {side: name for name, side in SIDES.items()}
    for question, choice in answer.choices.items():
        if question == OVERALL and choice in names:
            found.append(region(OVERALL, "pairwise", {"selected": names[choice]}, OVERALL))
        else:
            name = TIE if question == OVERALL else question
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
        data, named = task["data"], videos_of(path, number, task)
        sides = [Side(_existing(path, number, places), name) for name, places in named.items()]
        prompt = next((data[key] for key in ("prompt", "text") if key in data), "")
        pairs.append(StudyPair(f"p{number - 1:05d}", str(prompt), *sides))
    return Study("overall", seed, answers_per_pair, tuple(pairs))


def videos_of(path: Path, number: int, task: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return, by name in the task's data, the absolute paths that each of its two videos may have.

    Args:
        path: Of the file of tasks.
        number: Of the task, for errors.
        task: As `read_tasks` returns it.

    Raises:
        DatasetError: There are not two, or a video is on another machine.
    """
    data = task["data"]
    named = [A, B] if A in data and B in data else [n for n in data if _is_video(data[n])]
    if len(named) != 2:
        raise DatasetError(
            f"{path}, task {number} must name two videos in its data, got {len(named)}"
            f"{': ' if named else ''}{', '.join(named)}"
        )
    return {name: _places(path, number, str(data[name])) for name in named}


def _is_video(value: Any) -> bool:
    """Tell whether a value of a task's data is an address or path of a video."""
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:  # such as brackets that no address has
        return False
    return _LOCAL in value or Path(parts.path).suffix.lower() in SUFFIXES | PLAYABLE


def _places(path: Path, number: int, place: str) -> list[str]:
    try:
        parts = urlsplit(place)
    except ValueError as error:
        raise DatasetError(f"{path}, task {number}: {place} is no address: {error}") from error
    if query := parse_qs(parts.query).get("d"):
        tried = [Path("/", query[0]), path.parent / query[0]]
    elif parts.scheme in ("http", "https"):
        raise DatasetError(f"{path}, task {number}: {place} is not on this machine; download it")
    else:
        tried = [path.parent / place.removeprefix("file://")]
    return [str(found.absolute()) for found in tried]


def _existing(path: Path, number: int, places: Sequence[str]) -> str:
    found = next(filter(os.path.isfile, places), None)
    if found is None:
        raise DatasetError(f"{path}, task {number}: there is no file {places[0]}")
    if problem := problem_of_video(Path(found)):
        raise DatasetError(f"{path}, task {number}: {problem}")
    return found
