"""`videorl judge`: people compare videos in the browser, two at a time and blind.

    videorl judge runs/short --pairs random --num-pairs 50
    videorl judge OURS THEIRS --mode overall --annotators anna ben --answers-per-pair 2
    videorl judge judging/short                    # go on with a study
    videorl judge judging/short --report           # agreement, and who won

The first two make a study below `judging/` and open its page; every answer is on disk before the
next pair is shown. `labels.csv` of a study is what `videorl train_reward` reads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from os.path import abspath
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command, places
from jobs.results import add_json, results
from videorl.errors import ConfigError
from videorl.settings.extras import needing

if TYPE_CHECKING:
    from videorl.judging.study import Study

_OF_A_NEW_STUDY = {
    "mode": "dimensions",
    "pairs": "chosen",
    "num_pairs": 100,
    "from_step": 0,
    "to_step": None,
    "seed": 0,
}
"""Options that are decided once, with their defaults."""
_OF_A_RUN = ("pairs", "from_step", "to_step")
_LEAST = {"num_pairs": 1, "answers_per_pair": 1, "from_step": 0, "to_step": 0, "seed": 0}


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("videorl judge", __doc__)
    text = (
        "a run; or several folders of videos, paired by file name or prompt; or a study; or a JSON "
        "file of Label Studio's tasks"
    )
    parser.add_argument(
        "places", type=places.place, nargs="+", metavar="RUN|FOLDER|STUDY", help=text
    )
    text = "folder of a new study (default: judging/ and the names of the places)"
    parser.add_argument("--out", type=Path, help=text)
    new = parser.add_argument_group("a new study")
    text = "dimensions (VideoReward's three), overall (win, tie, loss) or VisionReward's checklist"
    new.add_argument("--mode", help=f"{text} (default: dimensions)")
    text = "of a run: chosen (it learned from them), random (two of a prompt) or held_out"
    new.add_argument("--pairs", help=f"{text} (default: chosen)")
    new.add_argument("--num-pairs", type=int, help="at most so many, drawn (default: 100)")
    new.add_argument("--from-step", type=int, help="first step of a run (default: 0)")
    new.add_argument("--to-step", type=int, help="last step of a run (default: the newest)")
    new.add_argument("--seed", type=int, help="of pairs, sides and order (default: 0)")
    any_study = parser.add_argument_group("any study")
    text = "people who judge each pair (default: 1)"
    any_study.add_argument("--answers-per-pair", type=int, help=text)
    text = "names that get a token each; without, whoever opens the page gives a name"
    any_study.add_argument("--annotators", nargs="+", default=[], metavar="NAME", help=text)
    text = "print agreement and strengths, and write report.md and report.json; no page"
    any_study.add_argument("--report", action="store_true", help=text)
    add_json(any_study, "as --report, as JSON")
    text = "add the annotations of Label Studio's JSON export; no page"
    any_study.add_argument("--from-label-studio", type=Path, metavar="FILE", help=text)
    text = "write tasks and answers for Label Studio, and its configuration as .xml; no page"
    any_study.add_argument("--to-label-studio", type=Path, metavar="FILE", help=text)
    text = "address of this machine to listen on; 0.0.0.0 lets everybody who reaches it in"
    command.add_option(parser, "--host", "127.0.0.1", text)
    command.add_option(parser, "--port", 8080, "port to listen on; 0 = any free one")
    text = "path below which a proxy shows the page, such as /lab/judge"
    command.add_option(parser, "--prefix", "", text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make a study or open it; serve its page until Ctrl-C, or do what was asked instead."""
    options = _parser().parse_args(argv)
    for name, least in _LEAST.items():
        if (value := getattr(options, name)) is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} must be >= {least}, got {value}")
    command.start_logging()
    folder, study = _study(options)

    from videorl.judging.annotators import add_annotators

    add_annotators(folder, options.annotators)
    if options.from_label_studio:
        _import(options.from_label_studio, folder, study)
    if options.to_label_studio:
        _export(options.to_label_studio, folder, study)
    if options.report or options.json:
        _report(folder, study, options)
    if not (options.report or options.json or options.from_label_studio or options.to_label_studio):
        _serve(folder, study, options)
    return 0


def _study(options: argparse.Namespace) -> tuple[Path, Study]:
    """Return the study that is named, or made of what is named, and its folder."""
    import dataclasses

    from videorl.judging import label_studio
    from videorl.judging.questions import mode_of
    from videorl.judging.sources import Wanted, pairs_of
    from videorl.judging.study import Study, is_study, open_study, read_study

    given_places: list[Path] = [places.here(given) for given in options.places]
    first = given_places[0]
    is_file = len(given_places) == 1 and first.suffix == ".json"
    if len(given_places) == 1 and is_study(first) and not isinstance(options.places[0], Path):
        raise ConfigError(
            f"{options.places[0]} is a study, which answers are written into: copy it to a folder "
            "of this machine, and give that"
        )
    if len(given_places) == 1 and is_study(first):
        _refuse(options, [*_OF_A_NEW_STUDY, "out"], f"{first} is a study, made before")
        study = read_study(first)
        if options.answers_per_pair:
            study = dataclasses.replace(study, answers_per_pair=options.answers_per_pair)
        return first, open_study(first, study)
    if is_file:
        fixed = [name for name in _OF_A_NEW_STUDY if name != "seed"]
        _refuse(options, fixed, "tasks of Label Studio are judged as they are")
    if len(given_places) > 1:
        _refuse(options, _OF_A_RUN, "it is about candidates of a run, and these are folders")
    if options.pairs == "held_out":
        _refuse(options, _OF_A_RUN[1:], "held-out videos are from before and after all steps")
    given = {
        name: default if (value := getattr(options, name)) is None else value
        for name, default in _OF_A_NEW_STUDY.items()
    }
    mode_of(given["mode"])
    names = "-vs-".join(Path(abspath(place)).name.removesuffix(".json") for place in given_places)
    folder = options.out or Path("judging") / names
    count = options.answers_per_pair or (
        read_study(folder).answers_per_pair if is_study(folder) else 1
    )
    if is_file:
        study = label_studio.study_of_tasks(first, given["seed"], count)
    else:
        mode = given.pop("mode")
        pairs = pairs_of(given_places, Wanted(**given))
        study = Study(mode, given["seed"], count, pairs)
    study = open_study(folder, study)
    print(f"study: {folder} ({len(study.pairs)} pairs)", file=sys.stderr)
    return folder, study


def _refuse(options: argparse.Namespace, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} cannot be set: {why}")


def _import(path: Path, folder: Path, study: Study) -> None:
    from videorl.judging.label_studio_answers import import_annotations
    from videorl.judging.opening import opened

    with opened(folder, study) as answers:
        found = import_annotations(path, answers, study)
    print(
        f"{path}: {found.num_new} answers are new, {found.num_known} were there before, "
        f"{sum(found.left_out.values())} annotations are left out"
    )


def _export(path: Path, folder: Path, study: Study) -> None:
    from videorl.judging.answers import complete_answers
    from videorl.judging.label_studio import export_tasks

    if path.suffix == ".xml":
        raise ConfigError(f"--to-label-studio must be the tasks' JSON file; {path} lies beside it")
    command.output_file(path, "--to-label-studio")
    export_tasks(path, study, complete_answers(folder, study))
    print(f"tasks: {path}; labelling interface: {path.with_suffix('.xml')}")


def _report(folder: Path, study: Study, options: argparse.Namespace) -> None:
    import dataclasses

    from videorl.files import write_json, write_text
    from videorl.judging.answers import complete_answers
    from videorl.judging.results import results_of, text_of

    found = results_of(study, complete_answers(folder, study))
    content, text = dataclasses.asdict(found), text_of(found)
    write_json(folder / "report.json", content)
    write_text(folder / "report.md", text)
    with results(options) as show:
        show(content, text.rstrip("\n"))


def _serve(folder: Path, study: Study, options: argparse.Namespace) -> None:
    with needing("videorl judge", "judge"):
        from videorl.pages.frame import serve
        from videorl.pages.judge import judge_app

    from videorl.judging.annotators import read_tokens
    from videorl.judging.opening import opened
    from videorl.judging.study import read_study

    with opened(folder, study) as answers:
        # Read while no other process can change them.
        study, tokens = read_study(folder), read_tokens(folder)
        for name, token in tokens.items():
            print(f"link of {name}: the address below with ?token={token}")
        serve(judge_app(study, answers, tokens), options.host, options.port, options.prefix)


if __name__ == "__main__":
    raise SystemExit(command.run(main))
