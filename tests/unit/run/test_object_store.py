"""The object store of a single machine holds the videos that are alive at once."""

from __future__ import annotations

import pytest

from videorl.recipes.reading import load_recipe
from videorl.run.object_store import SMALLEST_BYTES, object_store_bytes


def test_small_runs_keep_the_smallest_store() -> None:
    assert object_store_bytes(load_recipe("moving_shapes"), 1e12) == SMALLEST_BYTES
    assert object_store_bytes(load_recipe("moving_shapes"), 0) == SMALLEST_BYTES


def test_a_real_size_gets_room_for_the_rounds_in_flight(caplog: pytest.LogCaptureFixture) -> None:
    settings = ["sampling.num_frames=81", "sampling.height=480", "sampling.width=832"]
    counts = ["prompts.per_round=8", "prompts.candidates_per_prompt=4", "rollouts.max_staleness=1"]
    recipe = load_recipe("moving_shapes", [*settings, *counts])
    wanted = 3 * 32 * (81 * 480 * 832) * 4 * 1.25
    assert object_store_bytes(recipe, 1e12) == wanted
    assert not caplog.text
    assert object_store_bytes(recipe, 20e9) == 10e9
    assert "take 15.5 GB, but the object store gets 10.0 GB" in caplog.text
