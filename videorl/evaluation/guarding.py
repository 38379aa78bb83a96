"""The guard of a run: judges every reading, notes alarms, warns, stops, or asks to go back.

Alarms are in `guard.json` of the run folder, beside the rollbacks; they outlive a rollback, which
takes away the readings that they came from.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from videorl.config import Recipe
from videorl.errors import GuardError, RollbackError
from videorl.evaluation.guard import LEAST_PROMPTS, UNSEEN, Alarm, Facts, Learned, alarms, broken
from videorl.evaluation.readings import Reading, best
from videorl.run.guard_notes import read_notes, write_notes

logger = logging.getLogger(__name__)

_WINNER_ERROR, _MARGIN = "dpo/winner_error_change", "learn/margin"


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
        self._is_blind = False
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
        self._warn_of_blind_spots(readings)
        facts = self._facts(readings)
        self._broken[step] = broken(readings, facts, self._recipe.guard)
        if found := alarms(readings, facts, self._recipe.guard):
            said = "; ".join(alarm.reason for alarm in found)
            ending = self._ending(said, readings)
            action = "rollback" if isinstance(ending, RollbackError) else "stop"
            self._note(found, readings, action if ending else "warn")
            if ending:
                raise ending
            logger.warning("guard, step %d: %s", step, said)

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
        watching = [reward.key for reward in self._recipe.rewards if reward.weight == 0]
        learned: dict[int, Learned] = {}
        for before, now in pairwise(readings):
            rows = [self._learned[n] for n in range(before.step, now.step) if n in self._learned]
            if rows:
                learned[now.step] = Learned(*(fmean(column) for column in zip(*rows, strict=True)))
        return Facts(watching, learned)

    def _note(self, found: Sequence[Alarm], readings: Sequence[Reading], action: str) -> None:
        notes = read_notes(self._root)
        before, had = [reading.step for reading in self._clean(readings)][-1:], _num_back(notes)
        known = {
            (row["step"], row["rule"], row["metric"])
            for row in notes["alarms"]
            if row.get("rollbacks_before", 0) == had
        }
        notes["alarms"] += [
            {
                **asdict(alarm),
                "action": action,
                "before": (before or [0])[0],
                "rollbacks_before": had,
            }
            for alarm in found
            if (alarm.step, alarm.rule, alarm.metric) not in known
        ]
        write_notes(self._root, notes)

    def _ending(self, said: str, readings: Sequence[Reading]) -> GuardError | None:
        """Return what ends the run, as it is now, after an alarm; None = it goes on."""
        guard, step = self._recipe.guard, readings[-1].step
        if guard.action == "warn":
            return None
        clean = [reading for reading in self._clean(readings) if reading.step > 0]
        had = _num_back(read_notes(self._root))
        if guard.action == "rollback" and clean and had < guard.max_rollbacks:
            return RollbackError(f"guard, step {step}: {said}", step=best(clean).step)
        kept = ""
        if clean:
            at = best(clean).step
            kept = f"`videorl export {self._root} --step {at}` gives the best weights before it. "
        return GuardError(
            f"the guard stopped {self._root} at step {step}: {said}. {kept}"
            "A lower rate, fewer steps or another reward are the remedies; guard.action=warn goes "
            "on all the same"
        )

    def _warn_of_blind_spots(self, readings: Sequence[Reading]) -> None:
        """Say what the guard cannot see, as soon as that is known."""
        base, now = readings[0], readings[-1]
        if base.step > 0 and len(readings) == 1:
            logger.warning(
                "guard: the base was not evaluated; it compares with step %d in its place",
                base.step,
            )
        num_shared = len({*base.prompts} & {*now.prompts})
        is_blind = num_shared < LEAST_PROMPTS
        if is_blind and not self._is_blind:
            logger.warning(
                "guard: %d prompts are shared by the evaluations of steps %d and %d, and of fewer "
                "than %d it judges no difference: evaluation.during_prompts sets their number",
                num_shared,
                base.step,
                now.step,
                LEAST_PROMPTS,
            )
        self._is_blind = is_blind
        unknown = sorted({*self._recipe.guard.bands} - {*map(_metric, now.values)})
        if unknown and len(readings) == 1:
            there = sorted(name for name in map(_metric, now.values) if name)
            logger.warning(
                "guard.bands: %s not measured; there are %s", ", ".join(unknown), ", ".join(there)
            )


def _metric(name: str) -> str:
    """Return the name of an unseen metric without its prefix; empty of other values."""
    return name.removeprefix(UNSEEN) if name.startswith(UNSEEN) else ""


def _num_back(notes: Mapping[str, Sequence[Any]]) -> int:
    return len(notes["rollbacks"])
