"""Which pairs come of a run and of folders, and what is said where there are none."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.studies import two_folders, write_clip
from tests.watched_runs import make_run
from videorl.data.archive import read_table
from videorl.errors import ArchiveError, ConfigError, DatasetError
from videorl.judging.sources import Wanted, pairs_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", 2)


def test_chosen_pairs_of_a_run(run: Path) -> None:
    pairs = pairs_of([run], Wanted(100, 0))
    expected = {
        (f"{row['chosen_id']}.mp4", f"{row['rejected_id']}.mp4")
        for row in read_table(run / "archive", "pairs").to_pylist()
    }
    found = set()
    for pair in pairs:
        names = {side.group: Path(side.video).name for side in (pair.a, pair.b)}
        found.add((names["chosen"], names["rejected"]))
        assert pair.prompt.startswith("a ")
    assert found == expected
    assert len(found) == 6
    assert {pair.a.group for pair in pairs} == {"chosen", "rejected"}, "sides are shuffled"
    assert pairs == pairs_of([run], Wanted(100, 0))
    assert pairs != pairs_of([run / "archive"], Wanted(100, 1))
    assert len(pairs_of([run], Wanted(2, 0))) == 2
    for pair in pairs_of([run], Wanted(100, 0, from_step=1, to_step=1)):
        assert "/step-000001/" in pair.a.video


def test_random_pairs_are_of_one_prompt_and_one_per_prompt(run: Path) -> None:
    totals = {
        row["candidate_id"]: (row["prompt"], row["step"], row["total"])
        for row in read_table(run / "archive", "candidates").to_pylist()
    }
    pairs = pairs_of([run], Wanted(100, 0, "random"))
    assert len(pairs) == 6
    for pair in pairs:
        sides = {side.group: totals[Path(side.video).stem] for side in (pair.a, pair.b)}
        assert sides["higher"][:2] == sides["lower"][:2]
        assert sides["higher"][2] > sides["lower"][2]


def test_held_out_pairs(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = shutil.copytree(run, tmp_path / "run")
    with pytest.raises(DatasetError, match="no held-out videos before and after"):
        pairs_of([root], Wanted(9, 0, "held_out"))
    for name in ("before", "after"):
        write_clip(root / f"evaluation/{name}/000000.mp4")
    row = {"prompt": "a ball", "before": "before/000000.mp4", "after": "after/000000.mp4"}
    (root / "evaluation/videos.json").write_text(json.dumps([row, {**row, "after": None}]))
    (pair,) = pairs_of([root], Wanted(9, 0, "held_out"))
    assert {pair.a.group, pair.b.group} == {"before", "after"}
    assert "left out: 1 held-out prompts without a video before or after" in caplog.text
    (root / "evaluation/videos.json").write_text(json.dumps([{**row, "after": "../../x.mp4"}]))
    with pytest.raises(ArchiveError, match="outside of it"):
        pairs_of([root], Wanted(9, 0, "held_out"))
    (root / "evaluation/videos.json").write_text("[3]")
    with pytest.raises(ArchiveError, match=r"videos\.json is damaged"):
        pairs_of([root], Wanted(9, 0, "held_out"))


def test_folders_pair_by_name_or_else_by_prompt(tmp_path: Path) -> None:
    folders = two_folders(tmp_path, 3)
    pairs = pairs_of(folders, Wanted(100, 0))
    assert sorted(pair.prompt for pair in pairs) == ["ball <0>", "ball <1>", "ball <2>"]
    for pair in pairs:
        assert Path(pair.a.video).name == Path(pair.b.video).name
        assert {pair.a.group, pair.b.group} == {"ours", "theirs"}
    (folders[0] / "1.txt").write_text("another ball")
    assert len(pairs_of(folders, Wanted(100, 0))) == 2
    third = tmp_path / "new/theirs"
    third.mkdir(parents=True)
    for number in (0, 2):
        shutil.copy(folders[1] / f"{number}.mp4", third / f"clip-{number}.mp4")
        shutil.copy(folders[1] / f"{number}.txt", third / f"clip-{number}.txt")
    pairs = pairs_of([folders[0], third], Wanted(100, 0))
    assert sorted(Path(pair.a.video).stem[-1] for pair in pairs) == ["0", "2"]
    assert {pair.a.group for pair in pairs} <= {"ours", "theirs"}
    names = {pair.a.group for pair in pairs_of([folders[1], third], Wanted(100, 0))}
    assert names <= {f"{tmp_path.name}/theirs", "new/theirs"}


def test_whatever_of_folders_has_no_pair_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = two_folders(tmp_path, 2)
    shutil.copy(ours / "0.mp4", ours / "0.avi")
    shutil.copy(ours / "0.mp4", ours / "lonely.mp4")
    shutil.copy(ours / "0.mp4", ours / "wrong.mp4")
    (ours / "wrong.txt").write_bytes(b"a \xff ball")
    pairs = pairs_of([ours, theirs], Wanted(9, 0))
    names = {Path(side.video).name for pair in pairs for side in (pair.a, pair.b)}
    assert names == {"0.mp4", "1.mp4"}, "not the avi that browsers do not play"
    for said in (
        rf"left out: 1 videos with the name of another in their folder: {ours}/0\.avi beside",
        rf"left out: 1 videos whose name no other folder has: {ours}/lonely\.mp4",
        rf"left out: 1 videos whose prompt cannot be read: {ours}: wrong\.txt",
    ):
        assert re.search(said, caplog.text), caplog.text


def test_whatever_has_no_prompt_of_its_own_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = two_folders(tmp_path, 2)
    for number in range(2):
        for suffix in ("mp4", "txt"):
            shutil.move(theirs / f"{number}.{suffix}", theirs / f"other-{number}.{suffix}")
    shutil.copy(ours / "0.mp4", ours / "again.mp4")
    shutil.copy(ours / "0.txt", ours / "again.txt")
    shutil.copy(ours / "0.mp4", ours / "silent.mp4")
    assert len(pairs_of([ours, theirs], Wanted(9, 0))) == 2
    for said in (
        "left out: 1 videos with the prompt of another in their folder: ",
        "left out: 1 videos without a prompt, where no two folders share a name: silent.mp4",
    ):
        assert said in caplog.text


def test_kinds_of_files_that_tell_groups_apart_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = two_folders(tmp_path, 1)
    pairs_of(folders, Wanted(9, 0))
    assert "tell the groups apart" not in caplog.text
    shutil.move(folders[1] / "0.mp4", folders[1] / "0.m4v")
    pairs_of(folders, Wanted(9, 0))
    assert "tell the groups apart (ours: .mp4; theirs: .m4v)" in caplog.text


def test_what_cannot_be_shown_costs_its_pair(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = two_folders(tmp_path, 3)
    (ours / "0.mp4").write_bytes((ours / "0.mp4").read_bytes()[:700])
    for folder in (ours, theirs):
        shutil.move(folder / "1.mp4", folder / "1.avi")
    (pair,) = pairs_of([ours, theirs], Wanted(100, 0))
    assert Path(pair.a.video).name == "2.mp4"
    assert "2 pairs are left out, 1 are kept" in caplog.text
    (ours / "2.mp4").unlink()
    with pytest.raises(DatasetError, match=r"none of 2 pairs can be shown: .*\.(mp4|avi)"):
        pairs_of([ours, theirs], Wanted(100, 0))


def test_a_missing_video_of_a_run_costs_its_pair(run: Path, tmp_path: Path) -> None:
    root = shutil.copytree(run, tmp_path / "run")
    first = pairs_of([root], Wanted(100, 0))[0]
    Path(first.a.video).unlink()
    left = {pair.a.video for pair in pairs_of([root], Wanted(100, 0))}
    assert len(left) == 5
    assert first.a.video not in left


def test_places_without_pairs_are_explained(run: Path, tmp_path: Path) -> None:
    ours, _ = two_folders(tmp_path, 1)
    write_clip(tmp_path / "others/x.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="have nothing in common: pairs need files of the same"):
        pairs_of([ours, tmp_path / "others"], Wanted(9, 0))
    with pytest.raises(ConfigError, match=r"there is no folder .*none"):
        pairs_of([tmp_path / "none"], Wanted(9, 0))
    with pytest.raises(ConfigError, match="neither a run nor a study"):
        pairs_of([tmp_path / "empty"], Wanted(9, 0))
    (tmp_path / "link").symlink_to(ours)
    for again in (ours, tmp_path / "link"):
        with pytest.raises(ConfigError, match="named twice"):
            pairs_of([ours, again], Wanted(9, 0))
    with pytest.raises(ConfigError, match="--pairs must be one of chosen"):
        pairs_of([run], Wanted(9, 0, "all"))
    with pytest.raises(DatasetError, match=r"no pair of chosen candidates .* from step 7"):
        pairs_of([run], Wanted(9, 0, from_step=7))
