"""The agreement of a latent reward with labels, by dimension and level of noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videorl.files import write_json, write_text
from videorl.report.plots import Line, line_plot
from videorl.reward_training.losses import PREFERS_A, PREFERS_B


@dataclass(frozen=True, slots=True)
class AccuracyByTime:
    """Shares of pairs with a preference whose margin has the right sign; 0.5 is chance."""

    times: tuple[float, ...]
    accuracy: dict[str, tuple[float | None, ...]]
    """Dimension -> share for each time; None if there is no pair."""
    num_pairs: dict[str, int]
    """Dimension -> number of pairs with a preference and a prediction."""

    @classmethod
    def of(
        cls,
        margins_NTK: npt.NDArray[np.float32],
        labels_NK: npt.NDArray[np.int64],
        times: Sequence[float],
        dimensions: Sequence[str],
    ) -> AccuracyByTime:
        """Compare margins with labels.

        Args:
            margins_NTK: Reward of A - reward of B; NaN where a pair could not be read.
            labels_NK: Labels as in `reward_training.losses`; only preferences count.
            times: The T times of the margins.
            dimensions: Names of the K dimensions.
        """
        accuracy: dict[str, tuple[float | None, ...]] = {}
        num_pairs: dict[str, int] = {}
        is_read_N = np.isfinite(margins_NTK).all(axis=(1, 2))
        for k, name in enumerate(dimensions):
            counts_N = is_read_N & np.isin(labels_NK[:, k], (PREFERS_A, PREFERS_B))
            is_right_MT = labels_NK[counts_N, k, None] * margins_NTK[counts_N, :, k] > 0
            num_pairs[name] = int(counts_N.sum())
            shares = is_right_MT.mean(axis=0).tolist() if num_pairs[name] else [None] * len(times)
            accuracy[name] = tuple(shares)
        return cls(tuple(times), accuracy, num_pairs)

    def metrics(self) -> dict[str, float]:
        """Return every share, and the mean over times of each dimension, under logged names."""
        found: dict[str, float] = {}
        for name, shares in self.accuracy.items():
            pairs = zip(self.times, shares, strict=True)
            known = {t: share for t, share in pairs if share is not None}
            found |= {f"held_out/accuracy_{name}_t{t:g}": share for t, share in known.items()}
            if known:
                found[f"held_out/accuracy_{name}"] = sum(known.values()) / len(known)
        return found


def accuracy_plot(found: AccuracyByTime) -> str:
    """Return an SVG of the shares over time, with noise on the right."""
    lines = [
        Line(name.replace("_", " "), tuple(zip(found.times, shares, strict=True)))
        for name, shares in found.accuracy.items()
    ]
    return line_plot(
        "Held-out pairs that a latent reward ranks as labelled",
        lines,
        x_name="time t of the noised latents (1 = pure noise)",
        y_name="accuracy",
        y_range=(0.4, 1.0),
    )


def write_accuracy(folder: Path, found: AccuracyByTime, step: int) -> None:
    """Write `held_out.json` and `held_out.svg`."""
    write_json(folder / "held_out.json", {"step": step, **asdict(found)})
    write_text(folder / "held_out.svg", accuracy_plot(found))
