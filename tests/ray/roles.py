"""What tests of the roles on Ray share."""

from __future__ import annotations

from pathlib import Path

from actors.pool.state import Limits

LIMITS = Limits(
    min_workers=1, max_workers=2, max_retries=1, request_timeout_s=60.0, idle_release_s=60.0
)
OPTIONS = {"num_cpus": 1.0}


def first_time(marker: Path) -> bool:
    """Return whether this is the first call with `marker`, in any process."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
