"""Ablations: the plan, what is reused, and two tiny arms from start to report."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.workshop.ablate import main
from tests.small_runs import ablation_changes
from videorl.ablation import runs
from videorl.ablation.plan import Run, arm_run, base_run, choose, plan
from videorl.ablation.results import Results, contents
from videorl.ablation.runs import execute
from videorl.ablation.studies import STUDIES, Arm, Comparison, Study
from videorl.errors import ConfigError
from videorl.recipes.fingerprint import recipe_fingerprint
from videorl.run.sinks import JsonlSink

ROOT = Path(__file__).parents[3]
STALE = Arm({"rollouts.max_staleness": 2}, evaluations=2)
STORED = Arm(pairs="stored")
BROKEN = Arm({"selection.rule": "single_dimension", "selection.dimension": "beauty"})


@pytest.fixture
def changes(tiny_checkpoints: dict[str, Path]) -> list[str]:
    """Settings that make every arm tiny."""
    return ablation_changes(tiny_checkpoints["wan"])


def test_every_different_run_is_planned_once_and_early_seeds_come_first() -> None:
    studies = choose(["online", "staleness"])
    planned = plan(studies, 2, 24)
    # online and staleness 0 are one arm; three more of each study.
    assert [run.recipe.seed for run in planned] == [0] + [0] * 7 + [1] * 7
    assert planned[0].stops == (0,)
    assert len({run.digest for run in planned}) == len(planned)


def test_every_comparison_is_between_arms_of_its_study() -> None:
    for study in STUDIES.values():
        named = {label for pair in study.comparisons for label in (pair.better, pair.worse)}
        assert named <= {*study.arms}
        assert set(study.arms) <= named or study.title.startswith("A learned")


def test_an_unknown_study() -> None:
    with pytest.raises(ConfigError, match=r"no study stale; there are online, reference"):
        choose(["online", "stale"])


def test_a_digest_follows_what_decides_the_result_and_nothing_else() -> None:
    def digest(arm: Arm = STORED, seed: int = 0, steps: int = 4, *changes: str) -> str:
        return arm_run("", arm, seed, steps, changes).digest

    same = digest()
    assert digest(STORED, 0, 4, "generators.num_cpus=0.1", "archive.videos=all") == same
    others = [
        digest(replace(STORED, pairs="online")),
        digest(replace(STORED, evaluations=2)),
        digest(STORED, 1),
        digest(STORED, 0, 5),
        digest(STORED, 0, 4, "objective.beta=1"),
        digest(STORED, 0, 4, "evaluation.samples=1"),
        base_run(STORED, 4, ()).digest,
    ]
    assert len({same, *others}) == 1 + len(others)


def test_results_of_other_settings_are_not_reused(tmp_path: Path) -> None:
    results = Results(tmp_path)
    run = arm_run("one", Arm(), 0, 4, ())
    assert results.read(run) is None
    failed = results.fail(run, "no luck")
    assert "one, seed 0\nno luck" in failed.read_text()
    results.write(run, {"settings": run.settings, "found": 1})
    assert not failed.exists()
    assert results.missing([run, arm_run("two", Arm(), 1, 4, ())])[0].label == "two"
    # A setting that did not exist then is no obstacle, a default that was another one then is.
    older = {key: value for key, value in run.settings.items() if key != "objective.sft_weight"}
    results.write(run, {"settings": older})
    assert results.read(run) is not None
    results.write(run, {"settings": {**run.settings, "objective.sft_weight": 0.5}})
    assert results.read(run) is None


def test_results_that_rest_on_other_content_are_done_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    run = arm_run("one", Arm(), 0, 4, [f"prompts.source={tmp_path / 'prompts.txt'}"])
    results = Results(tmp_path)
    results.write(run, {"settings": run.settings, "inputs": contents(run.recipe)})
    assert results.read(run) is not None
    (tmp_path / "prompts.txt").write_text("a blue ball\n")
    assert results.read(run) is None
    assert "one, seed 0 is done again: prompts.source holds something else now" in caplog.text
    results.write(run, {"settings": run.settings, "inputs": contents(run.recipe), "again": True})
    assert results.read(run) is not None
    (old,) = (tmp_path / "superseded/results").iterdir()
    assert "again" not in json.loads(old.read_text()), "what was measured is kept"


def test_stored_results_are_found_under_settings_of_today(tmp_path: Path) -> None:
    """Written when each section had the settings of all objectives."""
    with tarfile.open(ROOT / "docs/ablations/results.tar.xz") as stored:
        stored.extractall(tmp_path, filter="data")
    results = Results(tmp_path)
    planned = plan(choose(["objective", "hacking"]), 1, 24)
    assert results.missing(planned) == []
    arms = STUDIES["objective"].arms
    sft = results.read(arm_run("", arms["SFT"], 0, 24, ()))
    assert sft is not None
    assert sft["overrides"] == {"objective.name": "sft"}
    for change in ("objective.sft_on=all", "optimizer.learning_rate=1e-5", "num_steps=23"):
        assert results.read(arm_run("", arms["SFT"], 0, 24, [change])) is None
    refl = STUDIES["hacking"].arms["ReFL"]
    assert results.read(arm_run("", refl, 0, 24, ["objective.gradient_steps=2"])) is None


class TornSink(JsonlSink):
    """Ends the process, so to speak, at step 3."""

    def write(self, step: int, metrics: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt
        super().write(step, metrics)


@pytest.mark.parametrize("arm", [STALE, STORED], ids=["stale", "stored"])
def test_a_run_that_was_cut_off_goes_on_and_finds_the_same(
    arm: Arm, changes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = arm_run("", arm, 0, 4, changes)
    whole = execute(run, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "JsonlSink", TornSink)
        patch.setattr("videorl.run.sinks.JsonlSink", TornSink)
        execute(run, tmp_path / "cut")
    (left,) = (tmp_path / "cut").iterdir()
    assert recipe_fingerprint(run.recipe).startswith(left.name.partition("-")[2]), "of this schema"
    stamps = [path.stat().st_mtime_ns for path in left.glob("evaluation/*.json")]
    assert len(stamps) == arm.evaluations - 1, "what was evaluated is kept"
    again = execute(run, tmp_path / "cut")
    assert not left.exists()
    assert [found["step"] for found in whole["evaluations"]] == list(run.stops)
    for ours, theirs in zip(again["evaluations"], whole["evaluations"], strict=True):
        for name, values in theirs["values"].items():
            assert ours["values"][name] == pytest.approx(values, abs=1e-4), name
    assert again["examples"] == whole["examples"] == 4 * 2


def test_two_arms_from_the_command_to_the_report(
    changes: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arms = {"online": Arm(evaluations=2), "stored": STORED, "broken": BROKEN}
    compared = (Comparison("online", "stored"), Comparison("online", "stored", "regressions", -1))
    monkeypatch.setitem(STUDIES, "tiny", Study("Tiny arms", "Nothing.", arms, compared))
    page = tmp_path / "docs" / "tiny.md"
    command = ["--studies", "tiny", "--seeds", "1", "--steps", "2", "--local"]
    command = [*changes, *command, "--out", str(tmp_path / "out"), "--report", str(page)]
    assert main(command) == 1, "one arm names a dimension that nobody scores"
    said = capsys.readouterr().out
    assert "4 runs, 0 of them finished before" in said
    assert "FAILED: videorl.errors.ConfigError: selection names dimensions" in said
    assert len(list((tmp_path / "out/failed").iterdir())) == 1
    text = page.read_text()
    assert "1 runs are missing: tiny: broken, seed 0" in text
    assert "| online − stored | total |" in text
    summary = json.loads(page.with_suffix(".json").read_text())
    (online,), (stored,) = (summary["studies"]["tiny"][name] for name in ("online", "stored"))
    assert [point["step"] for point in online["curve"]] == [1, 2]
    assert online["examples"] == stored["examples"] == 2 * 2
    assert online["curve"][-1]["total"] != stored["curve"][-1]["total"] != 0
    first = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    assert {path.name for path in first} == {"tiny.md", "tiny.json", "tiny.svg", "tiny-curve.svg"}
    assert main(command) == 1
    assert "4 runs, 3 of them finished before" in capsys.readouterr().out
    assert main(["--from", str(page.with_suffix(".json")), "--report", str(page)]) == 0
    assert first == {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}


def test_a_sweep_that_is_stopped_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(run: Run, root: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "execute", stopped)
    assert main(["--studies", "online", "--local", "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
