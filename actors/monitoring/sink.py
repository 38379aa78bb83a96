"""The metrics of a run as Ray metrics, from which Prometheus has them."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from ray.util.metrics import Counter, Gauge

from actors.monitoring.table import Target, target
from actors.naming import run_name
from actors.pool.metrics import pool_metrics
from actors.pool.pool import ElasticPool
from videorl.config import Recipe
from videorl.recipes.fingerprint import RunRecipe
from videorl.run.background import repeating
from videorl.run.folder import RunFolder

logger = logging.getLogger(__name__)

_LIVE_S = 2.0
"""Seconds between two looks at the pools while a step lasts, and two settings of every gauge: Ray
forgets one that is not set again within two of its intervals, which are 10 s by default."""
_STEPS = "Steps that this driver has done"
_SINCE = "Seconds since the last step ended, or training began"

Tags: TypeAlias = tuple[tuple[str, str], ...]
"""Keys and values, in a fixed order."""

ALL_REWARDS = "all"
"""The tag `reward` of what is summed over several models."""
BETWEEN = "between_steps"
"""The stage of the driver's time that no step has: checkpoints, above all."""


class RayMetricsSink:
    """A `videorl.run.sinks.RunSink` that sets a Ray metric for every number it is given.

    Beside these there are, set by the sink itself: `videorl_steps` done by this driver,
    `videorl_step`, the facts, `videorl_last_step_timestamp_seconds` and
    `videorl_seconds_since_step` (at first since the sink was made), and `videorl_training`, 1 until
    the sink is closed. Gauges last only while `live` is called.

    Args:
        tags: Of every metric, see `run_tags`.
        facts: Of the recipe, by name: `num_steps`, and `max_staleness` of runs that have it.
        reward: The tag `reward` of dimensions that do not name their model.
    """

    def __init__(
        self, tags: Mapping[str, str], facts: Mapping[str, float], reward: str = ALL_REWARDS
    ) -> None:
        self._tags = dict(tags)
        self._defaults = {"reward": reward}
        self._metrics: dict[str, Any] = {}
        self._gauges: dict[tuple[str, Tags], float] = {}
        self._of_steps: set[str] = set()
        self._refused: set[str] = set()
        self._totals: dict[str, float] = {}
        self._lock = threading.Lock()
        self._last = time.perf_counter()
        # Before any number of a step can take its name.
        self._metric(Counter, "videorl_steps", _STEPS, tuple(self._tags.items()))
        for name, value in facts.items():
            self._set(f"videorl_{name}", value, "A setting of the recipe")
        self._is_training(True)
        self._stamp()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Set every metric of one step."""
        now = time.perf_counter()
        between = now - self._last - metrics.get("time/step_s", 0.0)
        self._last = now
        with self._lock:
            for name in self._of_steps - metrics.keys():
                self._forget(name)
            self._of_steps = set(metrics)
            for name, value in {**metrics, f"time/{BETWEEN}_s": between}.items():
                self._record(name, value)
            self._set("videorl_step", step + 1, "Steps that are done")
            self._add("videorl_steps", 1.0, _STEPS)
            self._stamp()

    def live(self, metrics: Mapping[str, float]) -> None:
        """Set metrics of this moment, and every gauge again."""
        with self._lock:
            for name, value in metrics.items():
                self._record(name, value)
            self._set("videorl_seconds_since_step", time.time() - self._stamped, _SINCE)
            for (name, tags), value in self._gauges.items():
                self._metrics[name].set(value, dict(tags))

    def truncate(self, step: int) -> None:
        """Say where a resumed run goes on; what was exported cannot be taken back."""
        with self._lock:
            self._set("videorl_step", step, "Steps that are done")

    def close(self) -> None:
        """Say that no step will follow."""
        with self._lock:
            self._is_training(False)

    def _forget(self, name: str) -> None:
        """No longer set the gauge of a number that a step does not have any more."""
        found = target(name)
        self._gauges.pop((found.metric, self._all_tags(found)), None)

    def _record(self, name: str, value: float) -> None:
        """Set a metric; one that Ray refuses is left out, as no run must end for its monitoring.

        So it is with a number of one's own that is named as a pool's metric, such as `pool_busy`.
        """
        try:
            self._try_record(name, value)
        except (AttributeError, TypeError, ValueError) as error:
            if name not in self._refused:
                self._refused.add(name)
                logger.warning("%s is not exported to Ray's metrics: %s", name, error)

    def _try_record(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            return
        found = target(name)
        if found.kind == "gauge":
            self._set(found.metric, value, found.help, self._all_tags(found))
            return
        if found.kind == "total":
            before, self._totals[name] = self._totals.get(name, 0.0), value
            value -= before
        self._add(found.metric, value, found.help, self._all_tags(found))

    def _all_tags(self, found: Target) -> Tags:
        """Return the tags of a number in a fixed order, with what its name leaves open."""
        defaults = {key: self._defaults[key] for key in found.tag_keys if key in self._defaults}
        return tuple({**self._tags, **defaults, **found.tags}.items())

    def _is_training(self, answer: bool) -> None:
        self._set("videorl_training", float(answer), "1 while the run makes steps, 0 afterwards")

    def _stamp(self) -> None:
        self._stamped = time.time()
        text = "When the last step ended, or training began, in seconds since 1970"
        self._set("videorl_last_step_timestamp_seconds", self._stamped, text)
        self._set("videorl_seconds_since_step", 0.0, _SINCE)

    def _set(self, name: str, value: float, text: str, tags: Tags = ()) -> None:
        tags = tags or tuple(self._tags.items())
        self._metric(Gauge, name, text, tags).set(value, dict(tags))
        self._gauges[name, tags] = value

    def _add(self, name: str, value: float, text: str, tags: Tags = ()) -> None:
        tags = tags or tuple(self._tags.items())
        # Ray refuses 0. Rounding can make a rest of seconds negative.
        if value > 0:
            self._metric(Counter, name, text, tags).inc(value, dict(tags))

    def _metric(self, kind: Any, name: str, text: str, tags: Tags) -> Any:
        if name not in self._metrics:
            self._metrics[name] = kind(name, text, tag_keys=tuple(key for key, _ in tags))
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
    keys = [reward.key for reward in recipe.rewards] if isinstance(recipe, Recipe) else []
    reward = keys[0] if len(keys) == 1 else ALL_REWARDS
    facts = {"num_steps": float(recipe.num_steps)}
    if isinstance(recipe, Recipe) and recipe.learns_online:
        facts["max_staleness"] = float(recipe.rollouts.max_staleness)
    sink = RayMetricsSink(run_tags(recipe, folder), facts, reward)

    def look() -> None:
        disk = shutil.disk_usage(folder.root)
        space = {"disk/free_bytes": float(disk.free), "disk/free_share": disk.free / disk.total}
        sink.live({**pool_metrics(pools or {}), **space})

    with repeating(look, _LIVE_S, "live metrics"):
        try:
            yield sink
        finally:
            sink.close()
