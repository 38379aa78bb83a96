"""A wheel built from the tree holds all of it, and works far from the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("videorl", "actors", "jobs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy: a `build/` left in the tree would add files that are gone."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    python(
        ["-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", "dist", "--quiet"],
        source,
    )
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel, which is all that installing a pure one does but for the scripts."""
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def python(arguments: list[str], folder: Path, *paths: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file())
    assert held == {
        path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts
    }
    assert {f"{name}/py.typed" for name in PACKAGES} <= held


def test_an_installed_wheel_trains_far_from_the_tree(installed: Path, tmp_path: Path) -> None:
    settings = [
        "run_dir=run",
        "num_steps=1",
        "prompts.per_round=1",
        "prompts.candidates_per_prompt=2",
        "sampling.num_inference_steps=2",
        "selection.min_margin=0",
        "evaluation.source=",
    ]
    program = f"""
import videorl
from videorl.one_process import run
from videorl.recipes.reading import load_recipe
from videorl.run.folder import open_run

recipe = load_recipe("moving_shapes", {settings})
with open_run(recipe) as folder:
    assert run(recipe, folder, lambda: False)
print(videorl.__file__)
"""
    printed = python(["-c", program], tmp_path, installed)
    assert printed.splitlines()[-1] == str(installed / "videorl/__init__.py")
    assert (tmp_path / "run/summary.json").is_file()


def test_the_installed_commands_answer(installed: Path, tmp_path: Path) -> None:
    recipes = python(["-m", "jobs.cli", "recipes"], tmp_path, installed)
    assert "moving_shapes" in recipes
    assert "moving_shapes_reward" in recipes
    text = python(["-m", "jobs.cli", "recipes", "moving_shapes"], tmp_path, installed)
    assert "moving_shapes_wan" in text


def test_the_doctor_needs_no_checkout(installed: Path, tmp_path: Path) -> None:
    program = """
from jobs import doctor

assert not doctor.CONSTRAINTS.exists()
print([finding for finding in doctor.check_packages() if finding.status != "ok"])
print(doctor._REINSTALL_VIDEO, doctor._RESTORE, sep=";")
"""
    printed = python(["-c", program], tmp_path, installed).splitlines()
    assert printed == ["[]", "pip install --force-reinstall av;install videorl again"]
