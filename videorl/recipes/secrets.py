"""What a recipe may hold that must reach a worker, but no file, log or dashboard.

Ray writes the variables of a runtime environment into its logs. So they go to the worker with its
other settings, which Ray does not print, and are set by the worker itself before it loads a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_NEEDED_AT_START = re.compile(
    r"PATH|LD_\w+|PYTHON\w+|(OMP|MKL|CUDA|NCCL|GLOO|TORCH|PYTORCH)_\w+", re.ASCII
)
"""Variables that a process reads before any code of ours runs in it; all others are private."""

_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def private_variables(runtime_env: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that a worker sets itself; empty ones are left as its node has them."""
    return {
        name: value
        for name, value in runtime_env.get("env_vars", {}).items()
        if value and not _NEEDED_AT_START.fullmatch(name)
    }


def public_runtime_env(runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may be told to Ray."""
    variables = {
        name: value
        for name, value in runtime_env.get("env_vars", {}).items()
        if _NEEDED_AT_START.fullmatch(name)
    }
    told = {name: value for name, value in runtime_env.items() if name != "env_vars"}
    return told | ({"env_vars": variables} if variables else {})


def redacted(settings: Any) -> Any:
    """Return plain settings with private variables quoted from the reader's own environment.

    So they load again (OmegaConf's `oc.env`), with the value that is set where they are loaded.
    """
    if isinstance(settings, list):
        return [redacted(item) for item in settings]
    if not isinstance(settings, dict):
        return settings
    hidden = {
        name: f'${{oc.env:{name},""}}'
        for name in (private_variables(settings) if "env_vars" in settings else ())
    }
    kept = {name: redacted(value) for name, value in settings.items()}
    return kept | {"env_vars": kept["env_vars"] | hidden} if hidden else kept


def places_of_passwords(settings: Any, key: str = "") -> Iterator[str]:
    """Yield the keys of plain settings that hold a URL with a password."""
    if isinstance(settings, str) and _PASSWORD_IN_URL.search(settings):
        yield key
    items = settings.items() if isinstance(settings, dict) else ()
    for name, value in enumerate(settings) if isinstance(settings, list) else items:
        yield from places_of_passwords(value, f"{key}.{name}" if key else str(name))


def without_value(override: str) -> str:
    """Return `key=value` as errors may show it."""
    key = override.partition("=")[0]
    return f"{key}=…" if "env" in key else override
