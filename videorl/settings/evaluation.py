"""The section of a recipe about held-out prompts: before, during and after training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from videorl.settings.bounds import Problem, at_least
from videorl.settings.plugins import is_plugin, problem_of_function


@dataclass
class EvaluationConfig:
    """Fixed held-out prompts and seeds, sampled before and after training, and in between."""

    source: str = ""
    """As `prompts.source`; empty = no evaluation. `moving_shapes` gives its held-out split;
    `split 64` takes so many prompts away from `prompts.source`, chosen by a hash of their text."""
    column: str = "prompt"
    """As `prompts.column`. Weights do not matter here, but for 0, which leaves a prompt out."""
    num_prompts: int = 64
    best_of: int = 8
    """Samples per prompt of the base policy, for its best-of-K curve."""
    samples: int = 4
    """Samples per prompt of the aligned policy, compared with the base's first as many."""
    interval: int = 0
    """Steps from one evaluation to the next while the run learns; 0 = only before and after. Each
    goes behind what training waits for, and has a checkpoint of its weights."""
    during_prompts: int = 16
    """Prompts of these evaluations: some of the `num_prompts`, always the same."""
    during_samples: int = 2
    """Samples per prompt of these evaluations; from 2 on the diversity within a prompt is seen."""
    base_cache: str = ""
    """A folder, of many runs together, with what their bases were found to be: a run with the same
    model, sampling, rewards, prompts and seeds takes it from there. Empty = each evaluates its
    own."""
    num_videos: int = 8
    """Before/after pairs shown in the report."""
    seed: int = 1234

    @property
    def interval_in_use(self) -> int:
        """`interval`; 0 where there is no evaluation at all."""
        return self.interval if self.source else 0


def split_size(source: str) -> int | None:
    """Return N of a source `split N`; None of any other source."""
    found = re.fullmatch(r"split\s+(\d+)", source.strip())
    return int(found[1]) if found else None


def evaluation_problems(evaluation: EvaluationConfig, *, is_offline: bool) -> Iterator[Problem]:
    """Yield what is wrong with an `evaluation` section.

    Args:
        evaluation: The section.
        is_offline: Whether the run learns from `offline.archive`, which has its own prompts.
    """
    yield from source_problems("evaluation", evaluation.source, evaluation.column)
    if (size := split_size(evaluation.source)) is not None:
        yield at_least("evaluation.source=split N: N", size, 1)
        if is_offline:
            yield (
                "evaluation.source must name prompts where the run learns from offline.archive, "
                f"whose prompts stay as they are, got {evaluation.source!r}"
            )
        if evaluation.column != EvaluationConfig.column:
            yield (
                "evaluation.column must not be set with evaluation.source=split N, whose prompts "
                "are those of prompts.column"
            )
    counts = ("num_prompts", "best_of", "samples", "during_prompts", "during_samples")
    for name in counts:
        yield at_least(f"evaluation.{name}", getattr(evaluation, name), 1)
    if evaluation.samples > evaluation.best_of:
        yield (
            f"evaluation.samples must be <= evaluation.best_of ({evaluation.best_of}), as each is "
            f"compared with a base sample of the same seed, got {evaluation.samples}"
        )
    yield at_least("evaluation.interval", evaluation.interval, 0)
    yield at_least("evaluation.num_videos", evaluation.num_videos, 0)
    yield at_least("evaluation.seed", evaluation.seed, 0)


def source_problems(key: str, source: str, column: str) -> Iterator[Problem]:
    """Yield what is wrong with a source of prompts, of the section `key`."""
    if is_plugin(source) and not Path(source).exists():
        yield problem_of_function(f"{key}.source", source, "the split")
    if not column:
        yield f"{key}.column must name a column, got an empty text"
