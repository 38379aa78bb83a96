"""The guard of a run: judges every reading, notes alarms, warns, stops, or asks to go back.

Alarms are in `guard.json` of the run folder, beside the rollbacks; they outlive a rollback, which
takes away the readings that they came from.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from videorl.config import Recipe
from videorl.errors import GuardError, RollbackError
from videorl.evaluation.guard import Alarm, Facts, Learned, alarms, broken
from videorl.evaluation.readings import Reading, best
from videorl.files import write_json

logger = logging.getLogger(__name__)

FILE = "guard.json"
_WINNER_ERROR, _MARGIN = "dpo/winner_error_change", "learn/margin"


def read_notes(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the `alarms` and `rollbacks` of the run folder `root`, oldest first."""
    path = root / FILE
    saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"alarms": saved.get("alarms", []), "rollbacks": saved.get("rollbacks", [])}


class Guarding:
    """Judges the readings of one run.

    Args:
        recipe: The run; its `guard` has the limits.
        root: Its folder.
        logged: Metrics of the steps so far, by step, that the winner error is read from.
    """

    def __init__(self, recipe: Recipe, root: Path, logged: Mapping[int, Mapping[str, Any]]) -> None:
        self._recipe = recipe
        self._root = root
        self._learned: dict[int, tuple[float, float]] = {}
        self._broken: dict[int, list[Alarm]] = {}
        self._judged = -1
        for step, metrics in logged.items():
            self.saw(step, metrics)

    def saw(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Remember what rules need of the metrics of a step."""
        error, margin = metrics.get(_WINNER_ERROR), metrics.get(_MARGIN)
        if error is not None and margin is not None:
            self._learned[step] = error, margin

    def judge(self, readings: Sequence[Reading]) -> None:
        """Look at the newest reading, if it is new.

        Raises:
            GuardError: The run is to stop.
            RollbackError: It is to go back.
        """
        if self._recipe.guard.action == "off" or not readings:
            return
        if (step := readings[-1].step) <= self._judged:
            return
        self._judged = step
        facts = self._facts(readings)
        self._broken[step] = broken(readings, facts, self._recipe.guard)
        found = alarms(readings, facts, self._recipe.guard)
        if found:
            self._note(found, readings)
            self._act(found, readings)

    def worth_keeping(self, readings: Sequence[Reading]) -> list[int]:
        """Return the steps that a run may want to go back to: best and newest without a fault."""
        clean = self._clean(readings)
        noted = [row["before"] for row in read_notes(self._root)["alarms"]]
        return [*([clean[-1].step, best(clean).step] if clean else []), *noted]

    def _clean(self, readings: Sequence[Reading]) -> list[Reading]:
        """Return the readings that break no rule."""
        facts = self._facts(readings)
        for end, reading in enumerate(readings, 1):
            if reading.step not in self._broken:
                self._broken[reading.step] = broken(readings[:end], facts, self._recipe.guard)
        return [reading for reading in readings if not self._broken[reading.step]]

    def _facts(self, readings: Sequence[Reading]) -> Facts:
        names = readings[0].values if readings else {}
        watching = {
            reward.key: [name for name in names if name.startswith(f"reward/{reward.key}.")]
            for reward in self._recipe.rewards
            if reward.weight == 0
        }
        learned: dict[int, Learned] = {}
        for before, now in pairwise(readings):
            rows = [self._learned[n] for n in range(before.step, now.step) if n in self._learned]
            if rows:
                learned[now.step] = Learned(*(fmean(column) for column in zip(*rows, strict=True)))
        return Facts(watching, learned)

    def _note(self, found: Sequence[Alarm], readings: Sequence[Reading]) -> None:
        notes = read_notes(self._root)
        before = [reading.step for reading in self._clean(readings)][-1:]
        known = {(row["step"], row["rule"], row["metric"]) for row in notes["alarms"]}
        notes["alarms"] += [
            {**asdict(alarm), "action": self._recipe.guard.action, "before": (before or [0])[0]}
            for alarm in found
            if (alarm.step, alarm.rule, alarm.metric) not in known
        ]
        write_json(self._root / FILE, notes)

    def _act(self, found: Sequence[Alarm], readings: Sequence[Reading]) -> None:
        guard = self._recipe.guard
        said = "; ".join(alarm.reason for alarm in found)
        step = readings[-1].step
        clean = [reading for reading in self._clean(readings) if reading.step > 0]
        if guard.action == "warn":
            logger.warning("guard, step %d: %s", step, said)
            return
        had = len(read_notes(self._root)["rollbacks"])
        if guard.action == "rollback" and clean and had < guard.max_rollbacks:
            raise RollbackError(f"guard, step {step}: {said}", step=best(clean).step)
        kept = ""
        if clean:
            at = best(clean).step
            kept = f"`videorl export {self._root} --step {at}` gives the best weights before it. "
        raise GuardError(
            f"the guard stopped {self._root} at step {step}: {said}. {kept}"
            "A lower rate, fewer steps or another reward are the remedies; guard.action=warn goes "
            "on all the same"
        )
