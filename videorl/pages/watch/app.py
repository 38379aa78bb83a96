"""The application behind `videorl watch`: which page is where, and which files are handed out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI
from nicegui import ui

from videorl.errors import RunFolderError
from videorl.pages.frame import build
from videorl.pages.watch.run_page import show_run
from videorl.pages.watch.runs_page import show_runs
from videorl.pages.watch.watched import WatchedRun
from videorl.run.overview import run_folders, run_name
from videorl.watch.all_runs import RunsReader

_HERE = Path(__file__).parent
RESPONSE_S = 60.0
"""How long a page may take to be made, from a slow disk for instance; NiceGUI gives up after 3."""


def watch_app(root: Path) -> FastAPI:
    """Return the application for one run, or for all runs of a folder; it only reads.

    Raises:
        RunFolderError: There is no such folder, or no run in it.
    """
    if not root.is_dir():
        raise RunFolderError(f"there is no folder {root}; name a run folder, or a folder of runs")
    root = root.resolve()
    if not run_folders(root):
        raise RunFolderError(
            f"{root} holds no run: a run folder has a config.yaml, which `videorl train RECIPE` "
            "writes when it begins"
        )
    return build(f"videorl: {root.name}", {"files": root}, lambda app: _register(root))


def _register(root: Path) -> None:
    style, script = (_HERE.joinpath(name).read_text("utf-8") for name in ("watch.css", "watch.js"))
    ui.add_head_html(f"<style>{style}</style><script>{script}</script>", shared=True)
    # Pages know it from the start, though they load it later.
    _ = ui.echart
    is_run = (root / "config.yaml").is_file()
    watched: dict[str, WatchedRun] = {}

    all_runs = RunsReader(root)

    async def open_run(name: str) -> WatchedRun | None:
        """Return a run of the folder; one that appeared since the start is found too."""
        if name not in watched:
            folders = await asyncio.to_thread(run_folders, root)
            found = {run_name(folder, root): folder for folder in folders}
            if name in found:
                files = "/files" if name == "." else f"/files/{quote(name)}"
                # Another browser may have opened it meanwhile.
                called = root.name if name == "." else name
                watched.setdefault(name, WatchedRun(found[name], files, called))
        return watched.get(name)

    @ui.page("/", response_timeout=RESPONSE_S)
    async def home(tab: str = "") -> None:  # pyright: ignore[reportUnusedFunction]
        if is_run and (found := await open_run(".")):
            await show_run(found, tab)
        else:
            await show_runs(root, all_runs)

    @ui.page("/run/{name:path}", response_timeout=RESPONSE_S)
    async def one_run(name: str, tab: str = "") -> None:  # pyright: ignore[reportUnusedFunction]
        if found := await open_run(name):
            await show_run(found, tab, back="/")
        else:
            ui.label(f"there is no run {name} in {root}").classes("note")
