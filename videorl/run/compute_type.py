"""What `policy.dtype: auto` stands for in a run: decided once, for the devices that compute.

Learner and generators prove to each other by digest that they hold the same weights, which they
only can in the same type, wherever each of them runs. So it is decided before anything is loaded,
noted in the run folder's `compute.json`, and handed to all workers in their recipe. Recipes on disk
still say `auto`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from videorl.config import Recipe
from videorl.errors import RunFolderError
from videorl.files import write_json
from videorl.policies.devices import Devices, compute_type

logger = logging.getLogger(__name__)

FILE = "compute.json"
_KEY = "policy.dtype"
_TYPES = ("float32", "bfloat16", "float16")


def with_compute_type(
    recipe: Recipe, root: Path, find_devices: Callable[[], Devices], *, note: bool = True
) -> Recipe:
    """Return the recipe with the compute type of its run in place of `auto`.

    Args:
        recipe: The run; if it states a type, it is returned as it is.
        root: Its folder.
        find_devices: Asked where neither the folder's note nor its checkpoints say the type.
        note: Whether to write down in the folder, whose lock must be held, what was found then.

    Raises:
        RunFolderError: The folder's note is damaged.
    """
    if recipe.policy.dtype != "auto":
        return recipe
    if (noted := noted_type(root)) is not None:
        logger.info("policy.dtype=auto is %s, as %s says", noted, root / FILE)
        return _with(recipe, noted)
    if (dtype := _published_type(root)) is not None:
        logger.info("policy.dtype=auto is %s: the type of the checkpoints in %s", dtype, root)
    else:
        dtype = _type_on(find_devices())
    if note:
        write_json(root / FILE, {_KEY: dtype})
    return _with(recipe, dtype)


def as_in_run_of(recipe: Recipe, places: Iterable[object]) -> Recipe:
    """Return the recipe with the type that a run has noted for `auto`, if it is of a run.

    Args:
        recipe: To be sampled with, for instance.
        places: Paths that it was made from, such as `runs/NAME/config.yaml` and
            `runs/NAME/aligned`; the first that lies in a run folder with a note counts.

    Raises:
        RunFolderError: A note is damaged.
    """
    if recipe.policy.dtype != "auto":
        return recipe
    files = [Path(place) for place in places if isinstance(place, str | Path)]
    noted = (noted_type(file.parent) for file in files if file.exists())
    dtype = next((dtype for dtype in noted if dtype), None)
    return _with(recipe, dtype) if dtype else recipe


def noted_type(root: Path) -> str | None:
    """Return the compute type that a run folder has noted; None = none yet.

    Raises:
        RunFolderError: The note is damaged.
    """
    path = root / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[_KEY]
        if found not in _TYPES:
            raise ValueError(f"{_KEY} must be one of {', '.join(_TYPES)}, got {found!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error}); remove it to let {_KEY}=auto be decided anew"
        ) from error
    return found


def _type_on(devices: Devices) -> str:
    dtype = compute_type(devices)
    if devices.on_gpu and not devices.has_bfloat16:
        logger.warning("policy.dtype=auto is %s: the GPUs here lack bfloat16", dtype)
    else:
        where = "GPUs" if devices.on_gpu else "CPUs"
        logger.info("policy.dtype=auto is %s: the policy computes on %s", dtype, where)
    return dtype


def _published_type(root: Path) -> str | None:
    """Return the type of the weights that a run published before types were noted."""
    files = sorted(root.glob("checkpoints/step-*[0-9]/published-*.safetensors"))
    if not files:
        return None
    from safetensors import safe_open

    with safe_open(files[-1], "np") as tensors:
        types = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    # Layers that a half-precision model keeps in float32 are in it too.
    return "bfloat16" if "BF16" in types else "float32"


def _with(recipe: Recipe, dtype: str) -> Recipe:
    return replace(recipe, policy=replace(recipe.policy, dtype=dtype))
