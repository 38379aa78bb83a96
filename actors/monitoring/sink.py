"""The metrics of a run as Ray metrics, from which Prometheus has them."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.util.metrics import Counter, Gauge

from actors.monitoring.table import RUN_TAGS, target
from actors.naming import run_name
from actors.pool.metrics import pool_metrics
from actors.pool.pool import ElasticPool
from videorl.recipes.fingerprint import RunRecipe
from videorl.run.background import repeating
from videorl.run.folder import RunFolder

_LIVE_S = 5.0
"""Seconds between two looks at the pools, while a step lasts."""
ALL_REWARDS = "all"
"""The tag `reward` of what is summed over several models."""
BETWEEN = "between_steps"
"""The stage of the driver's time that no step has: checkpoints, above all."""


class RayMetricsSink:
    """A `videorl.run.sinks.RunSink` that sets a Ray metric for every number it is given.

    Beside these there are, set by the sink itself: `videorl_steps` done by this driver,
    `videorl_step` and `videorl_num_steps`, `videorl_last_step_timestamp_seconds` (at first when the
    sink was made), and `videorl_training`, 1 until the sink is closed.

    Args:
        tags: Values of `RUN_TAGS`.
        num_steps: Of the whole run.
        reward: The tag `reward` of dimensions that do not name their model.
    """

    def __init__(self, tags: Mapping[str, str], num_steps: int, reward: str = ALL_REWARDS) -> None:
        self._tags = dict(tags)
        self._defaults = {"reward": reward}
        self._metrics: dict[str, Any] = {}
        self._totals: dict[str, float] = {}
        self._last = time.perf_counter()
        self._set("videorl_num_steps", num_steps, "Steps of the whole run")
        self._is_training(True)
        self._stamp()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Set every metric of one step."""
        now = time.perf_counter()
        between = now - self._last - metrics.get("time/step_s", 0.0)
        self._last = now
        for name, value in {**metrics, f"time/{BETWEEN}_s": between}.items():
            self._record(name, value)
        self._set("videorl_step", step + 1, "Steps that are done")
        self._add("videorl_steps", 1.0, "Steps that this driver has done")
        self._stamp()

    def live(self, metrics: Mapping[str, float]) -> None:
        """Set metrics of this moment, between two steps."""
        for name, value in metrics.items():
            self._record(name, value)

    def truncate(self, step: int) -> None:
        """Say where a resumed run goes on; what was exported cannot be taken back."""
        self._set("videorl_step", step, "Steps that are done")

    def close(self) -> None:
        """Say that no step will follow."""
        self._is_training(False)

    def _record(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            return
        found = target(name)
        defaults = {key: self._defaults[key] for key in found.tag_keys if key in self._defaults}
        tags = {**defaults, **found.tags}
        if found.kind == "gauge":
            self._set(found.metric, value, found.help, tags)
            return
        if found.kind == "total":
            before, self._totals[name] = self._totals.get(name, 0.0), value
            value -= before
        self._add(found.metric, value, found.help, tags)

    def _is_training(self, answer: bool) -> None:
        self._set("videorl_training", float(answer), "1 while the run makes steps, 0 afterwards")

    def _stamp(self) -> None:
        text = "When the last step ended, or training began"
        self._set("videorl_last_step_timestamp_seconds", time.time(), text)

    def _set(self, name: str, value: float, text: str, tags: Mapping[str, str] = {}) -> None:
        self._metric(Gauge, name, text, tags).set(value, {**self._tags, **tags})

    def _add(self, name: str, value: float, text: str, tags: Mapping[str, str] = {}) -> None:
        # Ray refuses 0. Rounding can make a rest of seconds negative.
        if value > 0:
            self._metric(Counter, name, text, tags).inc(value, {**self._tags, **tags})

    def _metric(self, kind: Any, name: str, text: str, tags: Mapping[str, str]) -> Any:
        if name not in self._metrics:
            self._metrics[name] = kind(name, text, tag_keys=(*RUN_TAGS, *tags))
        return self._metrics[name]


def run_tags(recipe: RunRecipe, folder: RunFolder) -> dict[str, str]:
    """Return the tags that tell a run from all others of its cluster."""
    digest = hashlib.sha256(str(folder.root).encode()).hexdigest()
    return {"run": run_name(recipe), "run_id": digest[:8]}


@contextmanager
def ray_metrics(
    recipe: RunRecipe, folder: RunFolder, pools: Mapping[str, ElasticPool] | None = None
) -> Iterator[RayMetricsSink]:
    """Give a sink while a run trains; between steps, the state of its pools is exported too."""
    keys = [reward.key for reward in getattr(recipe, "rewards", [])]
    reward = keys[0] if len(keys) == 1 else ALL_REWARDS
    sink = RayMetricsSink(run_tags(recipe, folder), recipe.num_steps, reward)
    with repeating(lambda: sink.live(pool_metrics(pools or {})), _LIVE_S, "live metrics"):
        try:
            yield sink
        finally:
            sink.close()
