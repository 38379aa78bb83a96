"""Alerts, time line, film strip and state of a run, from hand-made numbers."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.watched_runs import CONFIG
from videorl.errors import RunFolderError
from videorl.report.contents import RunContents, read_run
from videorl.run.lock import hold
from videorl.run.overview import State
from videorl.watch import run_state
from videorl.watch.alerts import alerts
from videorl.watch.fixed_prompts import read_strips
from videorl.watch.models import UNSEEN, model_of, reward_names
from videorl.watch.run_state import RunReader, RunState
from videorl.watch.timeline import timeline

NOW = 10_000.0


def state(
    rows: list[dict[str, Any]], running: State = "running", silent_s: float = 1.0
) -> RunState:
    numbered = [{"step": step, **row} for step, row in enumerate(rows)]
    contents = RunContents("a run", 40, "", numbered, {}, [])
    return RunState(contents, running, NOW - silent_s)


def titles(rows: list[dict[str, Any]], **options: Any) -> list[str]:
    return [alert.title for alert in alerts(state(rows, **options), NOW)]


def test_a_healthy_run_has_no_alert() -> None:
    row = {"learn/examples": 6.0, "candidates/scored": 36.0, "time/step_s": 30.0}
    row |= {"unseen/dynamic_degree": 0.3, "optimizer/skipped": 0.0, "pool/generator_workers": 2.0}
    assert titles([{**row, "reward/total": step / 10} for step in range(20)]) == []
    assert titles([]) == []


def test_silence_counts_in_usual_steps_and_only_while_a_driver_works() -> None:
    rows = [{"time/step_s": 60.0}] * 3
    assert titles(rows, silent_s=299.0) == []
    assert titles(rows, silent_s=301.0) == ["No step for 5 min 01 s"]
    assert titles([{"time/step_s": 1.0}], silent_s=100.0) == []
    assert titles(rows, silent_s=999.0, running="stopped") == []


def test_nothing_learned_names_the_most_frequent_reason() -> None:
    row = {"learn/examples": 0.0, "groups/no_pair_all_scores_equal": 5.0}
    found = alerts(state([{**row, "groups/no_pair_margin_too_small": 1.0}] * 3), NOW)
    assert [alert.title for alert in found] == ["Nothing was learned in the last 3 steps"]
    assert "groups/no_pair_all_scores_equal" in found[0].reason
    assert titles([row, row, {"learn/examples": 1.0}]) == []


def test_motion_that_falls_while_the_reward_rises() -> None:
    def rows(last: float, rise: float) -> list[dict[str, Any]]:
        return [
            {"reward/total": rise * step, "unseen/dynamic_degree": 1.0 if step < 5 else last}
            for step in range(10)
        ]

    assert titles(rows(0.85, 1.0)) == ["The reward rises while motion falls"]
    assert titles(rows(0.95, 1.0)) == []
    assert titles(rows(0.85, -1.0)) == []


def test_the_newest_alarm_of_the_guard() -> None:
    found = state([{"reward/total": 1.0}])
    noted = [{"step": step, "reason": f"motion changed by -{step} %"} for step in (20, 30, 30)]
    contents = replace(found.contents, alarms=noted)
    (alert,) = alerts(replace(found, contents=contents), NOW)
    assert alert.title == "The guard found something at step 30"
    assert "prompts: motion changed by -30 %; motion changed by -30 %. The report" in alert.reason


def test_displacement_losses_skipped_updates_and_empty_pools() -> None:
    pushed = {"dpo/winner_error_change": 0.2, "learn/margin": 1.0}
    assert titles([pushed] * 8) == ["Likelihood displacement"]
    assert titles([{**pushed, "dpo/winner_error_change": 0.04}] * 8) == []
    lost = {"candidates/scored": 30.0, "candidates/dropped_score_not_finite": 6.0}
    assert titles([lost]) == ["Work is lost in the last 1 steps"]
    assert titles([{**lost, "candidates/dropped_score_not_finite": 2.0}]) == []
    assert titles([{"groups/dropped_group_lost": 1.0}]) == ["Work is lost in the last 1 steps"]
    assert titles([{"optimizer/skipped": 1.0}] * 3) == ["3 of the last 3 updates were skipped"]
    empty = {"pool/generator_workers": 0.0, "pool/generator_starting": 2.0}
    assert titles([empty]) == ["The pool generator had no worker when step 0 ended"]
    assert titles([empty], running="finished") == []


def test_the_time_line_has_pools_faults_and_swaps() -> None:
    rows = [
        {"reference/version_step": step // 2, "pool/generator_workers": 2.0, "pool/x_busy": 1.0}
        for step in range(4)
    ]
    rows[3]["groups/dropped_group_lost"] = 1.0
    rows[1]["optimizer/skipped"] = 0.0
    found = timeline(state(rows).contents)
    assert found.pools == {"generator workers": [(step, 2.0) for step in range(4)]}
    assert found.faults == {"groups/dropped_group_lost": [(3, 1.0)]}
    assert found.swaps == [2]


def test_the_summary_ends_the_time_line() -> None:
    contents = state([]).contents
    generators = {"workers_replaced": 2, "retried": 0}
    contents.summary.update(generators=generators, learner_starts=1)
    assert timeline(contents).ending == [
        "generators that were replaced: 2",
        "requests that were repeated: 0",
        "starts of the learner: 1",
    ]
    contents.summary.update(generators=[], learner_starts="many")
    assert timeline(contents).ending == []


def test_film_strips(tmp_path: Path) -> None:
    assert read_strips(tmp_path, 10) == ([], 0, [])
    folder = tmp_path / "fixed_prompts"
    folder.mkdir()
    prompts = [{"index": 7, "prompt": "a", "seed": 1}, {"index": 9, "prompt": "b", "seed": 2}]
    (folder / "prompts.json").write_text(json.dumps(prompts))
    for step in range(0, 250, 10):
        path = folder / f"step-{step:06d}"
        path.mkdir()
        (path / "000.mp4").touch()
        scores = [{"total": step / 100}, {"total": 1.0}]
        (path / "scores.json").write_text(json.dumps({"scores": scores, "version": step}))
    (folder / "step-000240/scores.json").write_text("{")
    strips, count, problems = read_strips(tmp_path, 4)
    assert count == 25
    assert [frame.step for frame in strips[0].frames] == [0, 80, 160, 240]
    assert strips[0].frames[1].video == "fixed_prompts/step-000080/000.mp4"
    assert strips[0].frames[1].scores == {"total": 0.8}
    assert (strips[1].prompt, strips[1].seed, strips[1].frames[0].video) == ("b", 2, None)
    assert strips[0].frames[3].scores == {}
    assert len(problems) == 1
    assert "step-000240/scores.json" in problems[0]
    for wrong in ("3", "[3]", '[{"prompt": "a"}]'):
        (folder / "prompts.json").write_text(wrong)
        assert "holds no list" in read_strips(tmp_path, 4)[2][0]


def test_scores_of_a_film_strip_that_are_none(tmp_path: Path) -> None:
    """Lost videos have an empty map; NaN and other things are no scores; half a step is none."""
    folder = tmp_path / "fixed_prompts"
    (folder / "step-000000").mkdir(parents=True)
    (folder / "step-000010.partial").mkdir()
    prompts = [{"prompt": name, "seed": 1} for name in "abcd"]
    (folder / "prompts.json").write_text(json.dumps(prompts))
    (folder / "step-000000/scores.json").write_text(
        '{"scores": [{}, {"total": NaN, "motion": 1}, 3]}'
    )
    strips, count, problems = read_strips(tmp_path, 4)
    assert (count, problems) == (1, [])
    assert [strip.frames[0].scores for strip in strips] == [{}, {"motion": 1.0}, {}, {}]
    (folder / "step-000000/scores.json").write_text("[]")
    assert not any(strip.frames[0].scores for strip in read_strips(tmp_path, 4)[0])


def test_models_of_scores() -> None:
    assert model_of("unseen", "sharpness", ["a"]) == UNSEEN
    assert model_of("reward", "motion", ["a"]) == "a"
    assert model_of("reward", "a.b.motion", ["a", "a.b"]) == "a.b"
    named = {"rewards": [{"name": "x", "label": "mine"}, {"name": "y", "label": ""}]}
    assert reward_names(named) == ["mine", "y"]
    assert reward_names({"rewards": "of another version"}) == []
    assert model_of("reward", "motion", []) == "motion"


def test_the_state_of_a_run_follows_its_files(tmp_path: Path) -> None:
    reader = RunReader(tmp_path)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        reader.read()
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG))
    assert (reader.read().state, reader.read().num_done) == ("stopped", 0)
    with hold(tmp_path):
        (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n{"st')
        assert (reader.read().state, reader.read().num_done) == ("running", 2)
    assert reader.read().contents is reader.read().contents
    (tmp_path / "summary.json").write_text('{"num_steps": 6}')
    assert reader.read().state == "finished"
    (tmp_path / "metrics.jsonl").write_text("no json\n")
    with pytest.raises(RunFolderError, match="line 1 is not JSON"):
        reader.read()


def test_several_threads_read_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG))
    calls: list[Path] = []

    def slow(root: Path) -> RunContents:
        calls.append(root)
        time.sleep(0.05)
        return read_run(root)

    monkeypatch.setattr(run_state, "read_run", slow)
    reader = RunReader(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: reader.read().contents, range(8)))
    assert len(calls) == 1
    assert all(contents is found[0] for contents in found)
