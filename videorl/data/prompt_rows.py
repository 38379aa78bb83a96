"""Prompts with their ids, tags and weights, and which of a source's rows can be used."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videorl.data.table_rows import BLANK, BadRow
from videorl.data.text_files import problem_of
from videorl.errors import PromptError
from videorl.files.images import problem_of_image
from videorl.types import Prompt

logger = logging.getLogger(__name__)

_NAMED = 5
"""So many lines are named one by one; the others are counted."""


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One prompt of a source.

    Raises:
        PromptError: A value is of another type, the weight is no finite number >= 0, or a text is
            not valid Unicode.
    """

    text: str
    id: str = ""
    """The user's own name of it; empty = none."""
    tags: tuple[str, ...] = ()
    weight: float = 1.0
    """How often it is drawn, relative to the others; 0 = never."""
    image: str = field(default="", repr=False)
    """Absolute path of the picture that its videos begin with; empty = none. It is not part of what
    the row is known by in a run folder: the picture's content is."""

    def __post_init__(self) -> None:
        texts = (
            [self.text, self.id, self.image, *self.tags] if isinstance(self.tags, tuple) else [None]
        )
        if not all(isinstance(text, str) for text in texts):
            raise PromptError(f"text, id, image and tags must be texts, got {self!r:.200}")
        is_number = isinstance(self.weight, int | float) and not isinstance(self.weight, bool)
        # NaN compares false with everything.
        if not is_number or not 0 <= self.weight < math.inf:
            raise PromptError(f"weight must be a number >= 0, got {self.weight!r}")
        if problem := next(filter(None, map(problem_of, map(str, texts))), None):
            raise PromptError(problem)
        if self.image and not Path(self.image).is_absolute():
            raise PromptError(f"image must be an absolute path, got {self.image!r}")
        if self.image and (problem := problem_of_image(self.image)):
            raise PromptError(problem)

    def prompt(self, index: int) -> Prompt:
        """Return the prompt at a position of a stream."""
        return Prompt(index, self.text, self.id, self.tags, self.image)


def parse_row(row: Mapping[str, Any], column: str, folder: Path) -> PromptRow | BadRow:
    """Return the prompt of a table's row, or what is wrong with the row.

    Args:
        row: Values by name: `column`, and `id`, `tags`, `weight` and `image` if there.
        column: Where the text is.
        folder: What the path of an image is relative to, unless it is absolute.
    """
    text, name, tags, image = row[column], row.get("id"), row.get("tags"), row.get("image")
    if not isinstance(text, str | None):
        return BadRow(f"{column} must be text, got {text!r:.60}")
    if isinstance(name, float) and name.is_integer():
        name = int(name)  # what pandas makes of whole numbers where some rows have none
    if isinstance(name, bool) or not isinstance(name, str | int | None):
        return BadRow(f"id must be text or a whole number, got {name!r:.60}")
    if isinstance(tags, str):
        tags = [tag for tag in map(str.strip, tags.split(",")) if tag]
    if isinstance(tags, list):
        tags = [tag for tag in tags if tag is not None]
    if not isinstance(tags, list | None) or not all(isinstance(tag, str) for tag in tags or ()):
        return BadRow(f"tags must be a list of texts, or text with commas, got {tags!r:.60}")
    if not isinstance(image, str | None):
        return BadRow(f"image must be the path of a picture, got {image!r:.60}")
    try:
        name = "" if name is None else str(name).strip()
        path = str(folder.absolute() / image.strip()) if image and image.strip() else ""
        weight = _weight(row.get("weight"))
        return PromptRow((text or "").strip(), name, tuple(tags or ()), weight, path)
    except PromptError as error:
        return BadRow(str(error))


def usable_rows(source: str, rows: Iterable[tuple[str, PromptRow | BadRow]]) -> list[PromptRow]:
    """Return the rows of a source that can be used; the log names and counts the others.

    Left out are rows that are blank or wrong, or repeat an earlier id, or an earlier text with the
    same image.

    Args:
        source: Its name, for messages.
        rows: The place of every row, for messages, and the row.

    Raises:
        PromptError: No row can be used, or there is no prompt that can be drawn.
    """
    kept: dict[tuple[str, str], PromptRow] = {}
    place_of_id: dict[str, str] = {}
    blank: list[str] = []
    repeated: list[str] = []
    problems: list[str] = []
    for place, row in rows:
        if row == BLANK or (isinstance(row, PromptRow) and not row.text.strip()):
            blank.append(place)
        elif isinstance(row, BadRow):
            problems.append(f"{place}: {row.reason}")
        elif (row.text, row.image) in kept:
            repeated.append(place)
        elif row.id in place_of_id:
            problems.append(f"{place}: id {row.id!r} is that of {place_of_id[row.id]} too")
        else:
            kept[row.text, row.image] = row
            if row.id:
                place_of_id[row.id] = place
    if not kept:
        raise _nothing_left(source, problems, len(blank))
    if problems:
        logger.warning(
            "%s: %d of %d rows cannot be used and are left out: %s",
            source,
            len(problems),
            len(problems) + len(kept) + len(blank) + len(repeated),
            _first_of(problems, "; "),
        )
    if blank or repeated:
        logger.warning(
            "%s: skipped %d blank and %d duplicate rows, kept %d prompts (%s)",
            source,
            len(blank),
            len(repeated),
            len(kept),
            _first_of([*blank, *repeated], ", "),
        )
    if not any(row.weight for row in kept.values()):
        raise PromptError(f"{source}: all weights are 0, so that no prompt can be drawn")
    return list(kept.values())


def _nothing_left(source: str, problems: Sequence[str], num_blank: int) -> PromptError:
    if problems:
        count = "" if len(problems) == 1 else f": {len(problems)} rows cannot be used"
        return PromptError(f"{source}{count}, {_first_of(problems, '; ')}")
    reason = f"all of its {num_blank} rows are blank" if num_blank else "it is empty"
    return PromptError(f"{source} holds no prompt: {reason}")


def _weight(value: Any) -> float:
    if value is None or value == "":
        return 1.0
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise PromptError(f"weight must be a number >= 0, got {value!r:.60}") from None


def _first_of(places: Sequence[str], separator: str) -> str:
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return separator.join(places[:_NAMED]) + more
