"""What a run folder records, read so that the run may go on meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from videorl.config import Recipe
from videorl.data.archive import committed_steps, read_table
from videorl.data.archive_layout import Layout, check_there, settled
from videorl.data.archive_tables import SCHEMAS
from videorl.data.prompts import Prompts, open_prompts
from videorl.errors import ArchiveError, CheckpointError, RunFolderError
from videorl.files.inputs import changes
from videorl.recipes.reading import load_recipe
from videorl.run.changes import Change, read_changes, value_at
from videorl.run.checkpoints import open_checkpoints
from videorl.run.folder import RunFolder
from videorl.run.inputs import inputs_of, read_inputs
from videorl.run.sinks import read_metrics
from videorl.types import Prompt

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two records of a run that cannot both be true, or a record that is missing."""

    where: str
    what: str


@dataclass(frozen=True)
class Evidence:
    """Everything that is compared; steps from `cursor` on are left out.

    A resumed run repeats those steps, so their records may be incomplete.
    """

    recipe: Recipe
    prompts: Prompts
    """Those of the recipe, or of the ledger itself where the recipe's have changed since."""
    cursor: int
    """Step of the newest checkpoint, 0 without one: the next step, and round, of a resumed run."""
    checkpoint: Mapping[str, Any] | None
    """Its `state.json`."""
    tables: Mapping[str, list[Row]]
    """Rows of every table of the archive, without latents."""
    metrics: list[Row]
    summary: Mapping[str, Any] | None
    unreadable: tuple[Contradiction, ...]
    """What could not be read at all."""
    num_later_steps: int
    """Archived steps from `cursor` on."""
    changed_inputs: Mapping[str, str]
    """Setting -> how what it names differs from what it was when the run began."""

    settings: Sequence[Change]
    """Settings that were changed while it ran."""

    def reference_interval(self, step: int) -> int:
        """Return `reference.interval` as it was at a step."""
        now = self.recipe.reference.interval
        return int(value_at(self.settings, "reference.interval", step, now))

    def due_references(self) -> list[int]:
        """Return the step of the reference that is due after each step before the cursor."""
        due, reference = list[int](), 0
        for step in range(self.cursor):
            interval = self.reference_interval(step)
            reference = step + 1 if interval and (step + 1) % interval == 0 else reference
            due.append(reference)
        return due

    @property
    def num_taken(self) -> int:
        """Positions of the prompt stream before the cursor."""
        return self.cursor * self.recipe.prompts.per_round


class PromptsOfLedger:
    """The prompts that a run has drawn, as its archive has them.

    Args:
        rows: Of the table `prompts`.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = {row["prompt_index"]: row for row in rows}

    def __getitem__(self, index: int) -> Prompt:
        """Return the prompt at a position; without text where there is none."""
        row = self._rows.get(index, {})
        return Prompt(index, row.get("prompt", ""), image=row.get("image") or "")


def gather(folder: RunFolder, *, fresh: bool = False) -> Evidence:
    """Read a run folder; the checkpoint first, since archive and metrics are written before it.

    Args:
        folder: Of the run.
        fresh: Read every file that the run rests on, even where its size and times are the same.

    Raises:
        RunFolderError: It is no run folder, or the run kept no ledger: it was offline, or
            learned from prompts alone.
        CheckpointError: There are checkpoints, but none can be read.
        ArchiveError: The archive is of a version that kept no ledger.
    """
    if not folder.config.exists():
        raise RunFolderError(f"{folder.root} is no run folder: it has no config.yaml")
    recipe = load_recipe(str(folder.config))
    if recipe.objective.learns_from == "prompts":
        raise RunFolderError(
            f"{folder.root} learned from prompts alone (objective.name={recipe.objective.name}): "
            "it has no candidates, and no ledger to audit"
        )
    if recipe.offline.archive:
        raise RunFolderError(
            f"{folder.root} learned offline, from {recipe.offline.archive}: it keeps no ledger of "
            "its own to audit"
        )
    checkpoint = _newest_checkpoint(recipe, folder)
    cursor = 0 if checkpoint is None else int(checkpoint["step"])
    tables, missing = _tables(folder, cursor)
    rows, broken = _metrics(folder, cursor)
    changed = changes(read_inputs(folder.root), inputs_of(recipe, fresh=fresh))
    is_other = "prompts.source" in changed
    prompts = PromptsOfLedger(tables["prompts"]) if is_other else open_prompts(recipe)
    return Evidence(
        recipe=recipe,
        prompts=prompts,
        cursor=cursor,
        checkpoint=checkpoint,
        tables=tables,
        metrics=rows,
        summary=json.loads(folder.summary.read_text()) if folder.summary.exists() else None,
        unreadable=(*missing, *broken),
        num_later_steps=sum(step >= cursor for step in committed_steps(folder.archive)),
        changed_inputs=changed,
        settings=read_changes(folder.root),
    )


def _newest_checkpoint(recipe: Recipe, folder: RunFolder) -> Mapping[str, Any] | None:
    """Return the newest checkpoint's state; a live run may delete a checkpoint while it is read."""
    checkpoints = open_checkpoints(recipe.checkpoint, folder.root)
    while True:
        before = checkpoints.steps()
        try:
            found = checkpoints.latest()
        except CheckpointError:
            if checkpoints.steps() == before:
                raise
        else:
            return None if found is None else found[1]


def _tables(folder: RunFolder, cursor: int) -> tuple[dict[str, list[Row]], list[Contradiction]]:
    """Return the rows of every table, and the files that are missing."""
    archive = folder.archive
    missing = _missing_tables(archive, range(cursor))
    if {"prompts", "steps"} <= set(missing.get(0, ())) and "candidates" not in missing[0]:
        raise ArchiveError(
            f"{archive} has no `prompts` and `steps` tables: it was written by a version of "
            "videorl that kept no ledger. It can be read, but not audited"
        )
    tables: dict[str, list[Row]] = {}
    for name, schema in SCHEMAS.items():
        columns = [column for column in schema.names if not column.startswith("latents")]
        there = [step for step in range(cursor) if name not in missing[step]]
        tables[name] = read_table(archive, name, columns, there).to_pylist()
    return tables, [
        Contradiction(f"archive, step {step}", f"the {name} table is missing")
        for step, names in missing.items()
        for name in names
    ]


def _missing_tables(directory: Path, steps: Iterable[int]) -> dict[int, list[str]]:
    """Return, for each of some steps, the names of the tables that it does not have."""
    wanted = list(steps)

    def look(layout: Layout) -> dict[int, list[str]]:
        spans = layout.spans_of(wanted)
        missing = {
            span: [name for name in SCHEMAS if not span.path(directory, name).exists()]
            for span in spans
        }
        check_there(directory, [span for span in spans if layout.has(span.first)])
        return {step: missing[layout.span(step)] for step in wanted}

    return settled(directory, look)


def _metrics(folder: RunFolder, cursor: int) -> tuple[list[Row], list[Contradiction]]:
    if not folder.metrics.exists():
        return [], []
    try:
        rows = read_metrics(folder.metrics)
    except ValueError as error:
        return [], [Contradiction("metrics.jsonl", str(error))]
    return [row for row in rows if row["step"] < cursor], []
