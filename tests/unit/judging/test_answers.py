"""Answers are on disk when they are given, once per person and pair, whatever ends the process."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from errno import EIO
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from tests.studies import answer, paper_study, study_of, two_folders
from videorl.errors import ConfigError, RunFolderError
from videorl.judging.annotators import add_annotators, who
from videorl.judging.answers import FILE, Answers, given, read_answers
from videorl.judging.assignment import Assignment
from videorl.judging.opening import opened
from videorl.judging.questions import mode_of, outcomes, seen_as
from videorl.judging.study import Study, open_study, read_study, write_study
from videorl.reward_training.pairs import read_pairs
from videorl.rewards.vision_reward.questions import weighted


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return study_of(two_folders(tmp_path, 3), "dimensions")


def test_answers_are_in_all_files_at_once_and_survive(study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    write_study(folder, study)
    with Answers(folder, study) as answers:
        half = given(study, "p00000", "anna", {"VQ": "A"}, 2.0)
        answers.add(half)
        assert answers.complete() == []
        answers.add(answer(study, "p00001", "anna", VQ="A", MQ="same", TA="invalid"))
        # Before it is closed, as a kill would find them.
        labels = read_pairs(folder / "labels.csv").pairs
        assert [pair.labels for pair in labels] == [(1, 0, 22)]
        assert labels[0].path_a == Path(study.pairs[1].a.video)
        rows = ds.dataset(folder / "answers").to_table().to_pylist()
        assert [(row["question"], row["choice"]) for row in rows] == [
            ("VQ", "A"), ("MQ", "same"), ("TA", "invalid"),
        ]  # fmt: skip
        assert rows[0]["group_a"] == study.pairs[1].a.group
        lines = (folder / FILE).read_text().splitlines()
        assert len(lines) == 3
    with (folder / FILE).open("ab") as file:
        file.write(b'{"pair": "p00002", "annot')  # torn by a kill
    (folder / "labels.csv").unlink()
    (folder / "answers/part-000001.parquet").write_bytes(b"of a longer past")
    with Answers(folder, read_study(folder)) as answers:
        assert answers.latest["p00000", "anna"] == half
        with pytest.raises(RunFolderError, match="anna has judged pair p00001 before"):
            answers.add(answer(study, "p00001", "anna", VQ="B", MQ="B", TA="B"))
        answers.add(answer(study, "p00000", "anna", VQ="B", MQ="B", TA="B"))
    assert len((folder / FILE).read_text().splitlines()) == 4
    with (folder / "labels.csv").open() as file:
        assert [row["pair"] for row in csv.DictReader(file)] == ["p00001", "p00000"]
    assert ds.dataset(folder / "answers").to_table().num_rows == 6


def test_many_answers_make_several_parquet_files(tmp_path: Path) -> None:
    study = paper_study([("x", "y")] * 401)
    for stop in (200, 401):  # the second time it goes on
        with Answers(tmp_path, study) as answers:
            for pair in study.pairs[len(answers.complete()) : stop]:
                answers.add(answer(study, pair.id, "anna", Overall="A"))
    assert len(list((tmp_path / "answers").iterdir())) == 3
    found = ds.dataset(tmp_path / "answers").to_table()["pair"].to_pylist()
    assert sorted(found) == [pair.id for pair in study.pairs]


def test_what_cannot_be_written_is_no_answer(study: Study, tmp_path: Path) -> None:
    with Answers(tmp_path, study) as answers:
        size = (tmp_path / FILE).stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))  # as if the disk was full
        try:
            with pytest.raises(OSError, match=r"File too large|No space left on device"):
                answers.add(answer(study, "p00000", "anna", VQ="A", MQ="A", TA="A"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert answers.latest == {}
        assert (tmp_path / FILE).stat().st_size == size
        for pair, choices, said in (
            ("p9", {"VQ": "A", "MQ": "A", "TA": "A"}, "has no pair 'p9'"),
            ("p00000", {"VQ": "A"}, "1 of 3 questions have an answer"),
            ("p00000", {"VQ": "A", "MQ": "A", "TA": "both"}, "TA must be one of A, B, invalid"),
        ):
            wrong = dataclasses.replace(answer(study, "p00000", "anna", **choices), pair=pair)
            with pytest.raises(RunFolderError, match=said):
                answers.add(wrong)


def test_tables_that_cannot_be_written_cost_no_answer(
    study: Study, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Answers(tmp_path, study) as answers:
        part = tmp_path / "answers/part-000000.parquet"
        part.unlink()
        (part / "in the way").mkdir(parents=True)
        for pair in ("p00000", "p00001"):
            answers.add(answer(study, pair, "anna", VQ="A", MQ="A", TA="A"))
        assert len(answers.complete()) == 2
        assert len((tmp_path / FILE).read_text().splitlines()) == 3
        assert "labels.csv and answers/ are behind" in caplog.text
        shutil.rmtree(part)
        answers.add(answer(study, "p00002", "anna", VQ="A", MQ="A", TA="A"))
        assert ds.dataset(tmp_path / "answers").to_table().num_rows == 9
        assert [p.labels for p in read_pairs(tmp_path / "labels.csv").pairs] == [(1, 1, 1)] * 3
        part.unlink()
        (part / "in the way").mkdir(parents=True)
        answers.add(answer(study, "p00000", "ben", VQ="B", MQ="B", TA="B"))
        shutil.rmtree(part)
    assert ds.dataset(tmp_path / "answers").to_table().num_rows == 12, "written at the end"


def test_half_a_line_that_could_not_be_cut_off_is_before_the_next(
    study: Study, tmp_path: Path
) -> None:
    said = answer(study, "p00000", "anna", VQ="A", MQ="A", TA="A")

    def broken(*_: int) -> None:
        raise OSError(EIO, "broken")

    with Answers(tmp_path, study) as answers:
        size = (tmp_path / FILE).stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
        with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(os, "ftruncate", broken)
            try:
                answers.add(said)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / FILE).stat().st_size == size + 20
        answers.add(said)
    assert list(read_answers(tmp_path, study).values()) == [said]


def test_files_of_others_are_refused(study: Study, tmp_path: Path) -> None:
    write_study(tmp_path, study)
    with Answers(tmp_path, study):
        pass
    other = dataclasses.replace(study, seed=1)
    with pytest.raises(RunFolderError, match="holds the answers of another study"):
        Answers(tmp_path, other)
    with pytest.raises(
        RunFolderError, match=r"another study \(seed 0, not 1\).* set another --out"
    ):
        open_study(tmp_path, other)
    more = dataclasses.replace(study, answers_per_pair=4)
    assert open_study(tmp_path, more).id == study.id
    assert read_study(tmp_path).answers_per_pair == 4
    for name in ("study.json", FILE):
        kept = (tmp_path / name).read_text()
        (tmp_path / name).write_text(kept.replace('"layout": 1', '"layout": 9'))
        with pytest.raises(RunFolderError, match=f"{name} has layout 9, .* upgrade"):
            Answers(tmp_path, read_study(tmp_path))
        (tmp_path / name).write_text(kept)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"pair": 3}\n')
    with pytest.raises(RunFolderError, match="line 2 is damaged"):
        Answers(tmp_path, study)
    content = json.loads((tmp_path / "study.json").read_text())
    content["pairs"][0]["a"]["group"] = "mine"
    (tmp_path / "study.json").write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match="was changed after the study was made"):
        read_study(tmp_path)
    with pytest.raises(RunFolderError, match="there is no study in"):
        read_study(tmp_path / "none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("")
    with pytest.raises(RunFolderError, match="holds no study but other files"):
        open_study(tmp_path / "full", study)


def test_a_study_is_open_once(study: Study, tmp_path: Path) -> None:
    with (
        opened(tmp_path, study),
        pytest.raises(RunFolderError, match="is open in another process"),
        opened(tmp_path, study),
    ):
        pass
    with opened(tmp_path, study) as answers:
        assert answers.latest == {}
    write_study(tmp_path, study)
    add_annotators(tmp_path, ["anna"])
    # Another process: locks of one are shared by its threads.
    program = """
import sys
from pathlib import Path
from videorl.judging.holding import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
    words = [sys.executable, "-c", program, str(tmp_path)]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    more = dataclasses.replace(study, answers_per_pair=2)
    with pytest.raises(RunFolderError, match="is open in another process"):
        open_study(tmp_path, more)
    with pytest.raises(RunFolderError, match="is open in another process"):
        add_annotators(tmp_path, ["ben"])
    # What writes nothing may look.
    assert open_study(tmp_path, study) == study
    assert set(add_annotators(tmp_path, ["anna"])) == {"anna"}
    other.communicate("")
    assert open_study(tmp_path, more) == more
    assert set(add_annotators(tmp_path, ["ben"])) == {"anna", "ben"}


def test_every_pair_is_handed_out_until_it_has_its_answers(tmp_path: Path) -> None:
    study = study_of(two_folders(tmp_path, 4), answers_per_pair=2)
    judged: dict[str, list[str]] = {name: [] for name in ("anna", "ben", "cleo")}
    with Answers(tmp_path / "ours", study) as answers:
        assignment = Assignment(study, answers)
        while any(pairs := {name: assignment.next(name) for name in judged}.values()):
            for name, pair in zip(judged, pairs, strict=True):
                if pair and (pair.id, name) not in answers.latest:
                    answers.add(answer(study, pair.id, name, Overall="A"))
                    judged[name].append(pair.id)
        counts = Counter(pair for pairs in judged.values() for pair in pairs)
        # Three at once may give the last pair one answer more.
        assert set(counts) == {pair.id for pair in study.pairs}
        assert set(counts.values()) <= {2, 3}
        assert all(len(set(pairs)) == len(pairs) for pairs in judged.values())
        assert len({tuple(pairs) for pairs in judged.values()}) > 1
        assert assignment.progress("anna") == (len(judged["anna"]), 0)


def test_a_pair_whose_video_has_gone_is_not_shown(tmp_path: Path) -> None:
    study = study_of(two_folders(tmp_path, 2))
    Path(study.pairs[0].b.video).unlink()
    with Answers(tmp_path, study) as answers:
        assignment = Assignment(study, answers)
        pair = assignment.next("anna")
        assert pair
        assert pair.id == "p00001"
        answers.add(given(study, pair.id, "anna", {"Overall": "B"}, 1.0))
        assert assignment.next("anna") == pair, "a pair that was begun comes first"
        answers.add(answer(study, pair.id, "anna", Overall="B"))
        assert assignment.next("anna") is None
        assert assignment.num_lost == 1
        assert assignment.progress("anna") == (1, 0)


def test_sides_are_shuffled_and_turned_back() -> None:
    study = paper_study([("x", "y")] * 40)
    left = [study.left(pair, "anna") for pair in study.pairs]
    assert 10 < left.count("A") < 30
    assert left == [study.left(pair, "anna") for pair in study.pairs]
    assert left != [study.left(pair, "ben") for pair in study.pairs]
    assert [seen_as(value, "B") for value in ("A", "B", "same")] == ["B", "A", "same"]
    assert seen_as("A", "A") == "A"


def test_a_checklist_decides_by_the_weights(tmp_path: Path) -> None:
    mode = mode_of("checklist")
    assert len(mode.questions) == 29
    neither = {question.name: "neither" for question in mode.questions}
    assert set(outcomes("checklist", neither).values()) == {"same"}
    by_dimension = {question.dimension: question for question in weighted()}
    aligned = f"q{by_dimension['alignment'].id}"
    stable = f"q{by_dimension['stability'].id}"
    found = outcomes("checklist", {**neither, aligned: "A", stable: "B"})
    assert found["VQ"] == "same"
    assert (found["MQ"], found["TA"]) == ("B", "A")
    asked = next(q for q in mode.questions if q.name == aligned)
    assert "a red ball" in asked.about("a red ball")
    study = study_of(two_folders(tmp_path, 1), "checklist")
    with Answers(tmp_path, study) as answers:
        answers.add(answer(study, "p00000", "anna", **{**neither, aligned: "A"}))
    assert read_pairs(tmp_path / "labels.csv").pairs[0].labels == (0, 0, 1)


def test_tokens_are_kept_and_belong_to_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: set[int] = set()
    replace = os.replace

    def seen(source: Path, target: Path) -> None:
        """See what others could read of the file before it has its name."""
        if Path(target).name == "annotators.json":
            modes.add(Path(source).stat().st_mode & 0o777)
        replace(source, target)

    monkeypatch.setattr(os, "replace", seen)
    (tmp_path / ".annotators.json.partial").write_text("{}")  # of a kill, readable by all
    tokens = add_annotators(tmp_path, ["anna", " ben "])
    assert add_annotators(tmp_path, ["ben", "cleo"]) == {
        **tokens, "cleo": add_annotators(tmp_path, [])["cleo"],
    }  # fmt: skip
    assert (tmp_path / "annotators.json").stat().st_mode & 0o077 == 0
    assert modes == {0o600}
    assert who(tokens, tokens["ben"]) == "ben"
    assert who(tokens, "") is None
    assert who(tokens, "ä") is None
    with pytest.raises(ConfigError, match="a name needs 1 to 60 printable characters"):
        add_annotators(tmp_path, ["\n"])
    (tmp_path / "annotators.json").write_text("[]")
    with pytest.raises(RunFolderError, match="is damaged"):
        add_annotators(tmp_path, [])
