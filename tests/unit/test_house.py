"""The plan of the house, computed from its files: layers, rooms, and what loads what.

A room is a first-level file or folder of `videorl/`, `actors/` or `jobs/`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("videorl", "actors", "jobs", "tests")
"""From the lowest to the highest: nothing may use what comes after it."""
PRODUCT = LAYERS[:-1]


@dataclass(frozen=True)
class Arrow:
    """A use of `target`, a module or folder, by the module `source`.

    `runs` tells an import, or a string that is a module's name (`[python, "-m", "jobs.x"]`), from
    a mention in a longer string: an error's text, or `module:attribute` in a table of plug points.
    A mention may not point up either, but closes no circle.
    """

    source: str
    target: str
    place: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.place}: {self.source} -> {self.target}"


def modules(root: Path) -> dict[str, Path]:
    """Return dotted name -> file of every module of the product."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for layer in PRODUCT
        for path in sorted((root / layer).rglob("*.py"))
    }


@cache
def arrows(root: Path) -> list[Arrow]:
    """Return every use of one of our modules or folders, wherever in a file it stands."""
    known = modules(root)
    found = []
    for source, path in known.items():
        tree = ast.parse(path.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        package = source if path.name == "__init__.py" else source.rpartition(".")[0]
        for node in ast.walk(tree):
            names = dict.fromkeys(imported(node, package), True)
            if isinstance(node, ast.Constant) and id(node) not in prose:
                names = {name: name == node.value in known for name in named(node.value)}
            for name, runs in names.items():
                target = nearest(name, known) if runs else name
                if target != source and target.partition(".")[0] in LAYERS:
                    place = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
                    found.append(Arrow(source, target, place, runs))
    return found


def imported(node: ast.AST, package: str) -> list[str]:
    """Return the absolute names that an import statement inside of `package` asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    start = node.module or ""
    if node.level:
        start = ".".join([*package.split(".")[: package.count(".") + 2 - node.level], start])
    return [f"{start.rstrip('.')}.{alias.name}" for alias in node.names]


def named(text: object) -> list[str]:
    """Return, with dots, the modules, files and folders of the product that a string names."""
    if not isinstance(text, str):
        return []
    if text in PRODUCT:
        return [text]
    pattern = rf"(?<![\w./-])(?:{'|'.join(PRODUCT)})[./](?:\w+[./])*\w+"
    return [match.replace("/", ".") for match in re.findall(pattern, text)]


def nearest(name: str, known: Collection[str]) -> str:
    """Return the module that holds `name`: the longest known prefix."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 1, -1))
    return next((prefix for prefix in prefixes if prefix in known), parts[0])


def layer(name: str) -> int:
    return LAYERS.index(name.partition(".")[0])


def pointing_up(root: Path) -> list[str]:
    """Return the arrows from a layer to a higher one."""
    return [str(arrow) for arrow in arrows(root) if layer(arrow.target) > layer(arrow.source)]


def room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def circle(found: Collection[Arrow], unit: Callable[[str], str] = str) -> list[str]:
    """Return the arrows that close a circle between units (files, or rooms); empty if none does."""
    uses: dict[str, set[str]] = {}
    used = [arrow for arrow in found if arrow.runs]
    for arrow in used:
        if unit(arrow.source) != unit(arrow.target):
            uses.setdefault(unit(arrow.source), set()).add(unit(arrow.target))
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        used_then_user = error.args[1]
        steps = set(zip(used_then_user[1:], used_then_user, strict=False))
        return sorted(
            {str(arrow) for arrow in used if (unit(arrow.source), unit(arrow.target)) in steps}
        )
    return []


def test_layers_point_down() -> None:
    found = pointing_up(ROOT)
    assert not found, "\n".join(found)


def test_no_circle_of_rooms() -> None:
    found = circle(arrows(ROOT), room)
    assert not found, "\n".join(found)


def test_no_circle_of_files() -> None:
    found = circle(arrows(ROOT))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "most"), [("videorl", 16), ("actors", 20)])
def test_the_hall_stays_small(name: str, most: int) -> None:
    hall = sorted(path.name for path in (ROOT / name).glob("*.py"))
    assert "__init__.py" in hall
    assert len(hall) <= most, f"{name}/ is for what belongs in no folder: {hall}"


def test_importing_all_of_videorl_loads_no_ray() -> None:
    names = [name for name in modules(ROOT) if room(name).startswith("videorl")]
    assert "videorl.config" in names
    program = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(name)
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"ray", "actors", "jobs"}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_reading_a_recipe_loads_neither_torch_nor_numpy() -> None:
    program = """
import sys
from videorl.recipes.reading import load_recipe
load_recipe("moving_shapes", ["num_steps=2"])
print({"torch", "numpy"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n", done.stderr


def test_what_pool_workers_import_is_little() -> None:
    """Each of them pays for it at its start; the libraries of a policy come with the policy."""
    program = """
import sys
from actors.reward import load_reward
from videorl.config import RewardConfig
load_reward(RewardConfig(name="moving_shapes"))
print({"torch", "pandas"} & set(sys.modules))
import actors.generator, actors.encoder, actors.processes.policy_loading, actors.store.archive
print({"pandas", "ray.train", "diffusers", "transformers"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\nset()\n", done.stdout + done.stderr


def build(root: Path, files: dict[str, str]) -> Path:
    """Write a small tree of three layers, with `files` in it."""
    empty = {f"{folder}/__init__.py": "" for folder in PRODUCT}
    for name, text in (empty | {"videorl/data/__init__.py": ""} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"actors/a.py": "def f():\n    from jobs import train\n"}, "actors/a.py:2: .* -> jobs"),
        ({"videorl/a.py": "import actors.pool as pool\n"}, "videorl/a.py:1: .* -> actors"),
        ({"jobs/a.py": "from tests import tiny\n"}, "jobs/a.py:1: jobs.a -> tests"),
        ({"actors/a.py": 'run(["python", "-m", "jobs.scale"])\n'}, "-> jobs.scale"),
        ({"videorl/a.py": 'x = 1\nraise E(f"python -m jobs.x {x}")\n'}, "py:2: .* -> jobs.x"),
        ({"videorl/data/a.py": 'read("actors/pool/sizes.json")\n'}, "-> actors.pool.sizes.json"),
        ({"actors/a.py": 'PACKAGES = ("videorl", "jobs")\n'}, "actors.a -> jobs"),
    ],
)
def test_an_arrow_that_points_up_is_seen(files: dict[str, str], said: str, tmp_path: Path) -> None:
    found = pointing_up(build(tmp_path, files))
    assert len(found) == 1, found
    assert re.search(said, found[0]), found


def test_a_docstring_and_an_arrow_that_points_down_are_no_fault(tmp_path: Path) -> None:
    files = {
        "videorl/a.py": '"""Run by `python -m jobs.train`, shown in `actors/run.py`."""\n',
        "videorl/b.py": 'what = "jobs and actors are paid per-jobs/hour"\n',
        "actors/a.py": "from videorl import a\n",
        "jobs/a.py": 'from actors.a import x\nrun("-m", "jobs.b")\n',
    }
    assert pointing_up(build(tmp_path, files)) == []


def test_a_circle_is_named_by_its_arrows(tmp_path: Path) -> None:
    files = {
        "videorl/data/read.py": "from ..score import total\n",
        "videorl/data/write.py": "import json\n",
        "videorl/score.py": "if TYPE_CHECKING:\n    from videorl.data import write\n",
        "videorl/loop.py": "from videorl import data, score\n",
    }
    found = arrows(build(tmp_path, files))
    assert circle(found) == []
    assert circle(found, room) == [
        "videorl/data/read.py:1: videorl.data.read -> videorl.score",
        "videorl/score.py:2: videorl.score -> videorl.data.write",
    ]
    (tmp_path / "videorl/data/write.py").write_text("def late():\n    from . import read\n")
    arrows.cache_clear()
    assert len(circle(arrows(tmp_path))) == 3


def test_a_module_named_for_another_process_closes_a_circle(tmp_path: Path) -> None:
    files = {
        "jobs/a.py": "import jobs.bench.b\n",
        "jobs/bench/b.py": 'run([sys.executable, "-m", "jobs.a"])\n',
    }
    assert len(circle(arrows(build(tmp_path, files)), room)) == 2
