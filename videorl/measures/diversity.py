"""How different the clips of one prompt are; it falls when a policy collapses to one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from videorl.data.clips import Key
from videorl.measures.folders import Folder
from videorl.measures.store import Values


def mean_pairwise_distance(features_ND: npt.ArrayLike) -> float:
    """Return the mean cosine distance of all pairs, in [0, 2]; 0 = all point the same way.

    Raises:
        ValueError: There are fewer than two finite, non-zero features.
    """
    features = np.asarray(features_ND, np.float64)
    if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
        raise ValueError(f"expected finite features [N >= 2, D], got shape {features.shape}")
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError("a feature is zero, so that it has no direction")
    unit = features / lengths
    count = len(unit)
    # The sum over all pairs of unit vectors is that of their sum with itself.
    total = float(np.square(unit.sum(axis=0)).sum())
    return 1.0 - (total - count) / (count * (count - 1))


def by_prompt(folder: Folder, features: Mapping[Key, Values]) -> dict[Key, Values]:
    """Return the diversity of each prompt, under the key of its first clip.

    Prompts with fewer than two clips are left out.
    """
    found: dict[str, list[Key]] = {}
    for key in folder.keys:
        if key in features:
            found.setdefault(folder.unit(key), []).append(key)
    return {
        keys[0]: np.array([mean_pairwise_distance(_stacked(features, keys))])
        for keys in found.values()
        if len(keys) > 1
    }


def _stacked(features: Mapping[Key, Values], keys: Sequence[Key]) -> npt.NDArray[np.float64]:
    return np.stack([features[key] for key in keys]).astype(np.float64)
