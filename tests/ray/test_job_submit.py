"""The main job through `ray job submit`, on a cluster that `ray start --head` made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.ray.heads import Head, free_ports, started_head
from tests.ray.test_scoring import TEXTS, save_videos
from videorl.data.archive import check

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A cluster that ends with the tests of this file."""
    with started_head(free_ports(1)[0], ["--num-cpus=2"]) as one:
        yield one


def test_a_submitted_job_scores_videos_with_the_code_that_travels_along(
    head: Head, tmp_path: Path
) -> None:
    save_videos(tmp_path / "clips", TEXTS[:2])
    arguments = ["--reward", "moving_shapes", "--out", str(tmp_path / "scores.parquet")]
    job = head.submit("python", "-m", "jobs.score", str(tmp_path / "clips"), *arguments)
    assert job.returncode == 0, job.stdout + job.stderr
    assert "succeeded" in job.stdout
    assert "2 of 2 videos have scores" in job.stdout
    assert pq.read_table(tmp_path / "scores.parquet").num_rows == 2
    assert_small_upload(head.session)


def test_a_refused_command_ends_its_job_as_stopped_which_kuberay_does_not_start_again(
    head: Head,
) -> None:
    train = ["python", "-m", "jobs.train", "moving_shapes", "seed=-1"]
    job = head.submit("python", "-m", "jobs.retry", "--stop-job", "--", *train)
    said = job.stdout + job.stderr
    assert "seed must be >= 0" in said
    assert "exit code 2: the job is stopped" in said
    assert "was stopped" in job.stdout, said


@pytest.mark.long
def test_the_main_job_runs_as_a_submitted_job(
    head: Head, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = {
        "policy.path": tiny_checkpoints["wan"],
        "policy.lora.rank": 4,
        "num_steps": 2,
        "run_dir": run,
        "evaluation.source": "",
        "sampling.num_inference_steps": 2,
        "prompts.per_round": 2,
        "prompts.candidates_per_prompt": 3,
        "generators.min_workers": 1,
        "generators.max_workers": 1,
    }
    overrides = [f"{name}={value}" for name, value in settings.items()]
    job = head.submit("python", "-m", "jobs.train", "moving_shapes", *overrides)
    assert job.returncode == 0, job.stdout + job.stderr
    assert "succeeded" in job.stdout
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["num_steps"], summary["policy_version"]["step"]) == (2, 2)
    assert check(run / "archive", 2) == []
    assert (run / "report.html").stat().st_size > 1000
    assert list((run / "aligned").iterdir())
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert_small_upload(head.session)


def assert_small_upload(session: Path) -> None:
    """The code travelled, but nothing that git ignores, and no history."""
    (uploaded,) = (
        path
        for path in (session / "runtime_resources/working_dir_files").iterdir()
        if path.is_dir()
    )
    names = {path.name for path in uploaded.iterdir()}
    assert {"videorl", "actors", "jobs", "pyproject.toml"} <= names
    assert not names & {".git", ".venv", "runs"}
    size = sum(path.stat().st_size for path in uploaded.rglob("*") if path.is_file())
    assert size < 30 * 2**20
