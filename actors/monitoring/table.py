"""Which Ray metric each number of `metrics.jsonl` becomes. Data, no Ray."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["gauge", "count", "total"]
"""`gauge` = a value of this step; `count` = what this step adds to a counter; `total` = what a
counter has reached since the driver started."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A family of numbers of `metrics.jsonl`, and the metric that they become."""

    names: str
    """Regular expression of whole names. Its named groups are tags, but for `what`."""
    metric: str
    """Name of the metric without Ray's own `ray_`; `{what}` is the group of that name."""
    kind: Kind
    help: str

    @property
    def tags(self) -> tuple[str, ...]:
        """Its own tags, beside those of the run."""
        return tuple(name for name in re.compile(self.names).groupindex if name != "what")


TABLE = (
    Exported(
        r"reward/(?:(?P<reward>[^/.]+)\.)?(?P<dimension>[^/]+)",
        "videorl_reward",
        "gauge",
        "Mean score of the step's candidates",
    ),
    Exported(
        r"spread/(?:(?P<reward>[^/.]+)\.)?(?P<dimension>[^/]+)",
        "videorl_reward_spread",
        "gauge",
        "Mean standard deviation of scores within a group",
    ),
    Exported(
        r"unseen/(?P<metric>.+)",
        "videorl_unseen",
        "gauge",
        "Mean of a quality metric that no reward sees",
    ),
    Exported(
        r"candidates/dropped_(?P<reason>.+)",
        "videorl_candidates_dropped",
        "count",
        "Candidates that were dropped, by reason",
    ),
    Exported(
        r"groups/dropped_(?P<reason>.+)",
        "videorl_groups_dropped",
        "count",
        "Prompts whose group never arrived, by reason",
    ),
    Exported(
        r"groups/no_pair_(?P<reason>.+)",
        "videorl_groups_without_pair",
        "count",
        "Groups that nothing was learned of, by reason",
    ),
    Exported(
        r"staleness/candidates_(?P<age>\d+)",
        "videorl_candidates_by_age",
        "count",
        "Candidates by the age of the weights that sampled them, in steps",
    ),
    Exported(r"candidates/scored", "videorl_candidates_scored", "count", "Scored candidates"),
    Exported(r"examples/skipped", "videorl_examples_skipped", "count", "Examples left out"),
    Exported(r"learn/not_finite", "videorl_examples_not_finite", "count", "Examples left out"),
    Exported(
        r"optimizer/skipped", "videorl_updates_skipped", "count", "Updates that were not made"
    ),
    Exported(
        r"weights/bytes", "videorl_published_bytes", "count", "Bytes of weights that were published"
    ),
    Exported(r"time/step_s", "videorl_step_seconds", "gauge", "Wall seconds of the step"),
    Exported(
        r"time/(?P<stage>.+)_s",
        "videorl_stage_seconds",
        "count",
        "Wall seconds of the driver by stage; together they are the wall time",
    ),
    Exported(
        r"work/(?P<stage>.+)_s",
        "videorl_work_seconds",
        "count",
        "Seconds of all workers by stage of their work",
    ),
    Exported(
        r"pool/(?P<pool>.+)_(?P<what>workers|starting|pending|busy|queued)",
        "videorl_pool_{what}",
        "gauge",
        "Workers of a pool by state, and requests that queue",
    ),
    Exported(
        r"pool/(?P<pool>.+)_(?P<what>retried|replaced|fenced|repeated_for_speed)",
        "videorl_pool_{what}",
        "total",
        "What a pool had to do again, or to replace",
    ),
)
"""The first row that matches counts."""

_OF_SINK = (
    *("step", "steps", "training", "last_step_timestamp_seconds", "seconds_since_step"),
    *("num_steps", "max_staleness"),
)
"""What the sink sets by itself, without `videorl_`."""
_TAKEN = {f"videorl_{name}" for name in _OF_SINK} | {row.metric for row in TABLE}
_OTHER = "A number of metrics.jsonl, see docs/metrics.md"


@dataclass(frozen=True, slots=True)
class Target:
    """The metric that one name becomes."""

    metric: str
    kind: Kind
    tags: dict[str, str]
    """Its own tags, those that the name tells."""
    tag_keys: tuple[str, ...]
    help: str


@cache
def target(name: str) -> Target:
    """Return the metric of a name of `metrics.jsonl`.

    What no row of the table knows, such as the numbers of an objective of one's own, is a gauge of
    its own name: `dpo/winner_error_change` is `videorl_dpo_winner_error_change`. If that is the
    name of another metric, which Ray would refuse to set like this, it begins with `videorl_own_`.
    """
    for row in TABLE:
        if match := re.fullmatch(row.names, name):
            found = {key: value for key, value in match.groupdict().items() if value is not None}
            metric = row.metric.format(what=found.pop("what", ""))
            return Target(metric, row.kind, found, row.tags, row.help)
    metric = "videorl_" + re.sub(r"\W", "_", name, flags=re.ASCII)
    if metric in _TAKEN:
        metric = metric.replace("videorl_", "videorl_own_", 1)
    return Target(metric, "gauge", {}, (), _OTHER)
