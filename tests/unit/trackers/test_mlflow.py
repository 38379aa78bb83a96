"""MLflow, with its local database in the run folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.tracked import fixed_videos, tracked
from videorl.trackers.mlflow_tracker import MlflowTracker

REASON = (
    "mlflow needs importlib-metadata < 10, and constraints.txt pins 10: `make test-trackers` "
    "installs it beside"
)
mlflow = pytest.importorskip("mlflow", reason=REASON)
pytest.importorskip("sqlalchemy", reason=REASON)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped, went on with another recipe, and ended. The database takes long."""
    root = tmp_path_factory.mktemp("run")
    tracker = MlflowTracker(tracked(root))
    tracker.config({"seed": 3, "a.long": "x" * 900, **{f"key.{n}": n for n in range(150)}})
    tracker.metrics(0, {"reward/total": 0.5, "learn/loss": math.nan, "odd (name)": 1.0})
    tracker.close()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    assert statuses(client) == ["KILLED"]
    tracker = MlflowTracker(tracked(root))
    assert statuses(client) == ["RUNNING"]
    tracker.config({"seed": 4})
    tracker.metrics(1, {"reward/total": 0.75})
    tracker.videos(1, fixed_videos(root, 1))
    tracker.summary({"evaluation.win_rate": 0.7, "policy_version.digest": "abc"})
    tracker.close()
    return root


def statuses(client: Any) -> list[str]:
    (experiment,) = client.search_experiments(filter_string="name = 'project'")
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]


def test_a_run_that_goes_on_is_one_run_with_the_numbers_of_both_parts(folder: Path) -> None:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'project'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "a run"
    assert run.data.tags["videorl_run_id"] == "an-id"
    history = client.get_metric_history(run.info.run_id, "reward/total")
    assert [(one.step, one.value) for one in history] == [(0, 0.5), (1, 0.75)]
    assert "odd _name_" in run.data.metrics
    assert run.data.metrics["fixed_prompts/total"] == 0.25
    assert run.data.params["seed"] == "3", "MLflow changes none"
    assert len(run.data.params) == 152
    assert run.data.tags["summary.policy_version.digest"] == "abc"


def test_videos_recipe_and_summary_are_artifacts_in_the_run_folder(folder: Path) -> None:
    (recipe,) = folder.glob("mlflow/*/artifacts/recipe.json")
    artifacts = recipe.parent
    assert json.loads(recipe.read_text()) == {"seed": 4}, "as it is now"
    assert json.loads((artifacts / "summary.json").read_text())["evaluation.win_rate"] == 0.7
    strip = artifacts / "fixed_prompts/step-000001"
    assert sorted(path.name for path in strip.iterdir()) == ["000.mp4", "001.mp4", "videos.json"]
    shown = json.loads((strip / "videos.json").read_text())["videos"]
    assert [one["file"] for one in shown] == ["000.mp4", "001.mp4", None]
    assert shown[1]["scores"] == {"motion": 1.0, "total": 0.5}
