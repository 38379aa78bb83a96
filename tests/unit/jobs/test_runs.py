"""What `videorl runs` says of run folders in any state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import cli
from videorl.recipes.reading import load_recipe
from videorl.run.folder import open_run
from videorl.run.sinks import JsonlSink


def listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert cli.main(["runs", str(folder), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A finished run, a stopped run, and one with a damaged recipe."""
    for name, steps in (("done", 3), ("half", 2)):
        recipe = load_recipe("moving_shapes", [f"run_dir={tmp_path / name}", "num_steps=3"])
        with open_run(recipe) as folder:
            sink = JsonlSink(folder.metrics)
            for step in range(steps):
                sink.write(step, {"reward/total": step - 1.5})
    total = {"before": -1.0, "after": 0.25}
    summary = {"num_steps": 3, "evaluation": {"total": total}}
    (tmp_path / "done/summary.json").write_text(json.dumps(summary))
    (tmp_path / "deep/broken").mkdir(parents=True)
    (tmp_path / "deep/broken/config.yaml").write_text("name: [")
    (tmp_path / "no run").mkdir()
    return tmp_path


def test_states_steps_and_rewards(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, done, half = listed(runs, capsys)
    assert broken["state"] == "damaged"
    problem = "config.yaml is no YAML: did not find expected node content in line 2"
    assert broken["problem"] == problem
    assert (done["state"], done["step"], done["num_steps"]) == ("finished", 3, 3)
    assert (done["reward"], done["before"], done["after"]) == (0.5, -1.0, 0.25)
    assert (half["state"], half["step"], half["after"]) == ("stopped", 2, None)
    on_disk = sum(path.stat().st_size for path in (runs / "half").rglob("*") if path.is_file())
    assert half["bytes_on_disk"] == on_disk


def test_a_run_whose_driver_lives_is_running(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe("moving_shapes", [f"run_dir={runs / 'half'}", "num_steps=3"])
    with open_run(recipe):
        assert listed(runs / "half", capsys)[0]["state"] == "running"
    assert listed(runs / "half", capsys)[0]["state"] == "stopped"


def test_the_table_has_a_line_per_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", str(runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    columns = ["run", "state", "step", "reward", "held-out", "disk", "updated", "id"]
    assert lines[0].split() == columns
    assert [line.split()[0] for line in lines[1:4]] == ["deep/broken", "done", "half"]
    assert "3/3" in lines[2]
    assert "-1.000 to +0.250" in lines[2]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert cli.main(["runs", str(tmp_path / "nowhere")]) == 2


def test_runs_of_other_versions_have_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be read is shown, what cannot is named; hidden folders are none of ours."""
    files = {
        "bare/metrics.jsonl": '{"step": 0, "reward/total": 1.0}\n',
        "endless/config.yaml": "name: endless",
        "endless/metrics.jsonl": '{"step": 4, "reward/total": null}\n',
        "evaluated/config.yaml": "num_steps: 2",
        "evaluated/summary.json": '{"num_steps": 2, "evaluation": {"total": [1, NaN]}}',
        "listed/config.yaml": "[1, 2]",
        "odd/config.yaml": 'num_steps: "<b>"',
        "odd/summary.json": "[]",
        ".hidden/config.yaml": "num_steps: 2",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    bare, endless, evaluated, holds_a_list, odd = listed(tmp_path, capsys)
    assert (bare["state"], bare["problem"]) == (
        "damaged", "it has metrics but no config.yaml, which every run writes first",
    )  # fmt: skip
    assert (endless["state"], endless["step"], endless["reward"]) == ("stopped", 5, None)
    assert "no num_steps, as of another version" in str(endless["problem"])
    assert (evaluated["state"], evaluated["before"]) == ("finished", None)
    assert "evaluation is of another version" in str(evaluated["problem"])
    assert "holds no recipe but '[1, 2]'" in str(holds_a_list["problem"])
    assert (odd["state"], odd["num_steps"]) == ("stopped", None)
    assert "summary.json holds no results" in str(odd["problem"])
