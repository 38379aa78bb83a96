"""A run has one id, whatever its folder is called and however often it goes on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from videorl.config import Recipe
from videorl.recipes.reading import load_recipe
from videorl.report import write_report
from videorl.run.folder import open_run
from videorl.run.overview import overview
from videorl.run.run_id import FILE, keep_run_id, older_id, read_run_id


def recipe(run_dir: Path) -> Recipe:
    return load_recipe("moving_shapes", [f"run_dir={run_dir}"])


def opened(run_dir: Path, *, from_scratch: bool = False) -> str:
    with open_run(recipe(run_dir), from_scratch=from_scratch):
        return read_run_id(run_dir)


def test_it_is_kept_over_resumes_and_moves_with_the_folder(tmp_path: Path) -> None:
    first = opened(tmp_path / "a/run")
    assert re.fullmatch(r"moving_shapes-[0-9a-f]{12}", first)
    assert opened(tmp_path / "a/run") == first
    shutil.move(tmp_path / "a/run", tmp_path / "renamed")
    assert opened(tmp_path / "renamed") == first


def test_two_runs_differ_though_recipe_seed_and_folder_name_are_the_same(tmp_path: Path) -> None:
    assert opened(tmp_path / "a/run") != opened(tmp_path / "b/run")
    before = read_run_id(tmp_path / "a/run")
    assert opened(tmp_path / "a/run", from_scratch=True) != before


def test_report_and_list_of_runs_name_it(tmp_path: Path) -> None:
    found = opened(tmp_path / "run")
    assert overview(tmp_path / "run").run_id == found
    assert f"<li>id <b>{found}</b></li>" in write_report(tmp_path / "run").read_text()


def test_a_run_of_an_older_version_goes_on_where_wandb_has_it(tmp_path: Path) -> None:
    opened(tmp_path / "my run")
    (tmp_path / "my run" / FILE).unlink()
    assert overview(tmp_path / "my run").run_id == ""
    (tmp_path / "my run/wandb").mkdir()
    assert opened(tmp_path / "my run") == older_id("my run")


def test_a_damaged_id_is_replaced_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\0")
    made = keep_run_id(tmp_path, "a/b: ü", is_new=False)
    assert re.fullmatch(r"a-b-[\w-]*-[0-9a-f]{12}", made, re.ASCII)
    assert read_run_id(tmp_path) == made
    assert "is damaged: trackers will show a new run" in caplog.text


def test_ids_of_older_versions_differ_where_names_do() -> None:
    assert older_id("moving_shapes-2.1") == "moving_shapes-2.1"
    odd = ["a b", "a/b", "a:b", "ä", "", "#", "?", "n" * 200, "n" * 201]
    ids = [older_id(name) for name in odd]
    assert len(set(ids)) == len(odd)
    assert all(0 < len(found) <= 64 and not set(found) & set(":;,#?/' ") for found in ids)
