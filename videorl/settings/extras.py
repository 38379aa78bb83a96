"""Packages that only some commands need, and that come with an extra of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from videorl.errors import ConfigError


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Import inside the block what an extra installs.

    Args:
        what: Who needs it, such as `videorl watch`.
        extra: The extra's name.

    Raises:
        ConfigError: A package is not installed; the message has the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{what} needs {error.name}, which is not installed: pip install 'videorl[{extra}]'"
        ) from error
