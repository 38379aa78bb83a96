"""How much clients may ask for and send."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from videorl.errors import ConfigError
from videorl.settings.bounds import above

MIB = 2**20
MAX_PROMPT = 10_000
"""Characters of a prompt. No text encoder of ours reads as many."""
MAX_UPLOADS = 8
"""Videos of a request for scores: what a reward model gets at once."""
MAX_BODY = MIB
"""Bytes of a request without an upload."""


@dataclass(frozen=True)
class ServingLimits:
    """All are above 0."""

    max_queued: int = 64
    """Requests that wait for a replica, of videos and of every reward model each; more get 429."""
    max_upload_mib: float = 64
    """Size of the uploaded videos of a request."""
    upload_s: float = 60
    """Seconds in which the body of a request must have come."""
    decode_s: float = 30
    """Seconds in which an uploaded video must be decoded."""
    decoded_mib: float = 1024
    """Size of an uploaded video once it is decoded."""
    work_s: float = 3600
    """Seconds that a replica may take for a batch; beyond it, the replica is replaced."""
    max_pixels: int = 2**29
    """Frames × height × width of a sampled video."""
    max_steps: int = 200
    """Steps of a sampled video."""
    keep_s: float = 24 * 3600
    """Seconds for which results stay on disk."""
    keep_mib: float = 10 * 1024
    """Size of all results; beyond it the oldest are deleted."""

    @property
    def upload_bytes(self) -> int:
        """The largest body: an upload, and the fields beside it."""
        return int(self.max_upload_mib * MIB) + MAX_BODY


def check_limits(limits: ServingLimits) -> None:
    """Check every limit.

    Raises:
        ConfigError: Lists those that are not above 0.
    """
    if problems := [*_problems(limits)]:
        raise ConfigError("\n".join(problems))


def _problems(limits: ServingLimits) -> Iterator[str]:
    for field in fields(limits):
        option = f"--{field.name.replace('_', '-')}"
        if problem := above(option, getattr(limits, field.name), 0):
            yield problem
