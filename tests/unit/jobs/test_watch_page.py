"""The pages of `videorl watch` in a real browser, and what they refuse."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from jobs.watching import served
from tests.unit.jobs.browsing import answer_to, needs_chromium, opened_browser
from tests.watched_runs import make_run, write_step
from videorl.errors import ConfigError, RunFolderError, VideorlError
from videorl.pages.frame import serve
from videorl.pages.watch.app import watch_app
from videorl.pages.watch.run_page import TABS

PREFIX = "/lab/watch"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, of which the first is still short."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "first", 2)
    make_run(folder / "deep/second", 1, num_frames=2)
    (folder / "secret.txt").write_text("secret")
    (folder / "first/out.mp4").symlink_to("/etc/hostname")
    return folder


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[str]:
    """The address of the page, without the prefix, as a proxy that cuts it off would ask."""
    with served(root, "--prefix", PREFIX) as url:
        assert url.endswith(f"{PREFIX}/")
        yield url.removesuffix(f"{PREFIX}/")


def get(url: str, **headers: str) -> tuple[int, bytes]:
    status, _, content = answer_to(url, **headers)
    return status, content


def test_files_come_whole_or_in_ranges_and_only_videos_of_the_folder(
    server: str, root: Path
) -> None:
    path = "files/first/archive/videos/step-000000/r000000-p000000-c00.mp4"
    content = (root / path.removeprefix("files/")).read_bytes()
    for url in (f"{server}/{path}", f"{server}{PREFIX}/{path}"):
        assert get(url) == (200, content)
    assert get(f"{server}/{path}", Range="bytes=5-9") == (206, content[5:10])
    for wrong in (
        "secret.txt",
        "first/config.yaml",
        "first/out.mp4",
        "..%2f..%2f..%2fetc/passwd",
        "%00.mp4",
        "x" * 3000 + ".mp4",
        "first/none.mp4",
    ):
        assert get(f"{server}/files/{wrong}")[0] == 404, wrong


def test_prefixes_that_a_proxy_and_the_command_say_do_not_add_up(server: str) -> None:
    """Nor does a header lead to another host, or out of an attribute."""
    page = f"{server}/run/first?tab=gallery"
    own = f'src="{PREFIX}/files/first/archive/videos'.encode()
    for header in (PREFIX, f"{PREFIX}/", f"/{PREFIX}", "/", ""):
        _, content = get(page, **{"X-Forwarded-Prefix": header})
        assert own in content, header
        assert f"{PREFIX}{PREFIX}".encode() not in content, header
    _, content = get(page, **{"X-Forwarded-Prefix": f"/outer{PREFIX}"})
    assert f'src="/outer{PREFIX}/files/first'.encode() in content
    _, content = get(page, **{"X-Forwarded-Prefix": "//evil.example/a\"><b>'c/../d"})
    assert f'src="/evil.example/a%22%3E%3Cb%3E%27c/d{PREFIX}/files/first'.encode() in content
    assert b"//evil.example" not in content
    assert b'a"><b>' not in content


def test_what_is_not_seen_is_not_made(server: str) -> None:
    for tab, there, missing in (
        ("curves", b"use-chips", b"prompt contains"),
        ("gallery", b"prompt contains", b"use-chips"),
    ):
        _, content = get(f"{server}/run/first?tab={tab}")
        assert there in content
        assert missing not in content
        assert b"echart.js" not in content  # a megabyte, which comes when the page is there


def open_the_gallery(page: Any, url: str) -> None:
    page.goto(url)
    page.get_by_role("link", name="first").click()
    page.wait_for_url(f"{url}run/first")
    page.wait_for_selector(".chart canvas")
    assert page.evaluate("document.body.classList.contains('body--dark')")
    page.keyboard.press("2")
    page.wait_for_selector("text=page 1 of 2 · 8 groups")
    assert page.locator("#app .group").count() == 6


def see_candidates_play(page: Any) -> None:
    """In step with one another, until a key stops them."""
    playing = "[...document.querySelector('.group:has(video)').querySelectorAll('video')]"
    page.wait_for_function(f"{playing}.every(video => video.currentTime > 0.2)")
    times = page.evaluate(f"{playing}.map(video => video.currentTime)")
    assert len(times) == 2
    assert abs(times[0] - times[1]) < 0.2
    page.keyboard.press(" ")
    page.wait_for_function(f"{playing}.every(video => video.paused)")


def turn_pages_and_filter(page: Any, root: Path) -> None:
    """By keyboard; what is on the screen stays, as the run goes on, until it is asked for."""
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("text=page 2 of 2")
    page.keyboard.press("/")
    page.keyboard.type("100 %")
    page.wait_for_selector("text=page 1 of 1 · 2 groups")
    assert page.locator(".group header b").all_inner_texts() == ["a 100 % green ball"] * 2
    assert "margin 0.750 · rule: best vs worst · 1 lost: score_not_finite" in (
        page.locator(".why").first.inner_text()
    )
    page.get_by_label("from step").fill("1e300")
    page.wait_for_selector("text=No group matches: clear a filter")
    page.get_by_label("from step").fill("")
    page.wait_for_selector("text=page 1 of 1 · 2 groups")
    write_step(root / "first", 2)
    page.get_by_role("button", name="show new steps").click()
    page.wait_for_selector("text=page 1 of 1 · 3 groups")
    page.wait_for_selector('.group[data-step="2"]')
    assert "step 3 of 6" in page.locator(".facts-row").first.inner_text()


def see_the_other_tabs(page: Any, url: str, root: Path) -> None:
    """Film strips, before and after, pools and settings, each with what was written."""
    run = root / "first"
    content = (run / "archive/videos/step-000000/r000000-p000000-c00.mp4").read_bytes()
    strip = run / "fixed_prompts"
    strip.mkdir()
    prompt = {"index": 0, "prompt": "a <b>held-out</b> ball", "seed": 5}
    (strip / "prompts.json").write_text(json.dumps([prompt]))
    for step in (0, 50):
        folder = strip / f"step-{step:06d}"
        folder.mkdir()
        (folder / "000.mp4").write_bytes(content)
        (folder / "scores.json").write_text(json.dumps({"scores": [{"total": 0.25}]}))
    page.goto(f"{url}run/first?tab=fixed prompts")
    played = "[...document.querySelectorAll('.strips video')]"
    page.wait_for_function(f"{played}.length == 2 && {played}.every(v => v.currentTime > 0)")
    said = page.locator(".strips").inner_text()
    assert "a <b>held-out</b> ball" in said
    assert "step 50" in said
    assert "+0.250" in said
    (run / "evaluation/before").mkdir(parents=True)
    (run / "evaluation/before/000000.mp4").write_bytes(content)
    pair = {"prompt": "a pair", "seed": 1, "before": "before/000000.mp4", "after": None}
    pair |= {"before_score": -1.0, "after_score": 1.5}
    (run / "evaluation/videos.json").write_text(json.dumps([pair]))
    (run / "summary.json").write_text('{"num_steps": 6, "evaluation": {"totals": 1}}')
    page.goto(f"{url}run/first?tab=before and after")
    page.wait_for_function("document.querySelector('.pair video').currentTime > 0")
    assert "missing" in page.locator(".pair").inner_text()
    page.wait_for_selector("text=an evaluation of another version")
    page.keyboard.press("5")
    page.wait_for_selector("text=Faults: none so far")
    page.keyboard.press("6")
    page.wait_for_selector("text=best_vs_worst")


def see_that_all_fits_a_phone(page: Any, url: str) -> None:
    """Nothing reaches beyond a narrow screen but what can be scrolled by itself."""
    page.set_viewport_size({"width": 400, "height": 900})
    for tab in (*TABS, ""):
        page.goto(f"{url}run/first?tab={tab}" if tab else url)
        page.wait_for_selector("#app .q-tab-panel" if tab else "#app table.runs")
        page.wait_for_timeout(300)  # until the tab is filled
        beyond = page.evaluate("""[...document.querySelectorAll('#app .card')].filter(
            card => card.getBoundingClientRect().right > 400).map(card => card.className)""")
        assert beyond == [], tab
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, tab
    page.set_viewport_size({"width": 1280, "height": 720})


def see_what_is_damaged(page: Any, url: str, root: Path) -> None:
    """It is named, and costs nothing else."""
    (root / "deep/second/archive/pairs/step-000000.parquet").write_bytes(b"PAR1")
    (root / "deep/second/archive/videos").rename(root / "deep/second/archive/gone")
    page.goto(f"{url}run/deep/second?tab=gallery")
    page.wait_for_selector("text=page 1 of 1 · 4 groups")
    assert "second/archive/pairs/step-000000.parquet" in page.locator(".alert").inner_text()
    page.wait_for_selector("text=99 <tokens>")
    assert page.locator("text=the file is missing").count() == 6
    page.goto(f"{url}run/nowhere")
    page.wait_for_selector("text=there is no run nowhere")


def see_nothing_run_that_a_run_says(page: Any, url: str, root: Path) -> None:
    """Names and texts of a run are texts, in addresses too."""
    image = "<img src=x onerror=document.hacked=1>"
    run = root / "it's 4 #%41?&[0-9]"
    make_run(run, 1, num_frames=8)
    (run / "config.yaml").write_text(json.dumps({"name": image, "num_steps": image}))
    (run / "metrics.jsonl").write_text(json.dumps({"step": 0, f"reward/{image}": 1.0}) + "\n")
    page.goto(url)
    page.get_by_role("link", name="it's 4").click()
    page.wait_for_selector(".chart canvas")
    page.goto(f"{page.url}?tab=gallery")
    playing = "document.querySelector('#app .group video')"
    page.wait_for_function(f"{playing} && {playing}.currentTime > 0")
    page.keyboard.press("6")
    page.wait_for_selector("text=onerror")
    assert page.url.endswith("?tab=settings")
    assert page.evaluate("document.hacked") is None


def see_a_page_without_scripts(browser: Any, url: str) -> None:
    """The server draws it, so that it is there before any script."""
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(f"{url}run/first")
    assert plain.locator(".drawn svg").first.is_visible()
    plain.get_by_role("link", name="gallery").click()
    assert plain.locator(".group").first.is_visible()


@needs_chromium
def test_a_person_watches_a_run_that_is_writing(server: str, root: Path) -> None:
    asked: list[str] = []
    with opened_browser(color_scheme="dark") as page:
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        followed = page.context.browser.new_page()
        followed.goto(f"{server}{PREFIX}/")
        followed.wait_for_selector("a:has-text('deep/second')")
        open_the_gallery(page, f"{server}{PREFIX}/")
        see_candidates_play(page)
        turn_pages_and_filter(page, root)
        see_the_other_tabs(page, f"{server}{PREFIX}/", root)
        see_that_all_fits_a_phone(page, f"{server}{PREFIX}/")
        see_what_is_damaged(page, f"{server}{PREFIX}/", root)
        see_nothing_run_that_a_run_says(page, f"{server}{PREFIX}/", root)
        see_a_page_without_scripts(page.context.browser, f"{server}{PREFIX}/")
        # Open since the beginning, the page of all runs has found the new one by itself.
        followed.wait_for_selector('a:has-text("it\'s 4")')
    hosts = {url.split("/")[2] for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {server.split("/")[2]}


def test_a_run_on_a_slow_disk_is_waited_for(root: Path, tmp_path: Path) -> None:
    """Longer than the three seconds after which NiceGUI answers with an error."""
    code = (
        "import sys, time\n"
        "from videorl.watch.run_state import RunReader\n"
        "read = RunReader.read\n"
        "RunReader.read = lambda self: (time.sleep(2.0), read(self))[1]\n"  # it is read twice
        "from jobs import watch\n"
        "watch.main([sys.argv[1], '--port', '0'])\n"
    )
    (tmp_path / "slow.py").write_text(code)
    words = [sys.executable, str(tmp_path / "slow.py"), str(root / "first")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = next(line.split()[1] for line in server.stdout if line.startswith("open "))
        status, content = get(f"{url}?tab=curves")
        server.terminate()
    assert status == 200
    assert b'id="first-paint"' in content


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(VideorlError, match=rf"port {port}: something else listens"):
            serve(FastAPI(), "127.0.0.1", port)
    with pytest.raises(ConfigError, match="must look like /lab/watch, got 'lab/'"):
        serve(FastAPI(), "127.0.0.1", 0, prefix="lab/")
    for wrong in ("/a//b", "/a/../b", '/a"b', "//host", "/a b"):
        with pytest.raises(ConfigError, match="must look like /lab/watch"):
            serve(FastAPI(), "127.0.0.1", 0, prefix=wrong)


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"there is no folder .*none"):
        watch_app(tmp_path / "none")
    with pytest.raises(RunFolderError, match=r"holds no run: a run folder has a config\.yaml"):
        watch_app(tmp_path)
