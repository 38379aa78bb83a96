"""What a check of `videorl doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `fix` says what to do unless all is well."""

    name: str
    status: Literal["ok", "warning", "broken"]
    found: str
    fix: str = ""
