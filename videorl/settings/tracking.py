"""Sections of a recipe that say where a run is shown: trackers, and the fixed prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from videorl.settings.bounds import Problem, at_least, auto_or, one_of

TRACKERS = ("wandb", "trackio", "mlflow")
"""Those that a recipe may name; TensorBoard is always on."""


@dataclass
class MetricsConfig:
    """Where numbers go besides `metrics.jsonl`, TensorBoard and the progress display."""

    trackers: list[str] = field(default_factory=list[str])
    """`wandb` (Weights & Biases), `trackio`, `mlflow`, or several. Each needs its extra, such as
    `pip install 'videorl[wandb]'`; docs/trackers.md says where each puts what it gets."""
    project: str = ""
    """What the trackers list the run under: a project, of MLflow an experiment. Empty = the name of
    the recipe."""
    wandb_project: str = ""
    """Older form of `trackers: [wandb]` with this `project`; still works."""
    unseen: list[str] = field(default_factory=list[str])
    """Functions of your own, `module:function`, of a `videorl.types.Video` that return name ->
    number: logged as `unseen/NAME` beside the built-in ones, never optimised."""
    drift_interval: int | str = "auto"
    """Steps from one measurement of how far the predictions are from those of the model before
    training to the next; 0 = none; auto = `evaluation.interval`. It changes no weight."""

    def chosen(self) -> list[str]:
        """Return the trackers to use, of `TRACKERS`."""
        older = ["wandb"] if self.wandb_project and "wandb" not in self.trackers else []
        return [*self.trackers, *older]

    def project_of(self, tracker: str, recipe: str) -> str:
        """Return what a tracker lists a run of a recipe, by its name, under."""
        return (tracker == "wandb" and self.wandb_project) or self.project or recipe


@dataclass
class FixedPromptsConfig:
    """The same held-out prompts and seeds, sampled again and again during training.

    Only where generators sample what is learned from. It changes no number of the run.
    """

    interval: int = 0
    """Steps from one time to the next: at 0, `interval`, 2 × `interval`, … and at the end."""
    source: str = ""
    """As `prompts.source`; empty = that of `evaluation`. `moving_shapes` gives its held-out split.
    """
    column: str = "prompt"
    """As `prompts.column`; with an empty `source` that of `evaluation` counts."""
    num_prompts: int = 4
    """One video each."""
    seed: int = 4321
    """Chooses the prompts, and the noise of each."""


def metrics_problems(metrics: MetricsConfig) -> Iterator[Problem]:
    """Yield what is wrong with a `metrics` section."""
    yield auto_or("metrics.drift_interval", metrics.drift_interval, 0)
    for index, name in enumerate(metrics.trackers):
        if name == "tensorboard":
            yield f"metrics.trackers.{index} must not be tensorboard, which is always on"
        else:
            yield one_of(f"metrics.trackers.{index}", name, TRACKERS)
    if len(set(metrics.trackers)) < len(metrics.trackers):
        yield f"metrics.trackers must name each once, got {', '.join(metrics.trackers)}"


def fixed_prompts_problems(
    fixed: FixedPromptsConfig, *, learns_online: bool, evaluated: str
) -> Iterator[Problem]:
    """Yield what is wrong with a `fixed_prompts` section.

    Args:
        fixed: The section.
        learns_online: Whether there are generators while the run learns.
        evaluated: `evaluation.source`.
    """
    yield at_least("fixed_prompts.interval", fixed.interval, 0)
    yield at_least("fixed_prompts.num_prompts", fixed.num_prompts, 1)
    yield at_least("fixed_prompts.seed", fixed.seed, 0)
    if not fixed.column:
        yield "fixed_prompts.column must name a column, got an empty text"
    if fixed.interval and not learns_online:
        yield (
            "fixed_prompts.interval must be 0 where no generators sample while the run learns "
            f"(offline.archive, or an objective that learns from prompts), got {fixed.interval}"
        )
    if fixed.interval and not (fixed.source or evaluated):
        yield "fixed_prompts.source must be set, as evaluation.source, which it stands for, is not"
