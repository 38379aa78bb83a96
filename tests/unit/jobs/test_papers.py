"""The papers' tables on Moving Shapes: the network that is taught, the page, and a whole run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from jobs import command
from jobs.exit_codes import ExitCode
from jobs.workshop.papers import main
from videorl.ablation.methods import FACTS, METHODS, adapter_folder, method_run
from videorl.ablation.papers_page import write_page
from videorl.ablation.recogniser import Recogniser, clean_clip, teach, words_of, write_clean_clips
from videorl.evaluation.statistics import Interval
from videorl.measures.results import OverSeeds
from videorl.measures.video_mae import VideoMAEFeatures
from videorl.worlds import grammar


def test_the_network_is_a_reward_and_has_features(tmp_path: Path) -> None:
    place = teach(tmp_path / "network", 2)
    written = (place / "model.safetensors").stat().st_mtime_ns
    assert teach(place, 2) == place and (place / "model.safetensors").stat().st_mtime_ns == written
    scene = grammar.parse("a large white triangle moving down")
    assert words_of(scene) == [1, 7, 2, 3]
    clip = clean_clip(0, scene)
    first, other = Recogniser(str(place)).score(
        [clip, clip], [scene.text, "a small red circle moving up"]
    )
    assert first.total < 0 and first.total != other.total
    assert VideoMAEFeatures(str(place), "cpu").of(clip.frames[:8]).shape == (32,)


def test_clean_clips_are_written_once(tmp_path: Path) -> None:
    folder = write_clean_clips(tmp_path / "clean", 2)
    (folder / "0000.mp4").write_bytes(b"kept")
    write_clean_clips(folder, 2)
    assert (folder / "0000.mp4").read_bytes() == b"kept"
    assert (folder / "0001.txt").read_text() == grammar.prompts("held_out")[1]


def test_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = method_run("SFT", 1, 2)
    facts = {"method": "SFT", "seed": 1, "steps": 2, "cpu_seconds": 9.0}
    adapter_folder(out, run).mkdir(parents=True)
    (adapter_folder(out, run) / FACTS).write_text(json.dumps(facts))
    change = Interval(-2.0, -3.0, -1.0)
    rows = [
        OverSeeds("SFT", "FVD", 2, Interval(8.0, 6.0, 10.0), change, 0.01, 0.02),
        OverSeeds("SFT", "win rate, oracle total", 2, Interval(0.6, 0.6, 0.6)),
    ]
    found = {
        "rows": [{"label": "base", "numbers": {"FVD": {"value": 10.0}}}],
        "methods": [dataclasses.asdict(row) for row in rows],
        "win_rates": [],
        "notes": ["a note"],
        "settings": {"num_prompts": "16", "samples": "2"},
    }
    (out / "measured").mkdir()
    (out / "measured" / "measured.json").write_text(json.dumps(found))
    write_page(tmp_path / "page.md", out / "measured" / "measured.json", [run], "command")
    text = (tmp_path / "page.md").read_text()
    assert "| base | 10.00 | 50.00 |" in text
    assert "| SFT | 8.00 ± 2.00 | 60.00 |" in text
    assert "| FVD | SFT | 8.000 [6.000, 10.000] | -2.000 [-3.000, -1.000] | 0.020 | 2 |" in text
    assert "Trainings: SFT 1." in text and "- a note" in text
    assert json.loads((tmp_path / "page.json").read_text())["trainings"] == [facts]


def test_a_table_that_was_stopped_writes_no_page_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, page = tmp_path / "out", tmp_path / "page.md"
    (out / "measured").mkdir(parents=True)
    (out / "measured" / "measured.json").write_text('{"rows": [], "methods": [], "settings": {}}')
    monkeypatch.setattr("videorl.ablation.recogniser.teach", lambda folder, _: folder)
    monkeypatch.setattr("videorl.ablation.recogniser.write_clean_clips", lambda folder, _: folder)
    monkeypatch.setattr("jobs.workshop.papers.measure", lambda _: ExitCode.STOPPED)
    argv = ["--seeds", "1", "--trained", "--out", str(out), "--report", str(page)]
    assert command.run(main, argv) == ExitCode.STOPPED
    assert not page.exists()


@pytest.mark.long
def test_a_whole_table(tmp_path: Path) -> None:
    argv = ["--seeds", "2", "--steps", "1", "--prompts", "2", "--local"]
    words = [*argv, "--out", str(tmp_path / "out"), "--report", str(tmp_path / "page.md")]
    assert command.run(main, words) == 0
    text = (tmp_path / "page.md").read_text()
    assert all(f"| {name} |" in text for name in METHODS)
