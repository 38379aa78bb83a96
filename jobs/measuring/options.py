"""The options of `videorl measure`, and which of them contradict each other."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from jobs import command
from jobs.results import add_json
from videorl.measures.vbench import IN_PACKAGE, QUALITY

VBENCH = tuple(name.replace(" ", "_") for name in QUALITY)
FVD, FVD_I3D, DIVERSITY = "fvd", "fvd_i3d", "diversity"
MOTION, MOVED_LIGHT = "motion_magnitude", "moved_light"
METRICS = (*VBENCH, FVD, FVD_I3D, DIVERSITY, MOTION, MOVED_LIGHT)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all of them."""
    text = "a folder of videos, a table or a run's archive, as in `videorl score`"
    parser.add_argument("folders", nargs="*", metavar="[NAME=]FOLDER", help=text)
    _add_policies(parser)
    _add_metrics(parser)
    text = "results of the vbench package for a folder (..._eval_results.json)"
    parser.add_argument("--vbench", nargs="+", default=[], metavar="NAME=FILE", help=text)
    text = "where a network lies, of dino, clip_b, clip_l, aesthetic_head (default: hub ids)"
    parser.add_argument("--vbench-model", nargs="+", default=[], metavar="NAME=PLACE", help=text)
    text = (
        "an environment with the vbench package, which measures motion smoothness, dynamic degree "
        "and imaging quality: its folder or its Python (default: $VIDEORL_VBENCH_PYTHON)"
    )
    parser.add_argument("--vbench-python", metavar="PYTHON", help=text)
    text = "scores of a folder by one model, from `videorl score`, for win rates"
    parser.add_argument("--scores", nargs="+", default=[], metavar="NAME=FILE", help=text)
    command.add_option(parser, "--tie", 0.0, "scores that differ by no more are a tie")
    text = "answers of people: the folder of a study of `videorl judge` on the same videos"
    parser.add_argument("--answers", nargs="+", default=[], metavar="STUDY", type=Path, help=text)
    text = "a table with `video` and `prompt`, which names every clip of each folder"
    parser.add_argument("--prompts", type=Path, help=text)
    text = "go on with the prompts that all folders have"
    parser.add_argument("--shared", action="store_true", help=text)
    text = "cut all clips to the shortest, smallest and slowest"
    parser.add_argument("--resample", action="store_true", help=text)
    text = "measured.json of an earlier call, for --fail-if"
    parser.add_argument("--baseline", type=Path, metavar="FILE", help=text)
    text = (
        "fail (exit code 1) if a change from the baseline is so large: 'total < -1 %%'; repeatable"
    )
    parser.add_argument("--fail-if", action="append", default=[], metavar="RULE", help=text)
    text = "compare with a baseline of other prompts, seeds, sampling, networks or weights, too"
    parser.add_argument("--accept-baseline", action="store_true", help=text)
    command.add_option(parser, "--out", Path("measured"), "folder of the results")
    add_json(parser)


def _add_policies(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("policies, which are sampled first")
    text = (
        "NAME = the recipe's policy; a PLACE is a run (RUN@STEP = a kept checkpoint), an adapter, "
        "or another checkpoint of the family"
    )
    group.add_argument("--policy", nargs="+", default=[], metavar="NAME[=PLACE]", help=text)
    text = "whose policy and sampling settings are used (default: moving_shapes)"
    group.add_argument("--recipe", metavar="RECIPE", help=text)
    text = "prompts: a file, `vbench[:DIMENSION]`, ... (default: the recipe's evaluation.source)"
    group.add_argument("--suite", metavar="SOURCE", help=text)
    group.add_argument("--num-prompts", type=int, help="evenly spaced, so many (default: all)")
    group.add_argument("--samples", type=int, help="videos of each prompt (default: 1)")
    group.add_argument("--seed", type=int, help="seed of the initial noise (default: 0)")
    text = "settings of the recipe to change"
    group.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help=text)
    group = parser.add_argument_group("reward models, for win rates")
    group.add_argument(
        "--reward",
        nargs="+",
        default=[],
        metavar="NAME[=PATH]",
        help="score every folder with these models",
    )
    text = "a recipe, or a YAML file with `rewards:` only"
    group.add_argument("--rewards", metavar="RECIPE", help=text)
    group = parser.add_argument_group("where to sample and score")
    group.add_argument("--local", action="store_true", help="in this process, without Ray")
    command.add_address(parser)


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    usual = ["temporal_flickering"]
    command.add_option(
        parser, "--metric", usual, "what is measured", choices=METRICS, metavar="METRIC"
    )
    parser.epilog = "metrics: " + ", ".join(METRICS)
    parser.add_argument("--reference", metavar="FOLDER", help="real clips, for fvd and fvd_i3d")
    text = "VideoMAE of transformers, for fvd and diversity: a folder or an id of the hub"
    parser.add_argument("--video-mae", metavar="CHECKPOINT", help=text)
    text = "the folder of i3d_torchscript.pt, or that file, for fvd_i3d"
    parser.add_argument("--i3d", metavar="FOLDER", help=text)
    command.add_option(parser, "--frame-step", 1, "FVD and diversity read every Nth frame")
    parser.add_argument("--device", default="", help="of networks; default: a GPU if there is one")
    command.add_option(parser, "--workers", 1, "threads that decode and measure clips")
    text = "FVD also extrapolated to infinitely many clips"
    parser.add_argument("--at-infinity", action="store_true", help=text)
    text = "FVD also of fewer clips than it has features"
    parser.add_argument("--few-clips", action="store_true", help=text)


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that contradict each other, or have no effect."""
    if not (options.folders or options.policy):
        parser.error("nothing to measure: give folders, or policies with --policy")
    _check_needs(parser, options)
    without = {
        (FVD, FVD_I3D): ("reference", "at_infinity", "few_clips"),
        (FVD, DIVERSITY): ("video_mae",),
        (FVD_I3D,): ("i3d",),
        (FVD, FVD_I3D, DIVERSITY): ("frame_step",),
        tuple(name.replace(" ", "_") for name in IN_PACKAGE): ("vbench_python",),
    }
    for metrics, names in without.items():
        changed = [name for name in names if getattr(options, name) != parser.get_default(name)]
        if changed and not set(metrics) & set(options.metric):
            option, metric = changed[0].replace("_", "-"), " or ".join(metrics)
            parser.error(f"--{option} has no effect without --metric {metric}")
    has_scores = options.scores or options.reward or options.rewards
    if options.tie and not has_scores:
        parser.error("--tie has no effect without scores")
    if not 0 <= options.tie < math.inf:
        parser.error(f"--tie must be 0 or more, got {options.tie}")
    for name in ("frame_step", "workers"):
        if (count := getattr(options, name)) < 1:
            parser.error(f"--{name.replace('_', '-')} must be >= 1, got {count}")
    if bool(options.baseline) != bool(options.fail_if):
        parser.error("--baseline and --fail-if go together, got only one of them")
    if options.accept_baseline and not options.baseline:
        parser.error("--accept-baseline has no effect without --baseline")
    _check_policies(parser, options)


def _check_needs(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if FVD in options.metric and not (options.reference and options.video_mae):
        parser.error("fvd needs real clips (--reference) and a checkpoint (--video-mae)")
    if FVD_I3D in options.metric and not (options.reference and options.i3d):
        parser.error("fvd_i3d needs real clips (--reference) and the folder of I3D (--i3d)")
    if DIVERSITY in options.metric and not options.video_mae:
        parser.error("diversity needs a checkpoint (--video-mae)")


def _check_policies(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.policy:
        for name in ("recipe", "suite", "num_prompts", "samples", "seed", "set"):
            if getattr(options, name) not in (None, []):
                option = name.replace("_", "-")
                parser.error(f"--{option} has no effect without --policy")
    for name in ("num_prompts", "samples"):
        if (count := getattr(options, name)) is not None and count < 1:
            parser.error(f"--{name.replace('_', '-')} must be >= 1, got {count}")
    if options.policy and options.prompts:
        parser.error("--prompts is for folders of videos; the prompts of policies are --suite")
    if options.local and options.address:
        parser.error("--local samples in this process, so that --address has no effect")
