"""Who judges: by name, or by a token that was given out for a name."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from videorl.errors import ConfigError, RunFolderError
from videorl.files import as_json, write_durably
from videorl.judging.holding import held

FILE = "annotators.json"
_LONGEST = 60


def checked_name(text: str) -> str:
    """Return a name without spaces around it.

    Raises:
        ConfigError: It is empty, too long, or not printable.
    """
    name = text.strip()
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise ConfigError(f"a name needs 1 to {_LONGEST} printable characters, got {text!r:.70}")

    return name


def add_annotators(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return token by name of a study, with a new token for each name that had none.

    Raises:
        ConfigError: A name cannot be used.
        RunFolderError: The file of tokens is damaged, or new names come while another process has
            the study open, which would not know them.
    """
    wanted = list(map(checked_name, names))
    tokens = read_tokens(folder)
    if all(name in tokens for name in wanted):
        return tokens
    with held(folder):
        tokens = {name: secrets.token_urlsafe(16) for name in wanted} | read_tokens(folder)
        write_durably(folder / FILE, as_json(tokens), mode=0o600)
    return tokens


def read_tokens(folder: Path) -> dict[str, str]:
    """Return token by name; empty = whoever opens the page gives a name.

    Raises:
        RunFolderError: The file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("expected an object of names and tokens")
        return {str(name): str(token) for name, token in content.items()}
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged ({error!s:.80}); restore or delete it") from error


def who(tokens: Mapping[str, str], token: str) -> str | None:
    """Return whose token it is; None if nobody's."""
    found = [
        name
        for name, known in tokens.items()
        if hmac.compare_digest(known.encode(), token.encode("utf-8", "replace"))
    ]
    return found[0] if found else None
