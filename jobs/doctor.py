"""Check this machine: what is installed, what works, and what to do about the rest.

    videorl doctor
    videorl doctor --recipe moving_shapes
    videorl doctor --recipe my_recipe.yaml run_dir=/shared/runs/first --address auto
    videorl doctor --recipe moving_shapes_learned_reward --sanity

With a recipe, its models, prompts, workers, memory and disk are compared with this machine, or with
every node of the cluster at --address, whose versions must agree. The plan's memory of each role is
held against the GPUs of each node. The hub is asked whether it has what the recipe names; nothing
but small configuration files is downloaded. Exit code 1 = something is broken. With --sanity its
reward models score clips as they are and spoiled on purpose, in this process, which loads them.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from jobs import command
from jobs.recipe_checks import CHECKS, Finding, models_of, pin_and_check
from jobs.results import add_json, results

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
"""The tested versions; only a checkout has the file, an installed wheel does not."""
MIN_MEMORY_GB = 4.0
MIN_DISK_GB = 2.0
_PINNED = f" -c {CONSTRAINTS}" if CONSTRAINTS.is_file() else ""
_REINSTALL_VIDEO = f"pip install --force-reinstall{_PINNED} av"
_RESTORE = "git checkout -- videorl/worlds" if CONSTRAINTS.is_file() else "install videorl again"


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of findings; return 1 if something is broken."""
    parser = command.new_parser("videorl doctor", __doc__)
    default = os.environ.get("RAY_ADDRESS", "local")
    text = "Ray cluster to reach, e.g. auto or 10.0.0.1:6379; local starts one"
    command.add_option(parser, "--address", default, text)
    parser.add_argument("--recipe", help="check what this recipe needs too")
    command.add_overrides(parser, "settings of the recipe to change")
    add_json(parser)
    text = "spoil clips, and see what the recipe's rewards make of it: a folder, or Moving Shapes"
    parser.add_argument("--sanity", nargs="?", const="moving_shapes", metavar="FOLDER", help=text)
    options = parser.parse_intermixed_args(argv)
    if options.overrides and not options.recipe:
        parser.error("settings belong to a recipe: give --recipe")
    if options.sanity and not options.recipe:
        parser.error("--sanity needs the rewards of a recipe: give --recipe")
    with results(options) as print_result:
        findings = _findings(options)
        if options.json:
            print_result([dataclasses.asdict(finding) for finding in findings], "")
        else:
            show(findings)
    return int(any(finding.status == "broken" for finding in findings))


def _findings(options: argparse.Namespace) -> list[Finding]:
    address = options.address
    findings = [
        check_python(),
        *check_packages(),
        check_machine(),
        check_disk(Path.cwd()),
        attempt("GPU", check_gpus, "reinstall torch for this machine's driver"),
        attempt("video", check_video, _REINSTALL_VIDEO),
        attempt("checkpoint", check_checkpoint, _RESTORE),
        attempt("Ray", lambda: check_ray(address), "see the message; `ray status` tells more"),
    ]
    if options.recipe:
        findings += check_recipe(options.recipe, options.overrides, address)
        findings += _sanity(options) if options.sanity else []
    return findings


def _sanity(options: argparse.Namespace) -> list[Finding]:
    from jobs.reward_checks import check_sanity
    from videorl.recipes.reading import load_recipe

    return check_sanity(load_recipe(options.recipe, options.overrides).rewards, options.sanity)


def check_recipe(name: str, overrides: Sequence[str], address: str) -> list[Finding]:
    """Compare a recipe with this machine, or with every node of the cluster at `address`.

    Raises:
        ConfigError: The recipe is wrong.
        ResourceError: There is no cluster at `address`.
    """
    from videorl.recipes.reading import load_recipe
    from videorl.run.node_facts import facts_here

    recipe = load_recipe(name, overrides)
    findings = pin_and_check(recipe)
    asked = (recipe.run_dir, models_of(recipe))
    if address == "local":
        nodes = [facts_here(*asked)]
    else:
        from actors.cluster import connect, facts_of_nodes

        with connect(address):
            nodes = facts_of_nodes(*asked)
    for check in CHECKS:
        try:
            findings += check(recipe, nodes)
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            findings.append(Finding(name, "broken", f"{type(error).__name__}: {error}", "see it"))
    return findings


def show(findings: Sequence[Finding]) -> None:
    """Print the table, then every fix as a line that can be copied whole."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warning": "yellow", "broken": "red"}
    table = Table("check", "status", "found", title="videorl doctor")
    for finding in findings:
        status = Text(finding.status, style=colours[finding.status])
        table.add_row(finding.name, status, Text(finding.found))
    console = Console()
    console.print(table)
    for finding in findings:
        if finding.fix:
            console.print(Text(f"{finding.name} {finding.status}: {finding.fix}"), soft_wrap=True)


def check_python() -> Finding:
    """Name the interpreter; pip refuses to install on one that is too old."""
    return Finding("Python", "ok", f"{platform.python_version()} ({sys.executable})")


def check_packages() -> list[Finding]:
    """Compare every direct dependency with its requirement and with the pinned version."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in metadata.requires("videorl") or ()]
    except metadata.PackageNotFoundError:
        fix = "run `make setup`, or pip install --no-deps -e . in the repository"
        return [Finding("packages", "broken", "videorl itself is not installed", fix)]
    pins = _read_pins()
    direct = [requirement for requirement in requirements if requirement.marker is None]
    return [check_package(r.name, str(r.specifier), pins.get(r.name)) for r in direct]


def check_package(name: str, specifier: str, pin: str | None) -> Finding:
    """Compare one installed package with what it should be."""
    from packaging.specifiers import SpecifierSet

    wanted = pin or specifier.removeprefix(">=")
    install = f"pip install {name}=={wanted}"
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "broken", "missing", install)
    if not SpecifierSet(specifier).contains(found, prereleases=True):
        return Finding(name, "broken", f"{found}, needs {specifier}", install)
    if pin and found.partition("+")[0] != pin:
        return Finding(name, "warning", found, f"tested with {pin}: {install}")
    return Finding(name, "ok", found)


def _read_pins() -> dict[str, str]:
    """Return package -> version of the constraints file; empty outside a checkout."""
    if not CONSTRAINTS.is_file():
        return {}
    lines = (line.partition("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines())
    return {name: version for name, _, version in (line.partition("==") for line in lines) if name}


def check_machine() -> Finding:
    """Count the cores that this process may use, and the memory."""
    import psutil

    memory_gb = psutil.virtual_memory().total / 1e9
    cores = len(psutil.Process().cpu_affinity() or ()) or psutil.cpu_count()
    found = f"{cores} cores, {memory_gb:.1f} GB of memory"
    if memory_gb >= MIN_MEMORY_GB:
        return Finding("machine", "ok", found)
    fix = f"the smallest recipe needs {MIN_MEMORY_GB:.0f} GB of memory: use a larger machine"
    return Finding("machine", "broken", found, fix)


def check_disk(directory: Path) -> Finding:
    """Check the free space of `directory`, under which run folders are written."""
    free_gb = shutil.disk_usage(directory).free / 1e9
    found = f"{free_gb:.1f} GB free in {directory}"
    if free_gb >= MIN_DISK_GB:
        return Finding("disk", "ok", found)
    fix = f"free {MIN_DISK_GB:.0f} GB, or set run_dir= to another disk"
    return Finding("disk", "broken", found, fix)


def check_gpus() -> Finding:
    """List the CUDA devices after one real computation on each."""
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", "ok", "none; everything runs on the CPU")
    names: list[str] = []
    for index in range(torch.cuda.device_count()):
        torch.ones(8, 8, device=f"cuda:{index}").matmul(torch.ones(8, 8, device=f"cuda:{index}"))
        properties = torch.cuda.get_device_properties(index)
        names.append(f"{properties.name}, {properties.total_memory / 1e9:.0f} GB")
    return Finding("GPU", "ok", "; ".join(names))


def check_video() -> Finding:
    """Write a small mp4 and read it back."""
    import numpy as np

    from videorl.data.video_io import read_video, write_mp4
    from videorl.types import Video

    written = Video(np.full((4, 32, 32, 3), 200, dtype=np.uint8), fps=8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "round_trip.mp4"
        write_mp4(path, written)
        read = read_video(path)
    error = int(np.abs(read.frames.astype(int) - written.frames).max())
    found = f"mp4 written and read back, {len(read.frames)} frames, largest error {error} of 255"
    if read.frames.shape == written.frames.shape and error <= 8:
        return Finding("video", "ok", found)
    return Finding("video", "broken", found, _REINSTALL_VIDEO)


def check_checkpoint() -> Finding:
    """Open the shipped policy as any diffusers user would."""
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline

    from videorl.policies.checkpoints import SHIPPED

    path = SHIPPED["moving_shapes_wan"]
    if not path.is_dir():
        return Finding("checkpoint", "broken", f"no folder {path}", _RESTORE)
    pipeline = WanPipeline.from_pretrained(str(path), local_files_only=True)
    millions = sum(p.numel() for p in pipeline.transformer.parameters()) / 1e6
    return Finding("checkpoint", "ok", f"moving_shapes_wan opens, {millions:.1f} M parameters")


def check_ray(address: str) -> Finding:
    """Start Ray here, or reach a running cluster, and run one task on it."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    try:
        # A built-in function: the cluster need not have this project installed to run it.
        answer = ray.get(ray.remote(platform.python_version).remote(), timeout=60)
        resources = ray.cluster_resources()
    finally:
        ray.shutdown()
    place = "started here" if address == "local" else f"at {address}"
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    return Finding("Ray", "ok", f"{place}: {cpus:.0f} CPUs, {gpus:.0f} GPUs, Python {answer}")


def attempt(name: str, check: Callable[[], Finding], fix: str) -> Finding:
    """Turn whatever a broken installation raises into a finding."""
    try:
        return check()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return Finding(name, "broken", f"{type(error).__name__}: {lines[0]}", fix)


if __name__ == "__main__":
    raise SystemExit(command.run(main))
