"""Which Ray metric each number of `metrics.jsonl` becomes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from actors.monitoring.table import TABLE, target

PAGE = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


@pytest.mark.parametrize(
    ("name", "metric", "kind", "tags"),
    [
        ("reward/total", "videorl_reward", "gauge", {"dimension": "total"}),
        ("reward/vr.motion", "videorl_reward", "gauge", {"reward": "vr", "dimension": "motion"}),
        ("spread/motion", "videorl_reward_spread", "gauge", {"dimension": "motion"}),
        ("unseen/sharpness", "videorl_unseen", "gauge", {"metric": "sharpness"}),
        ("pool/video_reward_busy", "videorl_pool_busy", "gauge", {"pool": "video_reward"}),
        ("pool/generator_fenced", "videorl_pool_fenced", "total", {"pool": "generator"}),
        (
            "pool/generator_repeated_for_speed",
            "videorl_pool_repeated_for_speed",
            "total",
            {"pool": "generator"},
        ),
        ("time/step_s", "videorl_step_seconds", "gauge", {}),
        ("time/publish_s", "videorl_stage_seconds", "count", {"stage": "publish"}),
        ("work/encode_mp4_s", "videorl_work_seconds", "count", {"stage": "encode_mp4"}),
        ("staleness/candidates_2", "videorl_candidates_by_age", "count", {"age": "2"}),
        ("staleness/steps", "videorl_staleness_steps", "gauge", {}),
        ("groups/no_pair_x", "videorl_groups_without_pair", "count", {"reason": "x"}),
        ("dpo/winner_error_change", "videorl_dpo_winner_error_change", "gauge", {}),
        ("my own/number-1", "videorl_my_own_number_1", "gauge", {}),
        ("steps", "videorl_own_steps", "gauge", {}),
        ("reward", "videorl_own_reward", "gauge", {}),
    ],
)
def test_a_name_becomes(name: str, metric: str, kind: str, tags: dict[str, str]) -> None:
    found = target(name)
    assert (found.metric, found.kind, found.tags) == (metric, kind, tags)
    assert tags.keys() <= set(found.tag_keys)
    assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", found.metric), "Ray discards other names"


def test_the_page_has_every_row_of_the_table() -> None:
    page = PAGE.read_text()
    for row in TABLE:
        assert f"`{row.metric.replace('{what}', 'workers')}`" in page, row.metric
        for tag in row.tags:
            assert f"`{tag}`" in page, tag
