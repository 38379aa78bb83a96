"""A run from its first step to a served video, as a person meets it: in a browser and over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pyarrow.dataset as ds
import pytest

from jobs.watching import served
from tests.unit.jobs.browsing import judged, needs_chromium, opened_browser

pytestmark = [pytest.mark.ray, pytest.mark.long, needs_chromium]

TEXT, TOKEN = "a large red circle moving left", "a-token-of-this-test"
SMALL = (
    "num_steps=12",
    "prompts.per_round=2",
    "policy.lora.rank=4",
    "evaluation.source=",
    "archive.videos=all",
)


def watch_it_learn(page: Any, url: str, training: subprocess.Popen[bytes]) -> None:
    """A candidate plays while the run works; a filter finds groups of a shape."""
    page.goto(f"{url}?tab=gallery")
    playing = "document.querySelector('#app .group video')"
    page.wait_for_function(f"{playing} && {playing}.currentTime > 0", timeout=120_000)
    assert training.poll() is None, "it is still at work"
    page.keyboard.press("/")
    page.keyboard.type("circle")
    page.wait_for_function(
        "[...document.querySelectorAll('#app .group header b')]"
        ".every(text => text.innerText.includes('circle'))"
    )


def judge_five_pairs(page: Any, run: Path, study: Path) -> None:
    """By keyboard; every answer is in Parquet."""
    words = [run, "--pairs", "random", "--mode", "overall", "--out", study]
    with judged(*words, "--annotators", "anna") as (url, _):
        token = json.loads((study / "annotators.json").read_text())["anna"]
        page.goto(f"{url}?token={token}")
        for number in range(5):
            page.wait_for_selector(f".progress:has-text('anna: {number} judged')")
            page.wait_for_function(
                "[...document.querySelectorAll('video')].every(v => v.currentTime > 0)"
            )
            page.keyboard.press("1")
            page.wait_for_selector(".choice.chosen")
            page.keyboard.press("Enter")
        page.wait_for_selector(".progress:has-text('5 judged')")
    rows = ds.dataset(study / "answers").to_table().to_pylist()
    assert len({row["pair"] for row in rows}) == len(rows) == 5
    assert {row["annotator"] for row in rows} == {"anna"}


@contextmanager
def serving(run: Path, out: Path) -> Iterator[str]:
    """Serve the run's adapter and its reward meanwhile; yield the address."""
    words = ["-m", "jobs.serve", run, "--reward", "moving_shapes", "--port", "8765", "--out", out]
    environment = {**os.environ, "VIDEORL_TOKEN": TOKEN}
    server = subprocess.Popen([sys.executable, *map(str, words)], env=environment)
    url = "http://127.0.0.1:8765"
    try:
        deadline = time.monotonic() + 180
        while True:
            assert server.poll() is None and time.monotonic() < deadline
            try:
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        assert server.wait(120) in (0, 130)


def generate_and_score(url: str) -> None:
    """By the `openai` client, with the run's adapter, and by the reward that it learned from."""
    client = openai.OpenAI(api_key=TOKEN, base_url=f"{url}/v1")
    contents: list[bytes] = []
    for chosen in ({}, {"lora": "base"}):  # the run's adapter is the default
        made = client.videos.create_and_poll(
            prompt=TEXT, extra_body={"seed": 3, **chosen}, poll_interval_ms=50
        )
        assert made.status == "completed"
        contents.append(client.videos.download_content(made.id).read())
    assert contents[0] != contents[1]
    answer = httpx.post(
        f"{url}/v1/rewards",
        headers={"Authorization": f"Bearer {TOKEN}"},
        data={"prompt": TEXT},
        files={"video": ("video.mp4", contents[0])},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert "text_alignment" in answer.text


def test_a_run_is_watched_judged_served_and_scored(tmp_path: Path) -> None:
    run = tmp_path / "runs/run"
    words = ["-m", "jobs.train", "moving_shapes", f"run_dir={run}", *SMALL]
    training = subprocess.Popen([sys.executable, *words])
    try:
        while not (run / "config.yaml").exists():
            assert training.poll() is None
            time.sleep(0.2)
        with opened_browser() as page:
            with served(run) as url:
                watch_it_learn(page, url, training)
            assert training.wait(600) == 0
            judge_five_pairs(page, run, tmp_path / "study")
    finally:
        training.kill()
        training.wait()
    with serving(run, tmp_path / "served") as url:
        generate_and_score(url)
