"""Names by which Ray's dashboard, state API and log lines show the actors of a run."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import ray

from videorl import __version__
from videorl.recipes.fingerprint import RunRecipe
from videorl.run.run_id import read_run_id

Kind = TypeVar("Kind", bound=type)

_lock = threading.Lock()
_given: Counter[str] = Counter()
"""How often this driver has given a name."""


def run_name(recipe: RunRecipe) -> str:
    """Return the name that people know a run by: that of its folder."""
    return Path(recipe.run_dir).absolute().name


def job_metadata(root: Path) -> dict[str, str]:
    """Return what Ray's list of jobs shows of the driver of a run: its folder, name, id, version.

    Args:
        root: The run folder.
    """
    facts = {"job_name": root.name, "run": str(root.absolute()), "run_id": read_run_id(root)}
    return {**facts, "videorl": __version__}


def named(options: Mapping[str, Any], run: str, role: str) -> dict[str, Any]:
    """Return the options of an actor that is shown as `run/role`, such as `first/generator-3`.

    The namespace is the driver's own, so that runs of one name on one cluster do not clash. A name
    that this driver has given before, perhaps to an actor that Ray is still ending, gets a number.
    Unlike one without a name, such an actor is registered with Ray's head before its creation
    returns, which takes a round trip.

    Args:
        options: Its other options.
        run: The run's name; empty = the actor gets no name.
        role: What it is in the run.
    """
    if not run:
        return dict(options)
    name = f"{run}/{role}"
    with _lock:
        _given[name] += 1
        again = f" ({_given[name]})" if _given[name] > 1 else ""
    namespace = f"videorl-{ray.get_runtime_context().get_job_id()}"
    return {**options, "name": name + again, "namespace": namespace}


def shown_by_name(kind: Kind) -> Kind:
    """Decorate the class of an actor: its log lines begin with its name, if it has one."""

    def name_or_kind(actor: object) -> str:
        return ray.get_runtime_context().get_actor_name() or type(actor).__name__

    setattr(kind, "__repr__", name_or_kind)  # noqa: B010 - pyright sees a method of `type`
    return kind
