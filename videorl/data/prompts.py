"""Prompt sources, and the endless stream that a run draws its prompts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from videorl.config import PromptsConfig
from videorl.data.prompt_files import PromptRow, read_prompts
from videorl.errors import PromptError
from videorl.seeds import derive_seed
from videorl.settings.plugins import find, is_plugin
from videorl.types import Prompt
from videorl.worlds import grammar


def load_prompts(source: str, split: grammar.Split, column: str = "prompt") -> list[PromptRow]:
    """Return the prompts of a recipe's `source`.

    Args:
        source: `moving_shapes`, the path of a file, or `module:function` of the split.
        split: Side of the world's fixed split; a file has none, all of its prompts are returned.
        column: Where a table has its prompts.

    Raises:
        PromptError: The source does not exist, cannot be read, or holds nothing usable.
        ConfigError: The module or function does not exist.
    """
    if source == "moving_shapes":
        return [PromptRow(text) for text in grammar.prompts(split)]
    if is_plugin(source) and not Path(source).exists():
        return _rows_of(source, find(source, {}, "prompts.source")(split))
    return read_prompts(Path(source), column)


def open_prompts(config: PromptsConfig, seed: int) -> PromptStream:
    """Return the stream that a run learns from.

    Raises:
        PromptError: As `load_prompts`.
    """
    return PromptStream(load_prompts(config.source, "train", config.column), seed)


class PromptStream:
    """An endless, seeded, random-access sequence of prompts.

    `stream[i]` is the same on every call, machine and resume, so that a run's whole position in it
    is one integer. Each epoch has as many prompts as the source, in an order of its own: each once,
    or, with weights, by systematic sampling: of N prompts one with the share w of all weights comes
    N w times, rounded up or down, and N w times in the mean of many epochs.
    """

    def __init__(self, prompts: Sequence[PromptRow | str], seed: int) -> None:
        """Stream prompts (at least one) in an order that depends only on `seed`."""
        if not prompts:
            raise PromptError("a prompt stream needs at least one prompt, got none")
        self._rows = [PromptRow(row) if isinstance(row, str) else row for row in prompts]
        self._seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def __getitem__(self, index: int) -> Prompt:
        """Return the prompt at position `index` (>= 0)."""
        if index < 0:
            raise IndexError(f"a prompt stream has no end to count from, got index {index}")
        epoch, place = divmod(index, len(self._rows))
        if epoch != self._epoch:
            self._order = self._drawn(epoch)
            self._epoch = epoch
        row = self._rows[self._order[place]]
        return Prompt(index=index, text=row.text, id=row.id, tags=row.tags)

    def _drawn(self, epoch: int) -> list[int]:
        """Return which rows an epoch has, in order."""
        rng = np.random.default_rng(derive_seed(self._seed, "prompts", epoch))
        order = rng.permutation(len(self._rows))
        weights = np.array([row.weight for row in self._rows])
        if (weights == weights[0]).all():
            return order.tolist()
        ends = np.cumsum(weights / weights.sum())
        points = (np.arange(len(weights)) + rng.random()) / len(weights)
        rows = np.minimum(np.searchsorted(ends, points, side="right"), len(weights) - 1)
        return rows[order].tolist()


def _rows_of(source: str, found: object) -> list[PromptRow]:
    """Check what a function of the user's own returned."""
    is_list = isinstance(found, Sequence) and not isinstance(found, str)
    if not is_list or not all(isinstance(row, str | PromptRow) for row in found):
        raise PromptError(
            f"prompts.source={source} must return a list of texts or of "
            f"videorl.data.prompt_files.PromptRow, got {found!r:.100}"
        )
    rows = [PromptRow(row) if isinstance(row, str) else row for row in found]
    if not rows or not all(row.text.strip() for row in rows):
        raise PromptError(f"prompts.source={source} returned no prompts, or an empty one")
    return rows
