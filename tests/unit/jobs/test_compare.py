"""Runs side by side: what is paired, what may be compared, and what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import cli
from videorl.comparison.compare import Comparison, compare, format_comparison
from videorl.comparison.page import page
from videorl.comparison.runs import read_runs
from videorl.data.video_io import write_mp4
from videorl.errors import RunFolderError
from videorl.evaluation.evaluate import summarise
from videorl.evaluation.record import write_groups
from videorl.evaluation.statistics import unpaired_bootstrap
from videorl.run.sinks import JsonlSink
from videorl.types import (
    Candidate,
    Prompt,
    Score,
    ScoredCandidate,
    ScoredGroup,
    Video,
    WeightVersion,
)

DIFFICULTY = (0.0, 10.0, -10.0, 5.0)
"""What a prompt's scores begin at: far more than what the runs differ by."""


def groups(gain: float, seeds: Sequence[int] = (1, 2), texts: str = "abcd") -> list[ScoredGroup]:
    """Return a group per prompt, whose samples score `DIFFICULTY` plus the gain, plus the seed."""
    found = []
    for index, text in enumerate(texts):
        prompt = Prompt(index, text)
        candidates = tuple(
            ScoredCandidate(
                Candidate(0, prompt, at, seed, WeightVersion(0, "d"), None, None),
                Score({"quality": (total := DIFFICULTY[index] + gain + seed)}, total),
                {"sharpness": total / 1000},
            )
            for at, seed in enumerate(seeds)
        )
        found.append(ScoredGroup(prompt, None, candidates, {}))
    return found


def run(
    folder: Path,
    after: list[ScoredGroup],
    rewards: str = "[{name: a, weight: 1}]",
    before: list[ScoredGroup] | None = None,
) -> Path:
    (folder / "evaluation/after").mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"name: {folder.name}\nnum_steps: 3\nseed: 0\nrewards: {rewards}\n"
    )
    write_groups(folder / "evaluation/before.json", before or groups(0.0))
    write_groups(folder / "evaluation/after.json", after)
    sink = JsonlSink(folder / "metrics.jsonl")
    for step in range(3):
        sink.write(step, {"reward/total": step, "time/step_s": 2.0, "candidates/scored": 8.0})
    write_mp4(folder / "evaluation/after/0.mp4", Video(np.zeros((3, 32, 32, 3), np.uint8), 8.0))
    row = {"prompt": "<b>", "seed": 7, "before": None, "after": "after/0.mp4", "after_score": 1.5}
    (folder / "evaluation/videos.json").write_text(json.dumps([row]))
    return folder


def compared(*folders: Path) -> Comparison:
    return compare(read_runs(folders))


def total(found: Comparison, label: str) -> Any:
    return next(metric for metric in found.metrics if metric.kind == "total").runs[label]


def test_shared_prompts_and_seeds_are_paired(tmp_path: Path) -> None:
    a = run(tmp_path / "a", groups(1.0))
    # Another seed of each prompt scores 100 higher, and must not count.
    b = run(tmp_path / "b", groups(1.5, seeds=(2, 101)))
    found = compared(a, b)
    against = total(found, "b").against_first
    assert (against.paired, against.num_prompts) == (True, 4)
    # Of the seed that both have, each prompt differs by exactly 0.5: the difficulty cancels.
    assert (against.interval.low, against.interval.high) == pytest.approx((0.5, 0.5))
    assert total(found, "a").against_first is None
    assert total(found, "a").change.interval.mean == pytest.approx(1.0)
    assert found.notes == [
        "b and a are compared on the seeds they share; their means are of all seeds"
    ]


def test_a_run_against_its_base_is_what_its_summary_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    after = [
        replace(
            group,
            candidates=tuple(
                replace(c, score=Score({"quality": (t := float(rng.normal()))}, t))
                for c in group.candidates
            ),
        )
        for group in groups(0.0)
    ]
    before = groups(0.0, seeds=(1, 2, 3, 4))
    found = compared(run(tmp_path / "a", after, before=before), run(tmp_path / "b", groups(1.0)))
    said = summarise(before, after).total
    assert total(found, "a").base.mean == pytest.approx(said.before)
    assert total(found, "a").change.interval == said.difference
    assert total(found, "a").aligned.mean == pytest.approx(said.after)


def test_fewer_shared_prompts_are_said(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", groups(1.0)), run(tmp_path / "b", groups(2.0, texts="abxy"))
    found = compared(a, b)
    assert total(found, "b").against_first.num_prompts == 2
    assert found.notes == ["b and a are compared on the 2 prompts they share of 4"]


def test_prompts_that_lost_a_sample_are_said(tmp_path: Path) -> None:
    damaged = [replace(groups(1.0)[0], dropped={"score_not_finite": 1}), *groups(1.0)[1:]]
    found = compared(run(tmp_path / "a", groups(1.0)), run(tmp_path / "b", damaged))
    assert found.notes[0] == "b: 1 held-out prompts lost a sample: left out"
    assert total(found, "b").against_first.num_prompts == 3


@pytest.mark.parametrize(
    "other",
    [{"texts": "wxyz"}, {"texts": "axyz"}, {"seeds": (8, 9)}],
    ids=["prompts", "all prompts but one", "seeds"],
)
def test_nothing_shared_is_said_to_be_unpaired(tmp_path: Path, other: dict[str, Any]) -> None:
    found = compared(run(tmp_path / "a", groups(1.0)), run(tmp_path / "b", groups(1.0, **other)))
    against = total(found, "b").against_first
    assert not against.paired
    assert against.interval.high - against.interval.low > 5  # the prompts' difficulty is in it
    assert "unpaired" in found.notes[0]
    assert "unpaired" in format_comparison(found)
    assert "unpaired" in page(found, 1)


def test_the_unpaired_interval_covers_the_difference_of_the_means() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 400), rng.normal(0, 2, 100)
    found = unpaired_bootstrap(a, b)
    error = float(np.sqrt(a.var() / 400 + b.var() / 100))
    assert found.mean == pytest.approx(b.mean() - a.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    with pytest.raises(ValueError, match="finite"):
        unpaired_bootstrap(a, [float("nan")])


def test_scores_on_different_scales_are_not_compared(tmp_path: Path) -> None:
    a = run(tmp_path / "a", groups(1.0))
    other_model = run(tmp_path / "b", groups(2.0), "[{name: other, weight: 1}]")
    other_weight = run(tmp_path / "c", groups(2.0), "[{name: a, weight: 3}]")
    other_checkpoint = run(tmp_path / "d", groups(2.0), "[{name: a, path: mine, weight: 1}]")
    found = compared(a, other_model, other_weight, other_checkpoint)
    by_kind = {metric.kind: metric.runs for metric in found.metrics}
    shown = {
        kind: [bool(runs[label].against_first) for label in "bcd"] for kind, runs in by_kind.items()
    }
    assert shown == {
        "total": [False, False, False],
        "dimension": [False, True, False],
        "unseen": [True, True, True],
    }
    assert "rewards.0.name" in found.notes[0]
    assert "rewards.0.weight" in found.notes[1]
    assert "rewards.0.path" in found.notes[2]


def test_only_settings_that_differ_are_shown(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", groups(1.0)), run(tmp_path / "b", groups(1.0))
    assert compared(a, b).settings == {}
    assert "all settings are the same" in format_comparison(compared(a, b))
    (b / "config.yaml").write_text(
        "name: b\nrun_dir: elsewhere\nnum_steps: 3\nseed: 1\nrewards: [{name: a, weight: 1}]\n"
        "policy: {path: x, dtype: auto}\n"
    )
    assert compared(a, b).settings == {"seed": {"a": 0, "b": 1}, "policy.path": {"b": "x"}}


def test_the_page_holds_all_and_asks_for_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = run(tmp_path / "a", groups(1.0)), run(tmp_path / "b", groups(2.0))
    out = tmp_path / "page.html"
    assert cli.main(["compare", str(a), str(b), "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    facts = {key: printed["runs"][1][key] for key in ("steps", "training_seconds", "candidates")}
    assert facts == {"steps": 3, "training_seconds": 6.0, "candidates": 24}
    assert printed["metrics"][0]["runs"]["b"]["against_first"]["interval"]["mean"] == 1.0
    html = out.read_text()
    assert html.count("data:video/mp4") == 2  # the aligned policies; the base has no file
    assert "&lt;b&gt;" in html
    assert "<b></p>" not in html
    assert "data:image/svg+xml" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert cli.main(["compare", str(a), str(b), "--out", str(out), "--videos", "0"]) == 0
    assert "data:video/mp4" not in out.read_text()


def test_a_run_without_an_evaluation_is_still_compared(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", groups(1.0)), run(tmp_path / "b", groups(1.0))
    (b / "evaluation/after.json").unlink()
    found = compared(a, b)
    assert "b has no scores" in found.notes[0]
    assert total(found, "b").aligned is None
    assert "24" in page(found, 1)


def test_names_are_as_long_as_they_need_to_be(tmp_path: Path) -> None:
    found = [run(tmp_path / part / "same", groups(1.0)) for part in ("x", "y")]
    assert [read.label for read in read_runs(found)] == ["x/same", "y/same"]


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    a = run(tmp_path / "a", groups(1.0))
    torn, older = run(tmp_path / "torn", groups(1.0)), run(tmp_path / "older", groups(1.0))
    whole = (torn / "evaluation/after.json").read_text()
    (torn / "evaluation/after.json").write_text(whole[: len(whole) // 2])
    (older / "evaluation/after.json").write_text('{"scores": []}')
    (tmp_path / "empty").mkdir()
    for folders, message in (
        ([a], "two runs or more"),
        ([a, tmp_path / "a/../a"], "listed twice"),
        ([a, tmp_path / "none"], "there is no folder"),
        ([a, tmp_path / "empty"], "has no config.yaml"),
        ([a, torn], "after.json is half-written"),
        ([a, older], "was written by another version"),
    ):
        with pytest.raises(RunFolderError, match=message):
            read_runs(folders)


def test_training_seeds_of_one_recipe_become_a_row(tmp_path: Path) -> None:
    folders = [run(tmp_path / name, groups(gain)) for name, gain in (("a", 1.0), ("b", 3.0))]
    other = run(tmp_path / "c", groups(9.0))
    (other / "config.yaml").write_text("name: c\nnum_steps: 4\nseed: 0\nrewards: [{name: a}]\n")
    assert not compared(*folders).seeds  # one seed twice is no two seeds
    config = (tmp_path / "b" / "config.yaml").read_text()
    (tmp_path / "b" / "config.yaml").write_text(config.replace("seed: 0", "seed: 1"))
    found = compared(*folders, other)
    row = next(row for row in found.seeds if row.kind == "total")
    assert row.runs == ("a", "b")
    assert row.change is not None and row.change.mean == pytest.approx(2.0)
    # Student's t of two values: 12.706 × (√2 / √2).
    assert row.change.high - row.change.mean == pytest.approx(12.706)
    assert "over training seeds" in format_comparison(found)
    assert "Over training seeds" in page(found, 0)
    assert found.to_dict()["seeds"][0]["runs"] == ("a", "b")
