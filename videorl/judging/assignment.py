"""Which pair a person is shown next."""

from __future__ import annotations

import logging
import os
from collections import Counter

from videorl.judging.answers import Answers
from videorl.judging.study import Study, StudyPair

logger = logging.getLogger(__name__)


class Assignment:
    """Hands out pairs until each has the answers that the study asks for.

    Every person has an order of their own, drawn by the study's seed. Pairs with fewer answers come
    first. A pair that is before somebody counts as answered for others while there are other pairs;
    where two people judge the last one at once, both answers are kept.
    """

    def __init__(self, study: Study, answers: Answers) -> None:
        self._study, self._answers = study, answers
        self._shown: dict[str, str] = {}
        """Annotator -> pair."""
        self._lost: set[str] = set()
        """Pairs that were found to lack a video."""

    def next(self, annotator: str) -> StudyPair | None:
        """Return the pair that a person is to judge; None if nothing is left for them."""
        counts, shown = (
            self._answers.counts(),
            Counter(pair for name, pair in self._shown.items() if name != annotator),
        )
        latest, wanted = self._answers.latest, self._study.answers_per_pair

        def order(pair: StudyPair) -> tuple[bool, bool, int, int]:
            begun = (pair.id, annotator) in latest
            taken = counts[pair.id] + shown[pair.id]
            return not begun, taken >= wanted, taken, self._study.place(pair, annotator)

        open_ = [
            pair
            for pair in self._study.pairs
            if counts[pair.id] < wanted and not self._is_done(pair, annotator)
        ]
        for pair in sorted(open_, key=order):
            if self._is_there(pair):
                self._shown[annotator] = pair.id
                return pair
        self._shown.pop(annotator, None)
        return None

    def progress(self, annotator: str) -> tuple[int, int]:
        """Return how many pairs a person has judged, and how many are left for them."""
        counts = self._answers.counts()
        done = sum(self._is_done(pair, annotator) for pair in self._study.pairs)
        left = sum(
            counts[pair.id] < self._study.answers_per_pair
            and not self._is_done(pair, annotator)
            and pair.id not in self._lost
            for pair in self._study.pairs
        )
        return done, left

    @property
    def num_lost(self) -> int:
        """Return how many pairs could not be shown, as a video has gone."""
        return len(self._lost)

    def _is_done(self, pair: StudyPair, annotator: str) -> bool:
        answer = self._answers.latest.get((pair.id, annotator))
        return answer is not None and answer.is_complete

    def _is_there(self, pair: StudyPair) -> bool:
        for side in (pair.a, pair.b):
            if not os.path.isfile(side.video):
                if pair.id not in self._lost:
                    logger.warning("pair %s is not shown: %s is missing", pair.id, side.video)
                self._lost.add(pair.id)
                return False
        self._lost.discard(pair.id)
        return True
