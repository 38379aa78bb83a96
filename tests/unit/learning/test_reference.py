"""When the reference becomes the policy."""

from __future__ import annotations

import json

import pytest

from videorl.errors import ConfigError
from videorl.learning.reference import CurriculumReference, LocalReferenceUpdater
from videorl.types import WeightVersion


class Recorder:
    """A learner that only remembers swaps."""

    def __init__(self) -> None:
        self.swaps: list[WeightVersion] = []

    def update_reference(self, version: WeightVersion) -> None:
        """Remember."""
        self.swaps.append(version)


def v(step: int) -> WeightVersion:
    """Return a version."""
    return WeightVersion(step, f"digest-{step}")


@pytest.mark.parametrize(
    ("interval", "references"),
    [(3, [0, 0, 3, 3, 3, 6, 6]), (1, [1, 2, 3, 4, 5, 6, 7]), (0, [0] * 7)],
)
def test_the_reference_follows_every_interval(interval: int, references: list[int]) -> None:
    learner, curriculum = Recorder(), CurriculumReference(interval, v(0))
    updater = LocalReferenceUpdater(learner, curriculum)  # pyright: ignore[reportArgumentType]
    assert [updater.after_step(v(step)).step for step in range(1, 8)] == references
    assert (v(0), *learner.swaps) == curriculum.history()


def test_it_continues_from_its_state_and_asking_twice_changes_nothing() -> None:
    before = CurriculumReference(2, v(0))
    before.record(v(2))
    after = CurriculumReference(2, v(0))
    after.restore(json.loads(json.dumps(before.state())))
    assert (after.current(), after.history()) == (v(2), (v(0), v(2)))
    assert not after.is_due(v(2))
    after.record(v(2))
    assert after.history() == (v(0), v(2))
    assert after.is_due(v(4))


def test_a_negative_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="got -1"):
        CurriculumReference(-1, v(0))
