r"""`videorl measure`: what the papers measure of videos, for folders (or runs) from anywhere.

    videorl measure base=clips/base tuned=clips/tuned --out measured
    videorl measure base=clips/base tuned=clips/tuned --metric temporal_flickering fvd \
        --reference clips/real --video-mae checkpoints/VideoMAE --out measured
    videorl measure base=clips/base tuned=clips/tuned \
        --scores base=base.parquet tuned=tuned.parquet --out measured

No policy is loaded. Every clip is measured once: stop it at any moment and start the same command
again. The first folder is what others are compared with. `--out` gets measured.json, .md and .tex.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command
from jobs.results import add_json, results
from videorl.errors import CheckpointError, ConfigError
from videorl.measures.vbench import QUALITY

if TYPE_CHECKING:
    from videorl.measures.folders import Folder
    from videorl.measures.measuring import Measure, Measured
    from videorl.measures.results import Report
    from videorl.measures.win_rates import WinRate

NOT_ALL = 1
"""Exit code where a metric that was asked for, or a clip, has no number."""
VBENCH = tuple(name.replace(" ", "_") for name in QUALITY)
FVD, FVD_I3D = "fvd", "fvd_i3d"
_NO_I3D = (
    "fvd_i3d is not measured here: I3D and its weights for Kinetics-400 are in no package that is "
    "kept up; run the `cd-fvd` package (model i3d) in an environment of its own"
)
_SHOWN = 3


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("videorl measure", __doc__)
    text = "a folder of videos, a table or a run, as in `videorl score`; the first is the base"
    parser.add_argument("folders", nargs="+", metavar="[NAME=]FOLDER", help=text)
    text = "what is measured"
    usual = ["temporal_flickering"]
    choices = (*VBENCH, FVD, FVD_I3D)
    command.add_option(parser, "--metric", usual, text, choices=choices, metavar="METRIC")
    parser.epilog = "metrics: " + ", ".join(choices)
    parser.add_argument("--reference", metavar="FOLDER", help="real clips, for fvd")
    text = "VideoMAE of transformers, for fvd: a folder or an id of the hub"
    parser.add_argument("--video-mae", metavar="CHECKPOINT", help=text)
    command.add_option(parser, "--frame-step", 1, "fvd reads every Nth frame")
    parser.add_argument("--device", default="", help="of VideoMAE; default: a GPU if there is one")
    text = "FVD also extrapolated to infinitely many clips"
    parser.add_argument("--at-infinity", action="store_true", help=text)
    text = "FVD also of fewer clips than it has features"
    parser.add_argument("--few-clips", action="store_true", help=text)
    text = "results of the vbench package for a folder (..._eval_results.json)"
    parser.add_argument("--vbench", nargs="+", default=[], metavar="NAME=FILE", help=text)
    text = "scores of a folder by one model, from `videorl score`, for win rates"
    parser.add_argument("--scores", nargs="+", default=[], metavar="NAME=FILE", help=text)
    command.add_option(parser, "--tie", 0.0, "scores that differ by no more are a tie")
    text = "a table with `video` and `prompt`, which names every clip of each folder"
    parser.add_argument("--prompts", type=Path, help=text)
    text = "go on with the prompts that all folders have"
    parser.add_argument("--shared", action="store_true", help=text)
    text = "cut all clips to the shortest, smallest and slowest"
    parser.add_argument("--resample", action="store_true", help=text)
    command.add_option(parser, "--out", Path("measured"), "folder of the results")
    add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print and write the tables. Exit code 1 = something has no number, 130 = stopped."""
    parser = _parser()
    options = parser.parse_args(argv)
    if FVD in options.metric and not (options.reference and options.video_mae):
        parser.error("fvd needs real clips (--reference) and a checkpoint (--video-mae)")
    for_fvd = ("reference", "video_mae", "at_infinity", "few_clips", "device", "frame_step")
    changed = [name for name in for_fvd if getattr(options, name) != parser.get_default(name)]
    if FVD not in options.metric and changed:
        parser.error(f"--{changed[0].replace('_', '-')} has no effect without --metric fvd")
    if options.tie and not options.scores:
        parser.error("--tie has no effect without --scores")
    if options.frame_step < 1:
        parser.error(f"--frame-step must be >= 1, got {options.frame_step}")
    command.start_logging()

    from videorl.files import write_json, write_text
    from videorl.measures.tables import format_latex, format_markdown, format_text, to_json

    out = command.output_folder(command.lasting(options.out))
    with results(options) as show:
        try:
            report, is_whole = _report(options, out)
        except KeyboardInterrupt:
            return command.stopped(out)
        write_json(out / "measured.json", to_json(report))
        write_text(out / "measured.md", format_markdown(report))
        write_text(out / "measured.tex", format_latex(report))
        show(to_json(report), f"{format_text(report)}\n{out / 'measured.json'}")
    return 0 if is_whole else NOT_ALL


def _report(options: argparse.Namespace, out: Path) -> tuple[Report, bool]:
    """Return what is to be told, and whether all of it was measured."""
    from videorl.measures.assembling import add_fvd, vbench_numbers
    from videorl.measures.folders import match, open_folders
    from videorl.measures.results import Report, row_of

    opened = open_folders(options.folders, options.prompts)
    has_prompts = options.prompts is not None
    folders = match(opened, shared=options.shared, has_prompts=has_prompts)
    reference = open_folders([options.reference])[0] if FVD in options.metric else None
    if reference and reference.label in [folder.label for folder in folders]:
        raise ConfigError(f"--reference: {reference.label} is taken; give NAME={options.reference}")
    rates = _win_rates(options, folders)  # what is wrong with a file is said before hours of work
    published = _published(options, folders)
    measures, notes = _measures(options, folders, published)
    _check_number(options, [*folders, *([reference] if reference else [])], measures)
    _say_power(folders)
    measured = _measured(options, folders, reference, measures, out)
    numbers = vbench_numbers(folders, measured, published)
    if reference and reference.label in measured:
        add_fvd(
            numbers,
            folders,
            reference,
            measured,
            few_clips=options.few_clips,
            at_infinity=options.at_infinity,
        )
    problems = [*notes, *numbers.problems, *_lost(measured)]
    rows = [row_of(folder, numbers.found[folder.label], measured) for folder in folders]
    given = {name: value for name, value in sorted(vars(options).items()) if name[0] != "_"}
    settings = {name: str(value) for name, value in given.items()}
    said = [" ".join(note.split()) for note in (*problems, *numbers.notes)]  # a line each
    return Report(rows, rates, said, settings), not problems


def _lost(measured: Mapping[str, Measured]) -> list[str]:
    """Return a sentence per folder on the clips that lack a number."""
    return [
        f"{label}: {len(found.problems)} clips lack a number: "
        + "; ".join(list(found.problems.values())[:_SHOWN])
        for label, found in measured.items()
        if found.problems
    ]


def _given(texts: Sequence[str], option: str, folders: Sequence[Folder]) -> list[tuple[int, Path]]:
    """Return (number of the folder, file) of `NAME=FILE`."""
    labels = [folder.label for folder in folders]
    found: list[tuple[int, Path]] = []
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or name not in labels:
            raise ConfigError(f"{option} must be NAME=FILE with a name of {labels}, got {text!r}")
        found.append((labels.index(name), Path(path).expanduser()))
    return found


def _published(
    options: argparse.Namespace, folders: Sequence[Folder]
) -> dict[str, dict[str, float]]:
    from videorl.measures.vbench import read_results

    found: dict[str, dict[str, float]] = {}
    for number, path in _given(options.vbench, "--vbench", folders):
        mine = found.setdefault(folders[number].label, {})
        for name, value in read_results(path).items():
            if name in mine:
                raise ConfigError(f"--vbench: {folders[number].label} has {name} twice, see {path}")
            mine[name] = value
    return found


def _win_rates(options: argparse.Namespace, folders: Sequence[Folder]) -> list[WinRate]:
    from videorl.data.score_reading import ScoredClips, read_scores
    from videorl.measures.win_rates import win_rates

    models: dict[str, dict[int, ScoredClips]] = {}
    for number, path in _given(options.scores, "--scores", folders):
        scored = read_scores(path)
        if number in models.setdefault(scored.label, {}):
            raise ConfigError(f"--scores: two files of {folders[number].label} and {scored.label}")
        models[scored.label][number] = scored
    rates: list[WinRate] = []
    for label, scored in models.items():
        if 0 not in scored or len(scored) < 2:
            names = ", ".join(folders[n].label for n in scored)
            raise ConfigError(
                f"--scores: {label} scored {names}; win rates need scores of {folders[0].label}, "
                "the first folder, and of another"
            )
        for number in sorted(scored.keys() - {0}):
            pair = ((folders[n], scored[n]) for n in (0, number))
            rates += win_rates(*pair, tie=options.tie)
    return rates


def _measures(
    options: argparse.Namespace,
    folders: Sequence[Folder],
    published: Mapping[str, Mapping[str, float]],
) -> tuple[list[Measure], list[str]]:
    """Return what can be measured, and sentences on what cannot."""
    from videorl.measures.measuring import Features, Flickering
    from videorl.measures.vbench import why_absent
    from videorl.measures.video_mae import VideoMAEFeatures

    measures: list[Measure] = []
    notes: list[str] = []
    for metric in dict.fromkeys(options.metric):
        name = metric.replace("_", " ")
        if metric == FVD:
            try:
                network = VideoMAEFeatures(options.video_mae, options.device)
                measures.append(Features(network, options.frame_step))
            except CheckpointError as error:
                notes.append(f"fvd is not measured: {error}")
        elif metric == FVD_I3D:
            notes.append(_NO_I3D)
        elif metric == "temporal_flickering":
            measures.append(Flickering())
        elif any(name not in published.get(folder.label, {}) for folder in folders):
            notes.append(why_absent(name))
    if not measures and not published and not options.scores:
        raise ConfigError("nothing can be measured: " + "; ".join(notes))
    return measures, notes


def _check_number(
    options: argparse.Namespace, folders: Sequence[Folder], measures: Sequence[Measure]
) -> None:
    """Refuse too few clips for FVD before hours of work."""
    from videorl.measures.frechet import check_number
    from videorl.measures.measuring import Features

    sizes = [found.size for found in measures if isinstance(found, Features)]
    for size in sizes if not options.few_clips else []:
        for folder in folders:
            check_number(folder.label, len(folder.keys), size)


def _say_power(folders: Sequence[Folder]) -> None:
    """Say, before long work, what so many prompts can show."""
    from videorl.measures.power import win_rate_seen

    if len(folders) > 1:
        count = len(set(map(folders[0].unit, folders[0].keys)))
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
    reference: Folder | None,
    measures: Sequence[Measure],
    out: Path,
) -> dict[str, Measured]:
    """Measure every clip that has to be; of the reference only what FVD needs."""
    from videorl.measures.measuring import FEATURES, measure_clips
    from videorl.measures.store import open_store
    from videorl.run.progress import progress

    wanted = {folder.label: measures for folder in folders} if measures else {}
    if reference and (features := [found for found in measures if found.name == FEATURES]):
        folders, wanted = [*folders, reference], {**wanted, reference.label: features}
    used = [folder for folder in folders if folder.label in wanted]
    total = max(2 * sum(len(folder.keys) for folder in used), 1)
    with open_store(out) as store, progress("clips, opened and measured", total) as reach:
        return measure_clips(used, wanted, store, reach, resample=options.resample)


if __name__ == "__main__":
    raise SystemExit(command.run(main))
