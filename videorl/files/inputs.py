"""Places that settings name, known by what they hold: how two times differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from videorl.files.content import Content, differences

CODE = " (code)"
"""Follows a setting that names a part of the user's own, where its module is meant."""
_SHOWN = 3
"""Differences of an input that a message lists."""


@dataclass(frozen=True)
class Input:
    """A place that a setting names, and what it holds."""

    place: str
    content: Content
    since: str
    """When this content was noted."""


def inputs_now(found: Iterable[tuple[str, str, Content | None]]) -> dict[str, Input]:
    """Return setting -> input, from settings, places and contents; those without are left out."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {key: Input(place, content, now) for key, place, content in found if content is not None}


def to_json(inputs: Mapping[str, Input]) -> dict[str, Any]:
    """Return inputs as JSON values."""
    return {key: asdict(found) for key, found in inputs.items()}


def from_json(saved: Mapping[str, Any]) -> dict[str, Input]:
    """Return what `to_json` was given.

    Raises:
        KeyError, TypeError: It is something else.
    """
    return {
        key: Input(**{**row, "content": Content(**row["content"])}) for key, row in saved.items()
    }


def moved(then: Mapping[str, Input], now: Mapping[str, Input]) -> set[str]:
    """Return the settings that name another place with the same content."""
    return {
        key
        for key in then.keys() & now.keys()
        if then[key].place != now[key].place and then[key].content.digest == now[key].content.digest
    }


def changes(then: Mapping[str, Input], now: Mapping[str, Input]) -> dict[str, str]:
    """Return setting -> what is different now, in words; without those that are not here now."""
    found: dict[str, str] = {}
    for key in sorted(then.keys() & now.keys()):
        if said := differences(then[key].content, now[key].content):
            more = f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
            found[key] = (
                f"{key}={now[key].place} holds something else than on {then[key].since}: "
                f"{', '.join(said[:_SHOWN])}{more}"
            )
    return found
