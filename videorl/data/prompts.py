"""Prompt sources, and the endless stream that a run draws its prompts from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from videorl.config import Recipe
from videorl.data.preference_videos import has_videos, read_video_pairs
from videorl.data.preferences import read_preferences
from videorl.data.prompt_files import DEFAULT_COLUMN, read_prompts
from videorl.data.prompt_rows import PromptRow, usable_rows
from videorl.data.split import identity, split
from videorl.data.table_rows import BadRow
from videorl.errors import ConfigError, PromptError
from videorl.policies import takes_images
from videorl.seeds import derive_seed
from videorl.settings.evaluation import split_size
from videorl.settings.plugins import find, is_plugin
from videorl.types import Prompt
from videorl.worlds import grammar

_logger = logging.getLogger(__name__)


def load_prompts(
    source: str, split: grammar.Split, column: str = DEFAULT_COLUMN
) -> list[PromptRow]:
    """Return the prompts of a recipe's `source`.

    Args:
        source: `moving_shapes`, the path of a file, or `module:function` of the split.
        split: Side of the world's fixed split; a file has none, all of its prompts are returned.
        column: Where a table has its prompts.

    Raises:
        PromptError: The source does not exist, cannot be read, or holds nothing usable; or a column
            is asked for where there are none.
        ConfigError: The module or function does not exist.
    """
    is_own = is_plugin(source) and not Path(source).exists()
    if not is_own and source != "moving_shapes":
        return read_prompts(Path(source), column)
    if column != DEFAULT_COLUMN:
        raise PromptError(f"{source} has no columns, but column {column!r} is asked for: omit it")
    if is_own:
        return _rows_of_function(source, split)
    return [PromptRow(text) for text in grammar.prompts(split)]


def training_prompts(recipe: Recipe) -> list[PromptRow]:
    """Return what a run trains on: `prompts.source`, without what is held out from it.

    Raises:
        PromptError, ConfigError: As `load_prompts`; or nothing is left.
    """
    rows = load_prompts(recipe.prompts.source, "train", recipe.prompts.column)
    size = split_size(recipe.evaluation.source)
    return rows if size is None else split(rows, size)[0]


def evaluation_prompts(recipe: Recipe) -> list[PromptRow]:
    """Return the prompts of `evaluation.source`, all of them.

    Raises:
        PromptError, ConfigError: As `load_prompts`.
    """
    evaluation = recipe.evaluation
    if (size := split_size(evaluation.source)) is None:
        return load_prompts(evaluation.source, "held_out", evaluation.column)
    return split(load_prompts(recipe.prompts.source, "train", recipe.prompts.column), size)[1]


def fixed_prompt_rows(recipe: Recipe) -> list[PromptRow]:
    """Return the prompts of `fixed_prompts.source`, or, where it is empty, of the evaluation.

    Raises:
        PromptError, ConfigError: As `load_prompts`.
    """
    fixed = recipe.fixed_prompts
    if not fixed.source:
        return evaluation_prompts(recipe)
    return load_prompts(fixed.source, "held_out", fixed.column)


def open_prompts(recipe: Recipe) -> PromptStream:
    """Return the stream that a run learns from.

    Raises:
        PromptError: As `load_prompts`.
        ConfigError: As `load_prompts`.
    """
    return PromptStream(training_prompts(recipe), recipe.seed)


def check_sources(recipe: Recipe) -> None:
    """Read the prompts of a run before it starts a cluster or loads a model.

    Held-out prompts would otherwise be read for the first time when training is over.

    Raises:
        PromptError: As `load_prompts`.
        ConfigError: As `load_prompts`; or held-out prompts are trained on. A run that began so,
            before this was checked, is only warned.
        ArchiveError: The archive that the run learns from cannot be read.
    """
    if recipe.offline.archive:
        trained = _of_archive(Path(recipe.offline.archive)) if recipe.evaluation.source else []
    else:
        trained = training_prompts(recipe)
        _check_images(trained, recipe, "prompts.source")
    if recipe.fixed_prompts.interval:
        _check_images(fixed_prompt_rows(recipe), recipe, "fixed_prompts.source")
    if not recipe.evaluation.source:
        return
    held_out = evaluation_prompts(recipe)
    _check_images(held_out, recipe, "evaluation.source")
    where = "offline.archive" if recipe.offline.archive else "prompts.source"
    if problem := overlap(trained, held_out, where):
        if not (Path(recipe.run_dir) / "metrics.jsonl").exists():
            raise ConfigError(problem)
        _logger.warning(problem)


def _of_archive(archive: Path) -> list[PromptRow]:
    """Return the prompts of stored pairs, each once; those without a text are not learned from."""
    if has_videos(archive):
        found = [(pair.prompt, pair.image) for pair in read_video_pairs(archive)]
    else:
        pairs = read_preferences(archive)
        found = list(zip(pairs.prompts, pairs.images or [""] * len(pairs), strict=True))
    return [PromptRow(text, image=image) for text, image in dict.fromkeys(found)]


def _check_images(rows: Sequence[PromptRow], recipe: Recipe, where: str) -> None:
    if problem := problem_of_images(rows, recipe.policy.family, where):
        raise ConfigError(problem)


def problem_of_images(rows: Sequence[PromptRow], family: str, where: str = "prompts") -> str | None:
    """Return what to say of prompts that lack a picture, or have one in vain; None of others.

    Args:
        rows: Of a source.
        family: `policy.family`.
        where: The setting that names the source.
    """
    wanted = takes_images(family)
    wrong = [row.text for row in rows if bool(row.image) != wanted]
    if not wrong:
        return None
    found = f"{where}: {len(wrong)} of {len(rows)} prompts"
    if wanted:
        return (
            f"{found} have no image, first: {wrong[0]!r:.80}; policy.family={family} makes videos "
            "from an image: give a table with a column `image` of paths"
        )
    return (
        f"{found} have an image, first: {wrong[0]!r:.80}; policy.family={family} makes videos from "
        "text alone: set an image-to-video family, or leave the column `image` out"
    )


def overlap(
    trained: Sequence[PromptRow], held_out: Sequence[PromptRow], where: str = "prompts.source"
) -> str | None:
    """Return what to say of prompts that are evaluated and trained on, or None.

    Case and white space make no other prompt, and what has a weight of 0 is not used.

    Args:
        trained: What a run learns from.
        held_out: What it is evaluated with.
        where: The setting that names the first.
    """
    known = {identity(row) for row in trained if row.weight > 0}
    both = [row.text for row in held_out if row.weight > 0 and identity(row) in known]
    if not both:
        return None
    return (
        f"{len(both)} of {len(held_out)} held-out prompts are trained on, first: {both[0]!r}; "
        "their scores would not show what the policy does with new prompts: give "
        f"evaluation.source other prompts than {where}, or `split 64`, which takes so many away "
        "from prompts.source"
    )


class Prompts(Protocol):
    """What a run draws its prompts from, by position (>= 0)."""

    def __getitem__(self, index: int, /) -> Prompt:
        """Return the prompt at a position, equal on every call."""
        ...


class PromptStream:
    """An endless, seeded, random-access sequence of prompts.

    `stream[i]` is the same on every call, machine and resume, so that a run's whole position in it
    is one integer. An epoch is as many positions as there are prompts, N, and visits each prompt
    once, in an order of its own. With unequal weights it draws them by systematic sampling
    (Madow 1949) over an order of its own: a prompt with the share w of all weights comes N * w
    times, rounded up or down, and N * w times in the mean over epochs.
    """

    def __init__(self, prompts: Sequence[PromptRow | str], seed: int) -> None:
        """Stream prompts (at least one) in an order that depends only on `seed`."""
        if not prompts:
            raise PromptError("a prompt stream needs at least one prompt, got none")
        self._rows = [PromptRow(row) if isinstance(row, str) else row for row in prompts]
        self._seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def __len__(self) -> int:
        """Return the number of prompts, which is that of positions in an epoch."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Prompt:
        """Return the prompt at position `index` (>= 0)."""
        if index < 0:
            raise IndexError(f"a prompt stream has no end to count from, got index {index}")
        epoch, place = divmod(index, len(self._rows))
        if epoch != self._epoch:
            self._order = self._drawn(epoch)
            self._epoch = epoch
        row = self._rows[self._order[place]]
        return row.prompt(index)

    def _drawn(self, epoch: int) -> list[int]:
        """Return which rows an epoch has, in order."""
        rng = np.random.default_rng(derive_seed(self._seed, "prompts", epoch))
        order = rng.permutation(len(self._rows))
        weights = np.array([row.weight for row in self._rows])
        if (weights == weights[0]).all():
            return order.tolist()
        # In shuffled order: a pattern in the file, say of two classes that alternate, would
        # otherwise fall in step with the evenly spaced points.
        ends = np.cumsum((weights / weights.max())[order])
        points = (np.arange(len(order)) + rng.random()) * (ends[-1] / len(order))
        rows = order[np.searchsorted(ends[:-1], points, side="right")]
        return rng.permutation(rows).tolist()


def _rows_of_function(source: str, split: grammar.Split) -> list[PromptRow]:
    """Call a function of the user's own, and check what it returns."""
    where = f"{'prompts' if split == 'train' else 'evaluation'}.source"
    try:
        found = find(source, {}, where)(split)
    except ConfigError:
        raise
    except Exception as error:  # whatever the user's function raises
        raise PromptError(f"{where}={source} failed ({type(error).__name__}: {error})") from error
    is_list = isinstance(found, Sequence) and not isinstance(found, str)
    if not is_list or not all(isinstance(row, str | PromptRow) for row in found):
        raise PromptError(
            f"{where}={source} must return a list of texts or of "
            f"videorl.data.prompt_rows.PromptRow, got {found!r:.100}"
        )
    rows = ((f"row {number}", _as_row(row)) for number, row in enumerate(found, 1))
    return usable_rows(f"{where}={source}", rows)


def _as_row(row: PromptRow | str) -> PromptRow | BadRow:
    try:
        return PromptRow(row) if isinstance(row, str) else row
    except PromptError as error:
        return BadRow(str(error))
