"""Online preference alignment of text-to-video diffusion models.

This package holds the whole algorithm and imports no Ray: `actors/` runs the same objects on a
cluster, `jobs/` starts them. `train`, `score` and `sample` are its Python API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videorl.api import sample, score, train

__all__ = ["__version__", "sample", "score", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the API when it is used: reading a recipe needs none of it."""
    if name not in ("sample", "score", "train"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from videorl import api

    return getattr(api, name)
