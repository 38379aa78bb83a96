"""Tasks and annotations go to Label Studio and come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow.dataset as ds
import pytest

from jobs import judge
from tests.studies import answer, study_of, two_folders, write_clip
from videorl.errors import DatasetError
from videorl.judging.answers import Answers, complete_answers
from videorl.judging.label_studio import configuration, export_tasks
from videorl.judging.label_studio_answers import Imported, import_annotations
from videorl.judging.questions import MODES
from videorl.judging.study import Answer, Study, StudyPair, read_study


def choices_of(study: Study, first: str) -> dict[str, str]:
    """Answer the questions with the choices in turn, from `first` on."""
    values = [choice.value for choice in study.asks.choices]
    start = values.index(first)
    return {
        question.name: values[(start + place) % len(values)]
        for place, question in enumerate(study.asks.questions)
    }


@pytest.mark.parametrize("mode", MODES)
def test_what_is_exported_can_be_imported(mode: str, tmp_path: Path) -> None:
    study = study_of(two_folders(tmp_path, 3), mode)
    firsts = [choice.value for choice in study.asks.choices][:3]
    (tmp_path / "study").mkdir()
    with Answers(tmp_path / "study", study) as answers:
        for pair, first in zip(study.pairs, firsts, strict=True):
            answers.add(answer(study, pair.id, "anna", **choices_of(study, first)))
        said = answers.complete()
    export_tasks(tmp_path / "tasks.json", study, said)
    (tmp_path / "other").mkdir()
    with Answers(tmp_path / "other", study) as answers:
        assert import_annotations(tmp_path / "tasks.json", answers, study) == Imported(3, 0, {})
        assert import_annotations(tmp_path / "tasks.json", answers, study) == Imported(0, 3, {})
        found = answers.complete()
    rows = ds.dataset(tmp_path / "other/answers").to_table().to_pylist()
    assert {row["left"] for row in rows} == {None}, "Label Studio does not say it"
    assert [a.time for a in found] == pytest.approx([a.time for a in said], abs=1e-3)
    assert {a.seconds for a in found} == {1.5}
    assert [(a.pair, a.annotator, a.choices) for a in found] == [
        (a.pair, a.annotator, a.choices) for a in said
    ]
    view = ElementTree.fromstring(configuration(study))
    names = {control.get("name") for control in view}
    regions = json.loads((tmp_path / "tasks.json").read_text())[0]["annotations"][0]["result"]
    assert {region["from_name"] for region in regions} <= names
    tags = {tag.tag.lower() for tag in view}
    assert {region["type"] for region in regions} <= tags


def exported(**changes: Any) -> dict[str, Any]:
    """A task as Label Studio exports it, of a project that is not ours."""
    region = {"value": {"selected": "right"}, "id": "x1", "from_name": "pw", "to_name": "pw"}
    annotation = {
        "id": 1,
        "completed_by": {"id": 7, "email": "anna@example.org"},
        "result": [{**region, "type": "pairwise", "origin": "manual"}],
        "was_cancelled": False,
        "lead_time": 4.5,
        "created_at": "2026-01-01T00:00:00.500000Z",
    }
    data = {"text": "a ball", "video1": "clips/x.mp4", "video2": "/data/local-files/?d=clips/y.mp4"}
    return {"id": 3, "data": data, "annotations": [annotation], "predictions": [], **changes}


def test_a_foreign_project_becomes_a_study_with_its_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "xy":
        write_clip(tmp_path / f"clips/{name}.mp4")
    file, out = tmp_path / "export.json", tmp_path / "study"
    skipped = {**exported()["annotations"][0], "was_cancelled": True}
    file.write_text(json.dumps([exported(), exported(annotations=[skipped])]))
    words = [str(file), "--out", str(out), "--from-label-studio", str(file)]
    assert judge.main(words) == 0
    said = "1 answers are new, 0 were there before, 1 annotations are left out"
    assert said in capsys.readouterr().out
    study = read_study(out)
    assert (len(study.pairs), study.pairs[0].prompt, study.mode) == (2, "a ball", "overall")
    assert study.pairs[0].b.video == str(tmp_path / "clips/y.mp4")
    (found,) = complete_answers(out, study)
    assert (found.annotator, found.choices) == ("anna@example.org", {"Overall": "B"})
    assert (found.left, found.seconds, found.time) == (None, 4.5, 1767225600.5)
    assert judge.main([str(out), "--to-label-studio", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again[0]["annotations"][0]["result"][1]["value"] == {"selected": "right"}


def test_tasks_are_matched_by_their_videos_whatever_their_order(tmp_path: Path) -> None:
    study = study_of(two_folders(tmp_path, 3))
    (tmp_path / "study").mkdir()

    def task(pair: StudyPair, **data: str) -> dict[str, Any]:
        text = "3.5 m of a ball.now"  # no video, although it ends like a file
        return exported(data={"text": text, "v1": pair.a.video, "v2": pair.b.video, **data})

    file = tmp_path / "export.json"
    with Answers(tmp_path / "study", study) as answers:
        first, second, third = study.pairs
        turned = task(first, v1=first.b.video, v2=first.a.video)
        file.write_text(json.dumps([task(third), turned]))
        with pytest.raises(DatasetError, match=r"no pair .* of these two in this order"):
            import_annotations(file, answers, study)
        assert answers.latest == {}, "all or nothing"
        relative = f"{first.a.video.removeprefix(str(tmp_path) + '/')}"
        file.write_text(json.dumps([task(third), task(first, v1=f"./ours/../{relative}")]))
        assert import_annotations(file, answers, study).num_new == 2
        assert [answer.pair for answer in answers.complete()] == [third.id, first.id]
        file.write_text(json.dumps([task(second)] * 2))
        with pytest.raises(DatasetError, match=r"task 2 .* no further pair"):
            import_annotations(file, answers, study)


def test_annotations_that_are_no_answers_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = study_of(two_folders(tmp_path, 1))
    (tmp_path / "study").mkdir()
    (pair,) = study.pairs
    good = exported()["annotations"][0]
    tie = {"value": {"choices": ["same"]}, "from_name": "tie", "type": "choices"}
    strange = [
        {**good, "completed_by": None},
        {**good, "result": []},
        {**good, "result": [*good["result"], tie]},
        {**good, "was_cancelled": True},
    ]
    plain = {**good, "completed_by": 7, "created_at": None, "lead_time": None}
    data = {"study": study.id, "pair": pair.id}
    (tmp_path / "export.json").write_text(
        json.dumps([exported(data=data, annotations=[*strange, plain])])
    )
    with Answers(tmp_path / "study", study) as answers:
        found = import_annotations(tmp_path / "export.json", answers, study)
        assert (found.num_new, found.num_known) == (1, 0)
        assert found.left_out == {
            "nothing says who judged (completed_by)": 1,
            "a question is open": 1,
            "two answers to Overall": 1,
            "skipped by whoever judged": 1,
        }
        assert "1 annotations are left out: two answers to Overall" in caplog.text
        (answer,) = answers.complete()
    assert answer == Answer(pair.id, "7", {"Overall": "B"}, True, None, None, None)
    assert complete_answers(tmp_path / "study", study) == [answer]


def test_files_that_are_no_export_are_explained(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips/x.mp4")
    file = tmp_path / "export.json"
    data = exported()["data"]
    for content, said in (
        ("{", "is not JSON"),
        ("[]", "must hold a list of Label Studio's tasks"),
        ('[{"video1": "x.mp4"}]', "task 1 has no `data`; export it as JSON, not as JSON-MIN"),
        (json.dumps([exported()]), "task 1: there is no file /clips/y.mp4"),
        (json.dumps([exported(data={"text": "a"})]), "must name two videos in its data, got 0"),
        (json.dumps([exported(data={**data, "A": "http://[", "B": ""})]), "is no address"),
        (
            json.dumps([exported(data={**data, "video2": "https://example.org/y.mp4"})]),
            "is not on this machine; download it",
        ),
    ):
        file.write_text(content)
        with pytest.raises(DatasetError, match=said):
            judge.main([str(file), "--out", str(tmp_path / "study"), "--report"])
    study = study_of(two_folders(tmp_path, 1))
    known = {"study": study.id, "pair": study.pairs[0].id}
    (tmp_path / "other").mkdir()
    with Answers(tmp_path / "other", study) as answers:
        for task, said in (
            (exported(data={**data, "study": "abc"}), "tasks of the study abc, not of"),
            (exported(data={**data, "study": study.id, "pair": "p9"}), "is not in the study: 'p9'"),
            (exported(), r"task 1 compares .*clips/x\.mp4 with .*, and the study has no pair"),
            (
                exported(data=known, annotations=[{"result": [3]}]),
                "task 1: an annotation cannot be read",
            ),
        ):
            file.write_text(json.dumps([task]))
            with pytest.raises(DatasetError, match=said):
                import_annotations(file, answers, study)
        assert answers.latest == {}
