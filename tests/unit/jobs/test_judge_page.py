"""People judge in a real browser; their answers train a reward, which the next run uses."""

from __future__ import annotations

import csv
import json
import re
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pyarrow.dataset as ds
import pytest
from playwright.sync_api import sync_playwright

from jobs import judge
from jobs.watching import CHROMIUM
from tests.rewards_in_training import local_trainer, reward_recipe
from tests.small_runs import small_recipe
from tests.studies import answer_all, study_of, two_folders
from tests.tiny import save_tiny_wan
from videorl import rewards
from videorl.data.archive import read_table
from videorl.errors import ConfigError, VideorlError
from videorl.judging.answers import Answers
from videorl.judging.study import read_study
from videorl.one_process import run
from videorl.pretraining.reward_base import save_reward_base
from videorl.reward_training.fit import fit
from videorl.rewards.video_reward.model import VideoReward
from videorl.run.folder import open_run
from videorl.run.sinks import JsonlSink

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")


@contextmanager
def judged(*words: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve a study on a free port meanwhile; yield its address, which ends in /.

    An error in the server's log fails the test.
    """
    command = [sys.executable, "-m", "jobs.judge", *map(str, words), "--port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert server.stdout is not None
            url = next(line.split()[1] for line in server.stdout if line.startswith("open "))
            yield url, server
        finally:
            server.terminate()
            server.wait()
        log.seek(0)
        assert "ERROR" not in (said := log.read()), said


@contextmanager
def opened_browser() -> Iterator[Any]:
    """Yield a page; what its scripts raise fails the test."""
    errors: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        browser.close()
    assert not errors


def status(url: str, **headers: str) -> int:
    try:
        with urlopen(Request(url, headers=headers), timeout=30) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def brighter(page: Any) -> str:
    """Return which side shows the brighter video, as a person sees it."""
    page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.currentTime > 0)")
    left, right = page.evaluate("""[...document.querySelectorAll('.sides video')].map(video => {
        const canvas = document.createElement('canvas').getContext('2d');
        canvas.drawImage(video, 0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data[0];
    })""")
    assert abs(left - right) > 100
    return "left" if left > right else "right"


def judge_by_keyboard(page: Any, done: int) -> None:
    """Prefer the brighter video of the pair that comes after `done` others of four."""
    page.wait_for_selector(f".progress:has-text('anna: {done} judged, {4 - done} to go')")
    assert page.locator(".save").is_disabled()
    page.keyboard.press("1" if brighter(page) == "left" else "2")
    page.wait_for_selector(".choice.chosen[aria-pressed=true]")
    page.keyboard.press("Enter")


def see_nothing_of_whose_they_are(page: Any, url: str) -> None:
    shown = page.content()
    assert not re.search(r"\b(ours|theirs|group)\b|\.mp4", shown)
    assert "ball &lt;" in shown
    video = url + page.locator("video").first.get_attribute("src").removeprefix("/")
    assert status(video) == 200
    assert status(video, Range="bytes=0-9") == 206
    assert status(video.replace("left", "A")) == 404
    assert status(video.partition("?")[0]) == 404, "without a token"


def change_what_was_chosen(page: Any) -> None:
    """By mouse, of a pair that was begun before the server was killed."""
    page.wait_for_selector(".choice.chosen >> text=Same")
    name = "1 Left" if brighter(page) == "left" else "2 Right"
    page.get_by_role("button", name=name).click()
    page.wait_for_selector(f".choice.chosen >> text={name[2:]}")
    assert page.locator(".choice.chosen").count() == 1
    page.get_by_role("button", name="save and go on").click()


@needs_chromium
def test_two_people_judge_blind_and_a_killed_server_loses_nothing(tmp_path: Path) -> None:
    folders, out = two_folders(tmp_path, 4), tmp_path / "study"
    words = [*folders, "--mode", "overall", "--out", out, "--answers-per-pair", "2"]
    with opened_browser() as page:
        with judged(*words, "--annotators", "anna", "ben") as (url, server):
            tokens = json.loads((out / "annotators.json").read_text())
            page.goto(f"{url}?token=guessed")
            page.wait_for_selector("text=an unknown one: ask whoever runs the study")
            page.goto(f"{url}?token={tokens['anna']}")
            judge_by_keyboard(page, 0)
            judge_by_keyboard(page, 1)
            page.wait_for_selector(".progress:has-text('2 judged')")
            see_nothing_of_whose_they_are(page, url)
            page.keyboard.press("3")  # and is not saved
            page.wait_for_selector(".choice.chosen")
            server.kill()
            server.wait()
        with judged(out) as (url, _):
            page.goto(f"{url}?token={tokens['anna']}")
            change_what_was_chosen(page)
            judge_by_keyboard(page, 3)
            page.wait_for_selector("text=All pairs are judged")
            page.goto(f"{url}?token={tokens['ben']}")
            page.wait_for_selector(".progress:has-text('ben: 0 judged, 4 to go')")
    table = ds.dataset(out / "answers").to_table().to_pylist()
    assert len({row["pair"] for row in table}) == len(table) == 4
    for row in table:
        assert row[f"group_{row['choice'].lower()}"] == "ours", "the brighter one"
    with (out / "labels.csv").open() as file:
        assert Counter(row["annotator"] for row in csv.DictReader(file)) == {"anna": 4}


@needs_chromium
@pytest.mark.slow
def test_a_studys_answers_train_a_reward_that_the_next_run_uses(tmp_path: Path) -> None:
    policy = {"wan": save_tiny_wan(tmp_path / "wan")}
    first = small_recipe("moving_shapes", policy, tmp_path / "first", {"archive.videos": "all"})
    with open_run(first) as folder:
        assert run(first, folder, lambda: False)
    out = tmp_path / "study"
    words = [folder.root, "--pairs", "random", "--num-pairs", "3", "--out", out]
    with judged(*words) as (url, _), opened_browser() as page:
        page.goto(url)
        page.get_by_label("your name").fill("anna")
        page.keyboard.press("Enter")
        for done in range(3):
            page.wait_for_selector(f".progress:has-text('anna: {done} judged')")
            for place, key in enumerate("123"):
                page.keyboard.press(key)
                page.wait_for_selector(f".question >> nth={place} >> .choice.chosen")
            page.keyboard.press("Enter")
        page.wait_for_selector("text=All pairs are judged")
    save_reward_base(tmp_path / "base", width=32, layers=2)
    recipe = reward_recipe(tmp_path)
    recipe.labels.train, recipe.labels.held_out = str(out / "labels.csv"), ""
    recipe.labels.batch_size, recipe.num_steps = 2, 2
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    trainer = local_trainer(recipe, tmp_path / "checkpoints")
    assert fit(recipe, trainer, sink, tmp_path / "reward", lambda: False)
    learned = f"[{{name: video_reward, path: {tmp_path / 'reward'}}}]"
    changes = {"rewards": learned, "num_steps": 1, "archive.videos": "all"}
    second = small_recipe("moving_shapes", policy, tmp_path / "second", changes)
    with open_run(second) as folder:
        assert run(second, folder, lambda: False)
    rows = read_table(folder.archive, "candidates").to_pylist()
    model = rewards.load("video_reward", str(tmp_path / "reward"))
    assert isinstance(model, VideoReward)
    videos = [str(folder.archive / row["video"]) for row in rows]
    scores = model.score(videos, [row["prompt"] for row in rows])
    # The run scored its frames before they were compressed.
    totals = [row["total"] for row in rows]
    assert totals == pytest.approx([score.total for score in scores], abs=0.3)
    assert len({round(total, 6) for total in totals}) == len(totals)


def test_the_command_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = two_folders(tmp_path, 3)
    words = [*map(str, folders), "--mode", "overall", "--out", str(tmp_path / "study")]
    assert judge.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_answers"] == 0
    with Answers(tmp_path / "study", study_of(folders)) as answers:
        answer_all(answers, study_of(folders), "anna", "ours")
    assert judge.main([str(tmp_path / "study"), "--report", "--answers-per-pair", "2"]) == 0
    shown = capsys.readouterr().out
    assert "3 answers (anna 3) on 3 pairs, of which 0 have all 2." in shown
    assert (tmp_path / "study/report.md").read_text() == shown
    content = json.loads((tmp_path / "study/report.json").read_text())
    assert content["questions"][0]["duels"] == [
        {"first": "ours", "second": "theirs", "wins": 3, "ties": 0, "losses": 0}
    ]


def test_what_is_refused_is_explained(tmp_path: Path) -> None:
    folders = two_folders(tmp_path, 1)
    words = [*map(str, folders), "--mode", "overall", "--out", str(tmp_path / "study")]
    assert judge.main([*words, "--to-label-studio", str(tmp_path / "tasks.json")]) == 0
    assert read_study(tmp_path / "study") == study_of(folders)
    for wrong, said in (
        ([str(tmp_path / "study"), "--seed", "1"], "--seed cannot be set: .* is a study"),
        ([*words, "--seed", "1"], "holds another study"),
        ([*words, "--num-pairs", "0"], "--num-pairs must be >= 1, got 0"),
        ([*words, "--mode", "quick"], "--mode must be one of dimensions"),
        ([str(tmp_path / "ours")], "neither a run nor a study"),
    ):
        with pytest.raises(VideorlError, match=said):
            judge.main(wrong)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(VideorlError, match=rf"port {port}: something else listens"):
            judge.main([str(tmp_path / "study"), "--port", str(port)])
    with pytest.raises(ConfigError, match="--port"):
        judge.main([str(tmp_path / "study"), "--port", "70000"])
