"""The section of a recipe about reward hacking: when a run is warned of, stopped or set back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from videorl.settings.bounds import Problem, above, at_least, one_of

ACTIONS = ("off", "warn", "stop", "rollback")


@dataclass
class GuardConfig:
    """Rules on held-out prompts, looked at after every evaluation (`evaluation.interval`).

    They compare with the base on the same prompts and seeds. It changes no number of the run until
    a rule is broken.
    """

    action: str = "stop"
    """`off`, `warn`, `stop`, or `rollback`: go back to the best checkpoint, with a smaller rate."""
    patience: int = 2
    """Evaluations in a row in which the same rule must be broken."""
    max_motion_loss: float = 0.10
    """Share of the base's dynamic degree that may be lost."""
    band: list[float] = field(default_factory=lambda: [0.5, 3.0])
    """Where every unseen metric must stay, as parts of what the base has."""
    bands: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """The same for single metrics, by name."""
    max_diversity_loss: float = 0.5
    """Share of the base's diversity within a prompt that may be lost."""
    max_winner_error: float = 0.25
    """Relative rise of the error on chosen videos, against the reference, while the margin grows:
    the mean over the steps since the evaluation before."""
    rate_factor: float = 0.5
    """What the learning rate is multiplied by at each rollback."""
    max_rollbacks: int = 2
    """After so many the next one stops the run."""

    @property
    def ends_runs(self) -> bool:
        """Whether a run whose rules are broken does not go on as it is."""
        return self.action in ("stop", "rollback")

    def band_of(self, metric: str) -> tuple[float, float]:
        """Return the band of an unseen metric."""
        low, high = self.bands.get(metric, self.band)
        return low, high


def guard_problems(guard: GuardConfig) -> Iterator[Problem]:
    """Yield what is wrong with a `guard` section."""
    yield one_of("guard.action", guard.action, ACTIONS)
    yield at_least("guard.patience", guard.patience, 1)
    for name in ("max_motion_loss", "max_diversity_loss", "max_winner_error"):
        yield above(f"guard.{name}", getattr(guard, name), 0)
    bands = {"band": guard.band, **{f"bands.{name}": band for name, band in guard.bands.items()}}
    for name, band in bands.items():
        if len(band) != 2 or not 0 <= band[0] < 1 < band[1]:
            yield f"guard.{name} must be two numbers, below and above 1, got {band}"
    yield above("guard.rate_factor", guard.rate_factor, 0)
    if guard.rate_factor >= 1:
        yield f"guard.rate_factor must be < 1, got {guard.rate_factor}"
    yield at_least("guard.max_rollbacks", guard.max_rollbacks, 0)
