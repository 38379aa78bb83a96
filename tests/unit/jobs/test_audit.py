"""A real run is audited clean, and every kind of damage to its records is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import cli
from videorl.audit import Audit, audit
from videorl.config import Recipe
from videorl.data.archive import read_table
from videorl.data.archive_tables import SCHEMAS
from videorl.errors import ArchiveError, CheckpointError, PromptError, RunFolderError, WorkLostError
from videorl.loop import train
from videorl.one_process import local_parts
from videorl.protocols import Generator
from videorl.recipes.reading import load_recipe
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import JsonlSink
from videorl.types import CandidateGroup, SampleRequest
from videorl.worlds import grammar

STEPS = 4
SETTINGS = {
    "num_steps": STEPS,
    "policy.lora.rank": 2,
    "sampling.num_inference_steps": 1,
    "prompts.per_round": 2,
    "prompts.candidates_per_prompt": 3,
    "rollouts.max_staleness": 1,
    "optimizer.learning_rate": 1e-2,
    "reference.interval": 2,
    "checkpoint.interval": 2,
    "evaluation.source": "",
}
Row = dict[str, Any]


@dataclass(frozen=True)
class LosingGenerator:
    """Loses some prompts for good."""

    inner: Generator
    errors: dict[int, Exception]

    def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
        """Sample, or fail."""
        if error := self.errors.get(request.prompt.index):
            lost: Future[CandidateGroup] = Future()
            lost.set_exception(error)
            return lost
        return self.inner.submit(request)


def recipe(checkpoint: Path, run_dir: Path) -> Recipe:
    places = {"policy.path": checkpoint, "run_dir": run_dir}
    overrides = [f"{name}={value}" for name, value in {**SETTINGS, **places}.items()]
    return load_recipe("moving_shapes", overrides)


def work(chosen: Recipe, steps: int = STEPS) -> None:
    """Run, or go on with, a recipe in this process until it has done `steps` more."""
    with open_run(chosen) as folder:
        sink = JsonlSink(folder.metrics)
        parts, progress, _ = local_parts(chosen, folder, sink)
        sink.truncate(progress.step)
        errors = {3: WorkLostError("out of memory"), 4: PromptError("too long")}
        losing = replace(parts, generator=LosingGenerator(parts.generator, errors))
        asked = iter(range(STEPS + 1))
        train(chosen, losing, progress, lambda: next(asked) >= steps)


@pytest.fixture(scope="module")
def finished(
    tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    """A run of 4 steps; of its 8 prompts, 3 is lost and 4 is rejected. Never write to it."""
    folder = tmp_path_factory.mktemp("audit") / "run"
    work(recipe(tiny_checkpoints["wan"], folder))
    return RunFolder(folder)


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy to damage."""
    return RunFolder(Path(shutil.copytree(finished.root, tmp_path / "run")))


def said(run: RunFolder) -> str:
    return "\n".join(f"{fault.where}: {fault.what}" for fault in audit(run).contradictions)


def edit(run: RunFolder, table: str, step: int, change: Callable[[list[Row]], Any]) -> None:
    """Change the rows of one step of a table, in place."""
    path = run.archive / table / f"step-{step:06d}.parquet"
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMAS[table]), path)


def test_a_run_is_clean_and_every_prompt_accounted_for(finished: RunFolder) -> None:
    found = audit(finished)
    assert found.contradictions == ()
    assert (found.cursor, found.queued, found.num_later_steps) == (STEPS, 0, 0)
    ties = found.dropped.get("all_scores_equal", 0)
    assert found.dropped["group_lost"] == found.dropped["prompt_rejected"] == 1
    assert found.trained == 8 - 2 - ties
    assert found.candidates == 6 * 3


def test_a_stopped_and_resumed_run_is_clean_at_any_moment(
    finished: RunFolder, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    chosen = recipe(tiny_checkpoints["wan"], tmp_path / "run")
    chosen.checkpoint.interval = 0
    work(chosen, steps=1)
    run = RunFolder(tmp_path / "run")
    shutil.copytree(run.root / "checkpoints", tmp_path / "first")
    work(chosen, steps=2)
    shutil.rmtree(run.root / "checkpoints")
    shutil.copytree(tmp_path / "first", run.root / "checkpoints")
    killed = audit(run)
    assert killed.is_clean, killed
    assert (killed.cursor, killed.num_later_steps, killed.queued) == (1, 2, 6)
    work(chosen)
    again = audit(run)
    assert again.is_clean, again
    assert ledger(again) == ledger(audit(finished))


def test_a_run_on_weighted_prompts_of_a_table_is_resumed_and_clean(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    rows = [
        {"prompt": text, "id": f"shape-{n}", "tags": ["even"] if n % 2 == 0 else [], "weight": n}
        for n, text in enumerate(grammar.prompts("train")[:5])
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    chosen = recipe(tiny_checkpoints["wan"], tmp_path / "run")
    chosen.prompts.source = str(path)
    work(chosen, steps=2)
    work(chosen)
    run = RunFolder(tmp_path / "run")
    assert audit(run).is_clean, audit(run)
    known = {row["id"]: row for row in rows}
    ledger = read_table(run.archive, "prompts").to_pylist()
    assert len(ledger) == 8
    for row in ledger:
        assert row["prompt"] == known[row["prompt_id"]]["prompt"]
        assert (row["tags"] or []) == known[row["prompt_id"]]["tags"]
    assert "shape-0" not in {row["prompt_id"] for row in ledger}, "it weighs nothing"
    for step in (0, 1):  # as an earlier version wrote them
        path = run.archive / f"prompts/step-{step:06d}.parquet"
        pq.write_table(pq.read_table(path).drop_columns(["prompt_id", "tags"]), path)
    assert audit(run).is_clean, audit(run)


def ledger(found: Audit) -> tuple[Any, ...]:
    return found.cursor, found.trained, found.dropped, found.queued, found.candidates


def test_a_deleted_candidate(run: RunFolder) -> None:
    edit(run, "candidates", 0, lambda rows: rows.pop(0))
    text = said(run)
    assert "with 2 scored and 0 dropped candidates, which should add up to 3" in text
    assert "candidate r000000-p000000-c00: has scores, but is no candidate" in text
    assert "metrics.jsonl, step 0: candidates/scored is 6.0, but the archive says 5.0" in text


def test_a_duplicated_candidate(run: RunFolder) -> None:
    edit(run, "candidates", 1, lambda rows: rows.append(rows[0]))
    assert "archive: candidate r000001-p000002-c00 is there 2 times" in said(run)


def test_a_wrong_seed(run: RunFolder) -> None:
    edit(run, "candidates", 2, lambda rows: rows[1].update(seed=7))
    assert "candidate r000002-p000005-c01: seed is 7, should be " in said(run)
    assert len(audit(run).contradictions) == 1


def test_a_version_that_was_never_published(run: RunFolder) -> None:
    edit(run, "candidates", 2, lambda rows: rows[1].update(version_digest="beef"))
    assert "candidate r000002-p000005-c01: version_digest is 'beef', should be " in said(run)


def test_a_candidate_that_is_too_old(run: RunFolder) -> None:
    edit(run, "candidates", 3, lambda rows: rows[0].update(version_step=1))
    text = said(run)
    assert "candidate r000003-p000006-c00: version_step is 1, should be 2" in text
    assert "metrics.jsonl, step 3: staleness/candidates_2 is absent" in text


def test_a_published_digest_that_is_not_the_checkpoint_s(run: RunFolder) -> None:
    edit(run, "steps", 3, lambda rows: rows[0].update(published_digest="beef"))
    text = said(run)
    assert "checkpoint of step 4, version 4: digest is " in text
    assert "checkpoint of step 4, reference of step 4: digest is " in text


def test_a_prompt_that_is_nowhere_or_twice(run: RunFolder) -> None:
    edit(run, "prompts", 1, lambda rows: rows.pop(1))
    edit(run, "prompts", 2, lambda rows: rows.append(rows[0]))
    text = said(run)
    assert "prompt 3: is in the ledger 0 times, not once" in text
    assert "prompt 4: is in the ledger 2 times, not once" in text
    assert "metrics.jsonl, step 1: groups/dropped_group_lost is 1.0" in text


def test_a_prompt_of_another_stream_or_step(run: RunFolder) -> None:
    edit(run, "prompts", 0, lambda rows: rows[0].update(prompt="else"))
    edit(run, "prompts", 3, lambda rows: rows[0].update(prompt_index=99))
    text = said(run)
    assert "prompt 0, ledger: prompt is 'else', should be " in text
    assert "prompt 99: is in the ledger, but 8 were taken" in text
    assert "prompt 6: is in the ledger 0 times" in text


def test_an_outcome_that_does_not_fit(run: RunFolder) -> None:
    edit(run, "prompts", 1, lambda rows: rows[1].update(outcome="trained"))
    text = said(run)
    assert "prompt 3: is `trained` with 0 scored and 0 dropped candidates" in text
    assert "prompt 3: is `trained`, but is in 0 pairs" in text


def test_pairs_of_strangers(run: RunFolder) -> None:
    edit(run, "pairs", 0, lambda rows: rows[0].update(chosen_id="r000009-p000009-c00"))
    edit(run, "pairs", 1, lambda rows: rows[0].update(rejected_id="r000000-p000001-c00"))
    edit(run, "pairs", 3, lambda rows: rows[0].update(margin=-1.0))
    text = said(run)
    assert "r000009-p000009-c00 is no candidate" in text
    assert "but r000000-p000001-c00 is of step 0, prompt 1" in text
    assert "margin is -1.0, should be " in text


def test_a_lost_table_or_step(run: RunFolder) -> None:
    (run.archive / "scores/step-000001.parquet").unlink()
    for table in SCHEMAS:
        (run.archive / table / "step-000002.parquet").unlink()
    text = said(run)
    assert "archive, step 1: the scores table is missing" in text
    assert "archive, step 2: the candidates table is missing" in text
    assert "archive, steps table: step 2 is there 0 times, not once" in text


def test_holes_and_repeats_in_the_metrics(run: RunFolder) -> None:
    lines = run.metrics.read_text().splitlines(keepends=True)
    row = json.loads(lines[3])
    row["learn/examples"] = 7.0
    run.metrics.write_text("".join([lines[0], lines[2], lines[2], json.dumps(row) + "\n"]))
    text = said(run)
    assert "metrics.jsonl: step 1 is there 0 times, not once" in text
    assert "metrics.jsonl: step 2 is there 2 times, not once" in text
    assert "metrics.jsonl, step 3: learn/examples is 7.0, but the archive says" in text
    run.metrics.write_text("{broken\n")
    assert "line 1 is not JSON" in said(run)


def test_metrics_under_the_names_of_an_older_version(run: RunFolder) -> None:
    text = run.metrics.read_text()
    assert '"learn/examples"' in text
    run.metrics.write_text(text.replace("learn/examples", "dpo/pairs"))
    assert said(run) == ""


def test_a_reference_that_was_not_swapped(run: RunFolder) -> None:
    edit(run, "steps", 1, lambda rows: rows[0].update(reference_step=0))
    path = run.root / "checkpoints" / f"step-{STEPS:06d}/state.json"
    state = json.loads(path.read_text())
    state["loop"]["reference"]["history"].pop(1)
    path.write_text(json.dumps(state))
    text = said(run)
    assert "archive, step 1: reference_step is 0, should be 2" in text
    assert "reference history: is of steps [0, 4], due were [0, 2, 4]" in text


def test_the_checkpoint_of_a_run_on_a_cluster(run: RunFolder) -> None:
    path = run.root / "checkpoints" / f"step-{STEPS:06d}/state.json"
    state = json.loads(path.read_text())
    inner = state["loop"]
    state["loop"] = {"command": 7, "loop": inner}
    path.write_text(json.dumps(state))
    assert audit(run).is_clean
    inner["reference"]["history"].pop(1)
    path.write_text(json.dumps(state))
    assert "reference history: is of steps [0, 4], due were [0, 2, 4]" in said(run)


def test_a_summary_of_another_run(run: RunFolder) -> None:
    version = {"step": STEPS, "digest": "beef"}
    run.summary.write_text(json.dumps({"num_steps": STEPS, "policy_version": version}))
    assert "summary.json, policy_version: digest is 'beef', should be " in said(run)
    run.summary.write_text(json.dumps({"num_steps": 9, "policy_version": version}))
    assert "summary.json: says 9 steps, but the newest checkpoint is of step 4" in said(run)


def test_a_checkpoint_of_a_learner_on_ray_train(run: RunFolder) -> None:
    path = run.root / "checkpoints" / f"step-{STEPS:06d}/state.json"
    state = json.loads(path.read_text())
    state["loop"] = {"command": 12, "loop": state["loop"]}
    path.write_text(json.dumps(state))
    assert said(run) == ""
    state["loop"]["loop"]["step"] = 3
    path.write_text(json.dumps(state))
    assert said(run) == "checkpoint of step 4, cursor: step is 3, should be 4"


def test_a_lost_video(run: RunFolder) -> None:
    next(run.archive.glob("videos/step-000000/*.mp4")).unlink()
    assert "its video videos/step-000000/" in said(run)


def test_what_cannot_be_audited(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is no run folder"):
        audit(RunFolder(tmp_path))
    for table in ("prompts", "steps"):
        shutil.rmtree(run.archive / table)
    with pytest.raises(ArchiveError, match="that kept no ledger"):
        audit(run)


def test_a_checkpoint_of_a_newer_version_stops_everybody_and_stays_as_it_is(
    run: RunFolder, tiny_checkpoints: dict[str, Path]
) -> None:
    path = run.root / "checkpoints" / f"step-{STEPS:06d}/state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))

    def files() -> dict[str, bytes]:
        found = (path for path in sorted(run.root.rglob("*")) if path.is_file())
        return {str(path): path.read_bytes() for path in found if path.name != "config.yaml"}

    before = files()
    for use in (audit, lambda folder: work(recipe(tiny_checkpoints["wan"], folder.root))):
        with pytest.raises(CheckpointError, match="has checkpoint format 99"):
            use(run)
    assert files() == before


def test_the_command_prints_the_ledger_and_exits_by_its_verdict(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["audit", str(run.root)]) == 0
    shown = capsys.readouterr().out
    assert "dropped: group_lost" in shown
    assert "clean: nothing contradicts anything" in shown
    edit(run, "candidates", 2, lambda rows: rows[1].update(seed=7))
    assert cli.main(["audit", str(run.root)]) == 1
    assert "NOT clean: 1 contradictions" in capsys.readouterr().out
    assert cli.main(["audit", str(run.root), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["is_clean"] is False
    assert found["contradictions"][0]["where"] == "candidate r000002-p000005-c01"


@pytest.mark.parametrize("text", ["only one\n", "one\ntwo\nthree\nfour\nfive\n"])
def test_prompts_that_changed_since_are_named_and_old_steps_are_not_blamed(
    text: str,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(grammar.prompts("train")[:3]))
    chosen = recipe(tiny_checkpoints["wan"], tmp_path / "run")
    chosen.prompts.source = str(tmp_path / "prompts.txt")
    work(chosen, 2)
    assert audit(RunFolder(tmp_path / "run")).changed_inputs == ()
    (tmp_path / "prompts.txt").write_text(text)
    assert cli.main(["audit", str(tmp_path / "run"), "--full"]) == 0
    printed = capsys.readouterr().out
    wanted = f"changed since the run began: prompts.source={tmp_path / 'prompts.txt'} holds "
    assert wanted in printed and "3 prompts then, " in printed
    edit(RunFolder(tmp_path / "run"), "prompts", 0, lambda rows: rows[0].update(prompt="other"))
    assert "prompt is " in said(RunFolder(tmp_path / "run")), "the ledger itself is still compared"
