"""Runs of a tiny model whose guard has a limit between what steps 2 and 4 are found to be.

The limit comes from the evaluations of an unguarded run, so that step 4 breaks a rule.
"""

from __future__ import annotations

from collections.abc import Sequence

from videorl.evaluation.readings import Reading, change

UNSEEN = ("sharpness", "edge_density", "colour_entropy", "dark_pixel_share", "dynamic_degree")
NO_OTHER_RULE: dict[str, object] = {
    "guard.patience": 1,
    "guard.band": "[0.0, 1e9]",
    "guard.max_motion_loss": 1e9,
    "guard.max_winner_error": 1e9,
}


def limit(readings: Sequence[Reading]) -> str:
    """Return `guard.bands` that hold at step 2 and not at step 4."""
    base, early, late = readings
    for name in UNSEEN:
        moved = change(base, late, f"unseen/{name}")
        size = base.mean(f"unseen/{name}")
        if moved is None or not size or moved.low <= 0 <= moved.high:
            continue
        parts = [reading.mean(f"unseen/{name}") / size for reading in (early, late)]
        between = sum(parts) / 2
        if parts[1] < between < 1:
            return f"{{{name}: [{between}, 1e9]}}"
        if parts[1] > between > 1:
            return f"{{{name}: [0.0, {between}]}}"
    raise AssertionError("no unseen metric goes away from the base")
