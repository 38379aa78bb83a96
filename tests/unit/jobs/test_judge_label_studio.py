"""Tasks and annotations go to Label Studio and come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from jobs import judge
from tests.studies import answer, study_of, two_folders, write_clip
from videorl.errors import DatasetError
from videorl.judging.answers import Answers, complete_answers
from videorl.judging.label_studio import configuration, export_tasks, import_annotations
from videorl.judging.questions import MODES
from videorl.judging.study import Study, read_study


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
        assert import_annotations(tmp_path / "tasks.json", answers, study) == (3, 0)
        assert import_annotations(tmp_path / "tasks.json", answers, study) == (0, 3)
        found = answers.complete()
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
    assert "1 answers are new, 0 were there before" in capsys.readouterr().out
    study = read_study(out)
    assert (len(study.pairs), study.pairs[0].prompt, study.mode) == (2, "a ball", "overall")
    assert study.pairs[0].b.video == str(tmp_path / "clips/y.mp4")
    (found,) = complete_answers(out, study)
    assert (found.annotator, found.choices) == ("anna@example.org", {"Overall": "B"})
    assert judge.main([str(out), "--to-label-studio", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again[0]["annotations"][0]["result"][1]["value"] == {"selected": "right"}


def test_files_that_are_no_export_are_explained(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips/x.mp4")
    file = tmp_path / "export.json"
    data = exported()["data"]
    for content, said in (
        ("{", "is not JSON"),
        ("[]", "must hold a list of Label Studio's tasks"),
        ('[{"video1": "x.mp4"}]', "task 1 has no `data`; export it as JSON, not as JSON-MIN"),
        (json.dumps([exported()]), "task 1: there is no file /clips/y.mp4"),
        (json.dumps([exported(data={"text": "a"})]), "must name two videos in its data"),
        (
            json.dumps([exported(data={**data, "video2": "https://example.org/y.mp4"})]),
            "is not on this machine; download it",
        ),
    ):
        file.write_text(content)
        with pytest.raises(DatasetError, match=said):
            judge.main([str(file), "--out", str(tmp_path / "study"), "--report"])
    study = study_of(two_folders(tmp_path, 1))
    (tmp_path / "other").mkdir()
    with Answers(tmp_path / "other", study) as answers:
        for task, said in (
            (exported(data={**data, "study": "abc"}), "tasks of the study abc, not of"),
            (exported(data={**data, "study": study.id, "pair": "p9"}), "is not in the study: 'p9'"),
            (exported(annotations=[{"result": [3]}]), "task 1: an annotation cannot be read"),
        ):
            file.write_text(json.dumps([task]))
            with pytest.raises(DatasetError, match=said):
                import_annotations(file, answers, study)
        file.write_text(json.dumps([exported()] * 2))
        with pytest.raises(DatasetError, match="has 2 tasks, the study 1 pairs"):
            import_annotations(file, answers, study)
