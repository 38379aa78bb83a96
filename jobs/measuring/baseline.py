"""The baseline of `videorl measure`: was it made as this comparison is?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.measuring.scores import Models

if TYPE_CHECKING:
    from jobs.measuring.checks import Ready
    from videorl.config import Recipe
    from videorl.measures.folders import Folder
    from videorl.measures.made_with import MadeWith
    from videorl.measures.measuring import Measured
    from videorl.measures.policies import NamedPolicy
    from videorl.measures.suites import Suite


@dataclass(frozen=True)
class Baseline:
    """What a `measured.json` says it was made with."""

    path: Path
    made_with: MadeWith | None
    is_accepted: bool
    """It may differ."""

    def check(self, now: MadeWith, *, is_whole: bool) -> list[str]:
        """Return a note on what differs from this comparison, or nothing.

        Raises:
            ConfigError: It differs, and that is not accepted.
        """
        from videorl.measures.made_with import check_baseline

        found = check_baseline(
            self.path, self.made_with, now, is_whole=is_whole, is_accepted=self.is_accepted
        )
        return [f"the baseline was made with something else: {'; '.join(found)}"] if found else []


def opened_baseline(options: argparse.Namespace) -> Baseline | None:
    """Return the baseline that was given; None if there is none.

    Raises:
        ConfigError: It cannot be read.
    """
    from videorl.measures.made_with import read_made_with

    if options.baseline is None:
        return None
    return Baseline(options.baseline, read_made_with(options.baseline), options.accept_baseline)


def before_sampling(
    read: tuple[Recipe, Sequence[NamedPolicy], Suite] | None, ready: Ready
) -> MadeWith:
    """Return what is known before a policy is loaded; `read` is None without policies."""
    from videorl.measures.made_with import MEASURES, VIDEOS, of_measures, of_policies

    videos = of_policies(read[1], read[2]) if read else {}
    return {VIDEOS: videos, MEASURES: of_measures(ready.measures)}


def after_measuring(
    before: MadeWith,
    folders: Sequence[Folder],
    ready: Ready,
    models: Models,
    measured: Mapping[str, Measured],
) -> MadeWith:
    """Return all that the comparison was made with; `before` is what was known at first."""
    from videorl.measures.made_with import MEASURES, VIDEOS, of_folders, of_measures

    reference = measured.get(ready.reference.label) if ready.reference else None
    videos = {
        label: {**before[VIDEOS].get(label, {}), **facts}
        for label, facts in of_folders(folders, measured).items()
    }
    return {VIDEOS: videos, MEASURES: of_measures(ready.measures, models, reference)}
