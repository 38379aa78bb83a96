"""People judge in a real browser; their answers train a reward, which the next run uses."""

from __future__ import annotations

import csv
import json
import re
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from jobs import judge
from jobs.watching import served
from tests.rewards_in_training import local_trainer, reward_recipe
from tests.small_runs import small_recipe
from tests.studies import answer_all, study_of, two_folders
from tests.tiny import save_tiny_wan
from tests.unit.jobs.browsing import answer_to, judged, needs_chromium, opened_browser
from videorl import rewards
from videorl.data.archive import read_table
from videorl.errors import ConfigError, VideorlError
from videorl.judging.answers import Answers
from videorl.judging.questions import seen_as
from videorl.judging.study import read_study
from videorl.one_process import run
from videorl.pretraining.reward_base import save_reward_base
from videorl.reward_training.fit import fit
from videorl.rewards.video_reward.model import VideoReward
from videorl.run.folder import open_run
from videorl.run.sinks import JsonlSink


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
    for method, asked, code in (
        ("GET", {}, 200),
        ("HEAD", {}, 200),
        ("GET", {"Range": "bytes=0-9"}, 206),
        ("GET", {"Range": "bytes=0-9", "If_Range": '"x"'}, 200),
    ):
        found, headers, _ = answer_to(video, method, **asked)
        assert found == code
        said = {name.lower() for name in headers}
        said -= {"date", "server", "connection", "content-range"}
        assert said == {"accept-ranges", "cache-control", "content-length", "content-type"}
    assert answer_to(video.replace("left", "A"))[0] == 404
    assert answer_to(video.partition("?")[0])[0] == 404, "without a token"


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
    for folder in folders:  # 100 kB
        (folder / "3.txt").write_text("ball <3> " * 12_000)
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


def choices_in(out: Path) -> dict[str, list[dict[str, str]]]:
    """Return every state of the choices that was kept, by pair, as they looked on the screen."""
    found: dict[str, list[dict[str, str]]] = {}
    for line in (out / "answers.jsonl").read_text().splitlines()[1:]:
        row = json.loads(line)
        seen = {name: seen_as(value, row["left"]) for name, value in row["choices"].items()}
        found.setdefault(row["pair"], []).append(seen)
    return found


@needs_chromium
def test_keys_typed_fast_answer_one_question_each(tmp_path: Path) -> None:
    out = tmp_path / "study"
    words = [*two_folders(tmp_path, 3), "--out", out, "--seed", "1"]
    with judged(*words) as (url, _), opened_browser() as page:
        page.goto(f"{url}?name=anna")
        page.wait_for_selector(".question.current")
        for key in "123":
            page.keyboard.press(key)
        page.wait_for_selector(".question >> nth=2 >> .choice.chosen")
        ((*_, seen),) = choices_in(out).values()
        assert seen == {"VQ": "A", "MQ": "B", "TA": "same"}
        page.keyboard.press("Enter")
        page.wait_for_selector(".progress:has-text('1 judged')")
        # All at once, as a person types who has seen enough; what follows `Enter` is too early.
        page.evaluate(
            """keys => keys.forEach(key =>
                document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true})))""",
            ["4", "Backspace", "3", "1", "2", "Enter", "1", "Enter", "1"],
        )
        page.wait_for_selector(".progress:has-text('2 judged')")
        page.keyboard.down("2")
        for _repeated in range(5):
            page.keyboard.down("2")
        page.keyboard.up("2")
        page.wait_for_selector(".question >> nth=0 >> .choice.chosen")
        page.keyboard.press("1")
        page.wait_for_selector(".question >> nth=1 >> .choice.chosen")
        assert page.locator(".choice.chosen").count() == 2
    first, second, third = choices_in(out).values()
    assert first[-1] == {"VQ": "A", "MQ": "B", "TA": "same"}
    assert second[-1] == {"VQ": "same", "MQ": "A", "TA": "B"}
    assert third == [{"VQ": "B"}, {"VQ": "B", "MQ": "A"}]


@needs_chromium
def test_keys_typed_before_the_page_is_connected_answer_a_question_each(tmp_path: Path) -> None:
    out = tmp_path / "study"
    words = [*two_folders(tmp_path, 1), "--out", out, "--seed", "1"]
    with judged(*words) as (url, _), opened_browser() as page:
        page.add_init_script(
            """new MutationObserver((_, observer) => {
                if (!document.querySelector('.question.current')) return;
                observer.disconnect();
                for (const key of '123') document.body.dispatchEvent(
                    new KeyboardEvent('keydown', {key, bubbles: true}));
            }).observe(document, {childList: true, subtree: true});"""
        )
        page.goto(f"{url}?name=anna")
        page.wait_for_selector(".question >> nth=2 >> .choice.chosen")
    ((*_, seen),) = choices_in(out).values()
    assert seen == {"VQ": "A", "MQ": "B", "TA": "same"}


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
    assert judge.main([*words, "--report"]) == 0
    assert capsys.readouterr().out == shown, "the command that made the study changes nothing"
    assert (tmp_path / "study/report.md").read_text() == shown
    content = json.loads((tmp_path / "study/report.json").read_text())
    assert content["questions"][0]["duels"] == [
        {"first": "ours", "second": "theirs", "wins": 3, "ties": 0, "losses": 0}
    ]


def test_a_study_is_named_by_its_places_however_they_are_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = two_folders(tmp_path, 1)
    (ours / "here").mkdir()
    monkeypatch.chdir(ours / "here")
    assert judge.main(["..", "../../theirs", "--mode", "overall", "--json"]) == 0
    assert read_study(Path("judging/ours-vs-theirs")).pairs


def test_what_is_refused_is_explained(tmp_path: Path) -> None:
    folders = two_folders(tmp_path, 1)
    words = [*map(str, folders), "--mode", "overall", "--out", str(tmp_path / "study")]
    assert judge.main([*words, "--to-label-studio", str(tmp_path / "tasks.json")]) == 0
    assert read_study(tmp_path / "study") == study_of(folders)
    for wrong, said in (
        ([str(tmp_path / "study"), "--seed", "1"], "--seed cannot be set: .* is a study"),
        ([*words, "--seed", "1"], "holds another study"),
        ([*words, "--to-label-studio", "tasks.xml"], "must be the tasks' JSON file"),
        ([*words[:-1], str(folders[0] / "0.txt" / "study")], "0.txt/study .* set --out"),
        ([*words, "--num-pairs", "0"], "--num-pairs must be >= 1, got 0"),
        ([*words, "--mode", "quick"], "--mode must be one of dimensions"),
        ([str(tmp_path / "ours")], "neither a run nor a study"),
    ):
        with pytest.raises(VideorlError, match=said):
            judge.main(wrong)
    run = str(tmp_path / "run")
    for wrong, said in (
        ([*words[:2], "--pairs", "random"], "--pairs cannot be set: .* these are folders"),
        ([*words[:2], "--from-step", "1"], "--from-step cannot be set: .* these are folders"),
        ([*words[:2], "--to-step", "1"], "--to-step cannot be set: .* these are folders"),
        ([run, "--pairs", "held_out", "--to-step", "1"], "--to-step cannot be set: held-out"),
        ([run, "--to-step", "-1"], "--to-step must be >= 0, got -1"),
    ):
        with pytest.raises(ConfigError, match=said):
            judge.main(wrong)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(VideorlError, match=rf"port {port}: something else listens"):
            judge.main([str(tmp_path / "study"), "--port", str(port)])
    with (
        pytest.raises(VideorlError, match=r"jobs\.judge ended with code 2 before it served"),
        served(tmp_path / "nothing", module="jobs.judge"),
    ):
        pass
    with pytest.raises(ConfigError, match="--port"):
        judge.main([str(tmp_path / "study"), "--port", "70000"])
