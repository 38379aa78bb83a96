"""MLflow as a tracker."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from videorl.trackers.tracker import SECTION, FixedVideo, TrackedRun, means, package

ID_TAG = "videorl_run_id"
_MOST_PARAMS, _MOST_METRICS = 100, 1000
"""Of one request, by MLflow's own limits."""
_LONGEST_VALUE = 500
"""Characters of a parameter; older servers take no more."""


def check() -> None:
    """Import mlflow.

    Raises:
        ConfigError: It is not installed, or cannot be imported.
    """
    package("mlflow", "mlflow", needs="MlflowClient")


class MlflowTracker:
    """MLflow (`pip install 'videorl[mlflow]'`): on a server, or in the run folder.

    `MLFLOW_TRACKING_URI` names the server; without it all goes to `mlflow.db` and `mlflow/` of the
    run folder, which `mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db` shows. A resumed run
    is found by the tag `videorl_run_id`.
    """

    def __init__(self, run: TrackedRun) -> None:
        mlflow: Any = package("mlflow", "mlflow", needs="MlflowClient")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._mlflow = mlflow
        self._client = mlflow.MlflowClient(tracking_uri=uri or f"sqlite:///{run.root}/mlflow.db")
        place = None if uri else (run.root / "mlflow").as_uri()
        experiment = self._experiment(run.project, place)
        found = self._client.search_runs(
            [experiment], filter_string=f"tags.`{ID_TAG}` = '{run.id}'", max_results=1
        )
        self._is_new, self._is_over = not found, False
        if found:
            self._id: str = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            made = self._client.create_run(experiment, run_name=run.name, tags={ID_TAG: run.id})
            self._id = made.info.run_id

    def config(self, settings: Mapping[str, Any]) -> None:
        """Take the recipe: as parameters when the run begins, which MLflow then never changes.

        As it is now it is always in the artifact `recipe.json`.
        """
        self._client.log_dict(self._id, {key: _plain(settings[key]) for key in settings}, _RECIPE)
        if not self._is_new:
            return
        values = {name_of(key): str(value)[:_LONGEST_VALUE] for key, value in settings.items()}
        param = self._mlflow.entities.Param
        params = iter([param(key, value) for key, value in values.items()])
        while some := list(islice(params, _MOST_PARAMS)):
            self._client.log_batch(self._id, params=some)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        now_ms, metric = round(time.time() * 1000), self._mlflow.entities.Metric
        values = iter([metric(name_of(key), float(metrics[key]), now_ms, step) for key in metrics])
        while some := list(islice(values, _MOST_METRICS)):
            self._client.log_batch(self._id, metrics=some)

    def videos(self, step: int, videos: Sequence[FixedVideo]) -> None:
        """Keep the videos of a step as artifacts, with a file that says what they show."""
        folder, shown = f"{SECTION}/step-{step:06d}", []
        for video in videos:
            row = {"prompt": video.prompt, "seed": video.seed, "scores": dict(video.scores)}
            shown.append({**row, "file": video.path and video.path.name})
            if video.path is not None:
                self._client.log_artifact(self._id, str(video.path), folder)
        self._client.log_dict(self._id, {"videos": shown}, f"{folder}/videos.json")
        self.metrics(step, means(videos))

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Take the results as the artifact `summary.json`, and its texts as tags."""
        self._client.log_dict(self._id, {key: _plain(facts[key]) for key in facts}, "summary.json")
        for key, value in facts.items():
            if isinstance(value, str):
                self._client.set_tag(self._id, name_of(f"summary.{key}"), value[:_LONGEST_VALUE])
        self._is_over = True

    def truncate(self, step: int) -> None:
        """Do nothing: MLflow cannot forget single steps."""

    def close(self) -> None:
        """Say how the run ended; one that was stopped is `KILLED` until it goes on."""
        self._client.set_terminated(self._id, status="FINISHED" if self._is_over else "KILLED")

    def _experiment(self, name: str, place: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        return self._client.create_experiment(name, artifact_location=place)


_RECIPE = "recipe.json"


def name_of(key: str) -> str:
    """Return a key as MLflow takes it: letters, digits and `_ - . / : ` and space."""
    return re.sub(r"[^\w\-./: ]", "_", key, flags=re.ASCII)


def _plain(value: Any) -> Any:
    """Return a value that JSON has; others as text."""
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value)
