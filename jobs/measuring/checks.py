"""What `videorl measure` looks at before it samples, scores or measures: hours may depend on it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.measuring import scores, sources
from jobs.measuring.metrics import chosen_measures, fvd_features
from videorl.errors import ConfigError

if TYPE_CHECKING:
    from videorl.config import Recipe, RewardConfig
    from videorl.measures.folders import Folder
    from videorl.measures.measuring import Measure
    from videorl.measures.people import Verdict
    from videorl.measures.policies import NamedPolicy
    from videorl.measures.suites import Suite


@dataclass(frozen=True)
class Ready:
    """What can be used of what was given."""

    labels: Sequence[str]
    """Of policies and folders, in order."""
    reference: Folder | None
    published: Mapping[str, Mapping[str, float]]
    """What the `vbench` package wrote, by label."""
    measures: Sequence[Measure]
    notes: Sequence[str]
    """On what cannot be measured."""
    verdicts: Sequence[Verdict]
    """What people said."""


def check_inputs(
    options: argparse.Namespace,
    read: tuple[Recipe, list[NamedPolicy], Suite] | None,
    rewards: Sequence[RewardConfig],
    out: Path,
) -> Ready:
    """Open every file and network that was named.

    Args:
        options: Those of the command.
        read: See `sources.read_policies`.
        rewards: The models that are to score all folders.
        out: The folder of the results.

    Raises:
        VideorlError: Something cannot be used; its sentence says what.
    """
    from videorl.measures.folders import labels_of, open_folders
    from videorl.measures.people import read_verdicts

    labels = labels_of([*sources.places_of(read, out), *options.folders])
    given = open_folders(options.folders, options.prompts)
    reference = open_folders([options.reference])[0] if options.reference else None
    if reference and reference.label in labels:
        raise ConfigError(f"--reference: {reference.label} is taken; give NAME={options.reference}")
    models = scores.read_models(options, labels, {})
    if both := sorted(models.keys() & {reward.key for reward in rewards}):
        raise ConfigError(f"--scores and --reward: both are of {both[0]}; give one of them")
    verdicts = read_verdicts(options.answers)
    published = scores.published(options, labels)
    measures, notes = chosen_measures(options, labels, published)
    used = [*given, reference] if reference else given
    counts = {folder.label: len(folder.keys) for folder in used}
    if read is not None:
        _, policies, suite = read
        counts |= {policy.label: len(suite.prompts) * suite.samples for policy in policies}
    check_number(options, counts, measures)
    return Ready(labels, reference, published, measures, notes, verdicts)


def check_number(
    options: argparse.Namespace, counts: Mapping[str, int], measures: Sequence[Measure]
) -> None:
    """Refuse too few clips for FVD."""
    from videorl.measures import frechet

    for found in [] if options.few_clips else fvd_features(options, measures):
        for label, count in counts.items():
            frechet.check_number(label, count, found.size)
