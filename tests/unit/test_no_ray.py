"""The direction of imports: jobs -> actors -> videorl, and the algorithm runs without Ray."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_importing_all_of_videorl_loads_no_ray() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "videorl").rglob("*.py"))
    ]
    assert "videorl.config" in modules
    program = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"ray", "actors", "jobs"}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_actors_never_import_jobs() -> None:
    imports = {name for path in (ROOT / "actors").rglob("*.py") for name in imported(path)}
    assert "videorl" in imports
    assert "jobs" not in imports


def test_the_schema_of_recipes_loads_neither_torch_nor_numpy() -> None:
    program = "import sys, videorl.recipes.reading; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n"


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level package of every import statement, nested ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
