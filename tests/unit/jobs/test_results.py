"""What commands print for programs, and what they show while they work: of all from one table."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from jobs import cli, doctor
from jobs.command import parser_of
from jobs.findings import Finding
from jobs.results import as_strict_json
from tests.adapters import matrices, old_diffusers
from tests.small_runs import SETTINGS
from tests.studies import two_folders
from tests.unit.jobs.test_top import run_of
from videorl.recipes.reading import load_recipe
from videorl.run.folder import RunFolder, open_run
from videorl.run.pool_sizes import PoolSize, PoolState, write_states

ROOT = Path(cli.__file__).resolve().parents[1]
PACE = r"{label}: {done}/{done}  .*(/s|s each), all done"


def table() -> dict[str, list[str]]:
    """Return command -> cells of the table in the documentation."""
    text = (ROOT / "docs/operations.md").read_text()
    section = text.partition("### For programs, and for those who wait")[2].partition("###")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", section, re.MULTILINE)
    return {name: cells for name, *cells in rows}


def test_the_table_has_every_command_and_says_which_print_json() -> None:
    documented = {name: not prints.startswith("no: ") for name, (prints, _) in table().items()}
    found: dict[str, bool] = {}
    for name, (module, _) in cli.COMMANDS.items():
        main = import_module(module).main
        parser = None if name == "completion" else parser_of(main)
        found[name] = parser is not None and "--json" in parser._option_string_actions
    assert documented == found


@pytest.fixture
def words(
    tmp_path: Path, tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[object]]:
    """The words of each command that needs neither Ray nor minutes."""
    from safetensors.torch import save_file

    run = run_of(tmp_path / "runs/first")
    with open_run(load_recipe("moving_shapes", [f"run_dir={tmp_path / 'begun'}"])):
        pass  # a run that has begun
    adapter = tmp_path / "adapter/pytorch_lora_weights.safetensors"
    adapter.parent.mkdir()
    save_file(old_diffusers(matrices(tiny_checkpoints["wan"])), adapter)
    folders = two_folders(tmp_path, 2)
    # Its other checks are real; a cluster of its own would take half a minute.
    monkeypatch.setattr(doctor, "check_ray", lambda _: Finding("Ray", "ok", "not asked"))
    settings = {**SETTINGS, "policy.path": tiny_checkpoints["wan"]}
    recipe = ["--set", *(f"{key}={value}" for key, value in settings.items())]
    out = tmp_path / "out"
    return {
        "doctor": [],
        "recipes": ["moving_shapes", "seed=3"],
        "fetch": ["moving_shapes"],
        "runs": [run.parent],
        "top": [run],
        "judge": [*folders, "--mode", "overall", "--out", out / "study"],
        "scale": [run],
        "audit": [tmp_path / "begun"],
        "compare": [run, tmp_path / "begun", "--out", out / "page.html"],
        "export": [adapter, "--format", "kohya", "--out", out / "a.safetensors"],
        "measure": [*folders, "--out", out / "measured"],
        "sample": ["a red circle", "--num", "2", "--out", out / "videos", *recipe],
    }


OF_RAY = {"plan", "evaluate", "score", "evaluate_reward"}
"""Tried elsewhere: in tests/unit/jobs/test_plan.py, and on a cluster in tests/ray."""


def test_json_is_all_there_is_on_standard_output(
    words: dict[str, list[object]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = {name for name, (prints, _) in table().items() if not prints.startswith("no: ")}
    assert set(words) == asked - OF_RAY
    found: dict[str, Any] = {}
    shown: dict[str, str] = {}
    with beating(RunFolder(tmp_path / "runs/first")):
        for name, given in words.items():
            said = [*map(str, given)]
            json_last = said.index("--set") if "--set" in said else len(said)
            assert cli.main([name, *said[:json_last], "--json", *said[json_last:]]) in (0, 1), name
            printed = capfd.readouterr()
            found[name], shown[name] = json.loads(printed.out), printed.err
    assert found["recipes"]["seed"] == 3
    assert found["fetch"] == []
    assert found["scale"]["generator"]["workers"] == 3
    assert [run["step"] for run in found["runs"]] == [5]
    (written,) = found["export"]
    assert (written["layers"], written["ranks"], written["alphas"]) == (14, [4], [4.0])
    assert [Path(one["file"]).name for one in found["sample"]] == ["000-00.mp4", "000-01.mp4"]
    assert {finding["status"] for finding in found["doctor"]} <= {"ok", "warning", "broken"}
    assert re.search(PACE.format(label="prompts", done=1), shown["sample"])
    assert re.search(PACE.format(label="clips, opened and measured", done=8), shown["measure"])


@contextmanager
def beating(folder: RunFolder) -> Iterator[None]:
    """Write the states of a run's pools again and again meanwhile, as its driver does."""
    over, size = threading.Event(), PoolSize(1, 4)
    states = {"generator": PoolState(size, size, 3, 0, 3, 7)}

    def beat() -> None:
        number = 0
        while not over.wait(0.05):
            number += 1
            write_states(folder, number, states)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_what_is_not_finite_is_null() -> None:
    value = {"a": math.nan, "b": [1.0, -math.inf], "c": (Path("x"), True)}
    assert json.loads(as_strict_json(value)) == {"a": None, "b": [1.0, None], "c": ["x", True]}
