r"""`videorl measure`: what the papers measure, for policies or folders of videos from anywhere.

    videorl measure base=clips/base tuned=clips/tuned --out measured
    videorl measure --policy base tuned=runs/moving_shapes/aligned --samples 2 \
        --reward moving_shapes --out measured
    videorl measure base=clips/base tuned=clips/tuned --metric temporal_flickering fvd \
        --reference clips/real --video-mae checkpoints/VideoMAE --out measured
    videorl measure --policy base tuned=runs/moving_shapes --baseline measured.json \
        --fail-if 'temporal flickering < -1 %'

Policies (`--policy`) are sampled first, all with the same prompts and seeds, on Ray or `--local`.
Every clip is sampled, scored and measured once: stop it at any moment and start the same command
again. What comes first, policies before folders, is what others are compared with. `--out` gets
measured.json, .md, .tex, .html and .parquet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command
from jobs.measuring.options import DIVERSITY, add_options, check_options
from jobs.results import results
from videorl.errors import StoppedError

if TYPE_CHECKING:
    from jobs.measuring.checks import Ready
    from videorl.measures.assembling import Numbers
    from videorl.measures.folders import Folder
    from videorl.measures.measuring import Measured
    from videorl.measures.results import Report

NOT_ALL = 1
"""Exit code where a metric that was asked for, or a clip, has no number, or a rule is broken."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print and write the tables. Exit code 1 = something has no number, 130 = stopped."""
    parser = command.new_parser("videorl measure", __doc__)
    add_options(parser)
    options = parser.parse_args(argv)
    check_options(parser, options)
    command.start_logging()

    from videorl.measures.regression import read_rules
    from videorl.measures.tables import format_text, to_json
    from videorl.measures.writing import write_report

    rules = read_rules(options.fail_if, options.baseline)
    out = command.output_folder(command.lasting(options.out))
    with results(options) as show:
        try:
            report, is_whole = _report(options, out)
        except (KeyboardInterrupt, StoppedError):
            return command.stopped(out)
        write_report(out, report)
        broken = [said for rule in rules for said in rule.broken(report)]
        show(to_json(report), format_text(report))
        for said in broken:
            print(f"FAILED: {said}", file=sys.stderr)
        if not options.json:
            print(out / "measured.json")
    return 0 if is_whole and not broken else NOT_ALL


def _report(options: argparse.Namespace, out: Path) -> tuple[Report, bool]:
    """Return what is to be told, and whether all of it was measured."""
    from jobs.measuring import scores, sources
    from jobs.measuring.baseline import after_measuring, before_sampling, opened_baseline
    from jobs.measuring.checks import check_inputs
    from videorl.measures.assembling import computed_by
    from videorl.measures.corrections import corrected
    from videorl.measures.people import agreements
    from videorl.measures.results import Report, by_path, clip_numbers, row_of, sign_of
    from videorl.measures.seeds import over_seeds

    read, rewards = sources.read_policies(options), sources.read_rewards(options)
    ready = check_inputs(options, read, rewards, out)
    baseline = opened_baseline(options)
    known = before_sampling(read, ready)
    if baseline is not None:  # before hours of sampling
        baseline.check(known, is_whole=False)
    if read is not None:
        _say_power(len(read[2].prompts))  # before hours of sampling
    given = [*sources.sampled(read, options, out), *options.folders]
    opened, folders = _opened(options, given, ready)
    if read is None and len(folders) > 1:
        _say_power(len(set(map(folders[0].unit, folders[0].keys))))
    scored = sources.scored(opened, rewards, options, out)
    models = scores.read_models(options, ready.labels, scored)
    rates = scores.rates(models, folders, options.tie)
    measured = _measured(options, folders, ready, out)
    unscored = scores.add_to(measured, models, folders)
    numbers = _numbers(options, folders, measured, ready)
    made_with = after_measuring(known, folders, ready, models, measured)
    accepted = baseline.check(made_with, is_whole=True) if baseline else []
    problems = [*ready.notes, *numbers.problems, *scores.lost(measured)]
    notes = [*problems, *numbers.notes, *unscored, *accepted]
    rows = [row_of(folder, numbers.found[folder.label], measured) for folder in folders]
    report = Report(
        rows,
        rates,
        [" ".join(note.split()) for note in notes],  # a line each
        _settings(options),
        agreements(ready.verdicts, by_path(folders, measured), sign_of),
        over_seeds(rows, rates),
        clip_numbers(folders, measured),
        computed_by(ready.measures, ready.published, ready.labels),
        made_with,
    )
    return corrected(report), not problems


def _opened(
    options: argparse.Namespace, given: Sequence[str], ready: Ready
) -> tuple[list[Folder], list[Folder]]:
    """Return the folders as they are, and with the clips that are compared."""
    from jobs.measuring.checks import check_number
    from videorl.measures.folders import match, open_folders
    from videorl.measures.people import agreements
    from videorl.measures.results import by_path, sign_of

    opened = open_folders(given, options.prompts)
    folders = match(opened, shared=options.shared, has_prompts=options.prompts is not None)
    check_number(options, {f.label: len(f.keys) for f in folders}, ready.measures)
    if ready.verdicts:  # are they about other videos?
        agreements(ready.verdicts, by_path(folders, {}), sign_of)
    return opened, folders


def _numbers(
    options: argparse.Namespace,
    folders: Sequence[Folder],
    measured: Mapping[str, Measured],
    ready: Ready,
) -> Numbers:
    from jobs.measuring.metrics import fvd_features
    from videorl.measures.assembling import add_fvd, all_numbers

    has_diversity = DIVERSITY in options.metric
    numbers = all_numbers(folders, measured, ready.published, has_diversity=has_diversity)
    if ready.reference:
        add = partial(add_fvd, numbers, folders, ready.reference, measured)
        for features in fvd_features(options, ready.measures):
            add(features.name, few_clips=options.few_clips, at_infinity=options.at_infinity)
    return numbers


def _settings(options: argparse.Namespace) -> dict[str, str]:
    return {name: str(value) for name, value in sorted(vars(options).items()) if name[0] != "_"}


def _say_power(count: int) -> None:
    """Say, before long work, what so many prompts can show."""
    from videorl.measures.power import win_rate_seen

    rate = win_rate_seen(count)
    text = f"only win rates near 100 % are told from 50 % (needed for 60 %: {_for_60()})"
    if rate < 1:
        text = (
            f"a true win rate of {100 * rate:.1f} % or more is told from 50 % in 4 of 5 such "
            f"comparisons (needed for 60 %: {_for_60()})"
        )
    print(f"{count} prompts: {text}", file=sys.stderr)


def _for_60() -> int:
    from videorl.measures.power import prompts_needed_for_win_rate

    return prompts_needed_for_win_rate(0.6)


def _measured(
    options: argparse.Namespace,
    folders: Sequence[Folder],
    ready: Ready,
    out: Path,
) -> dict[str, Measured]:
    """Measure every clip that has to be; of the reference only what FVD needs."""
    from jobs.measuring.metrics import fvd_features
    from videorl.measures.measuring import measure_clips
    from videorl.measures.store import open_store
    from videorl.measures.video_mae import single_precision
    from videorl.run.progress import progress

    measures, reference = ready.measures, ready.reference
    wanted = {folder.label: measures for folder in folders} if measures else {}
    if reference and (features := fvd_features(options, measures)):
        folders, wanted = [*folders, reference], {**wanted, reference.label: features}
    used = [folder for folder in folders if folder.label in wanted]
    total = max(2 * sum(len(folder.keys) for folder in used), 1)
    said = "clips, opened and measured"
    with open_store(out) as store, progress(said, total) as reach, single_precision():
        return measure_clips(
            used, wanted, store, reach, resample=options.resample, workers=options.workers
        )


if __name__ == "__main__":
    raise SystemExit(command.run(main))
