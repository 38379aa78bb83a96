import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videorl.data.video_io import encode_mp4, write_mp4
from videorl.errors import RunFolderError
from videorl.report import write_report
from videorl.report.charts import chart, number, smooth
from videorl.report.page import SECTIONS
from videorl.report.svg import tick_labels, ticks
from videorl.run.sinks import JsonlSink
from videorl.types import Video

EVIL = "a <script>alert(1)</script> \"ball\" & 'ring'"

EVALUATION = {
    "num_prompts": 64,
    "num_base_samples": 8,
    "num_aligned_samples": 1,
    "total": {
        "before": 0.1,
        "after": 0.7,
        "difference": {"mean": 0.6, "low": 0.5, "high": 0.7},
    },
    "dimensions": {
        "visual_quality": {
            "before": 0.1,
            "after": 0.05,
            "difference": {"mean": -0.05, "low": -0.08, "high": -0.02},
        }
    },
    "unseen": {"dynamic_degree": {"before": 0.4, "after": 0.3, "relative": -0.25}},
    "best_of_k": {"1": 0.1, "16": 0.75, "8": 0.55},
    "win_rate": 0.75,
    "verdicts": {
        "beats_best_of_16": False,
        "beats_best_of_8": True,
        "dynamic_degree_kept": False,
        "no_dimension_fell": False,
        "reward_rose": True,
    },
}


class Page(HTMLParser):
    """Tags with their attributes, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str, css: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and css in (a.get("class") or "")]


def make_run(folder: Path, rows: list[dict[str, float]]) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(f"name: a run\nnum_steps: 40\nnote: {json.dumps(EVIL)}\n")
    sink = JsonlSink(folder / "metrics.jsonl")
    for step, metrics in enumerate(rows):
        sink.write(step, metrics)
    return folder


def finish_run(folder: Path, evaluation: dict[str, Any] = EVALUATION) -> None:
    (folder / "summary.json").write_text(
        json.dumps({"seconds": 231.0, "digest": "ab" * 32, "evaluation": evaluation})
    )


def video(level: int, size: int = 32) -> Video:
    return Video(np.full((3, size, size, 3), level, np.uint8), 8.0)


def add_videos(folder: Path, entries: list[dict[str, Any]]) -> None:
    for name in ("before", "after"):
        (folder / "evaluation" / name).mkdir(parents=True)
    write_mp4(folder / "evaluation/before/0.mp4", video(10))
    write_mp4(folder / "evaluation/after/0.mp4", video(200))
    (folder / "evaluation" / "videos.json").write_text(json.dumps(entries))


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "prompt": EVIL,
        "seed": 7,
        "before": "before/0.mp4",
        "after": "after/0.mp4",
        "before_score": -0.5,
        "after_score": 1.0,
        **changes,
    }


def report(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_a_finished_run_shows_verdicts_numbers_and_curves(tmp_path: Path) -> None:
    rows = [{"reward/total": step / 40, "learn/loss": 0.69} for step in range(40)]
    folder = make_run(tmp_path / "run", rows)
    finish_run(folder)
    page = report(folder)
    assert len(page.named("li", "yes")) == 2
    assert len(page.named("li", "no")) == 3
    assert "from 0.100 to 0.700 (+0.600); 75 % of the prompts got better" in page.text
    assert "0.700 against 0.550" in page.text
    claims = ["The reward rose", "best of 8", "best of 16", "No reward", "Motion was kept"]
    places = [page.text.index(claim) for claim in claims]
    assert places == sorted(places)
    assert "dynamic degree −25.0 %" in page.text
    assert "+0.500 to +0.700" in page.text
    assert "took 3 min 51 s" in page.text
    assert "ab" * 6 in page.text
    assert "ab" * 7 not in page.text
    assert "has not finished" not in page.text
    # Best of k, reward, loss.
    assert len(page.named("figure", "chart")) == 3


def test_stages_are_a_table(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [{"reward/total": 0.0}])
    finish_run(folder)
    assert "Where the time went" not in report(folder).text
    stage = {"name": "training", "seconds": 30.0, "count": 10, "unit": "step"}
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "stages": [stage]}))
    text = report(folder).text
    assert "Where the time went" in text
    assert "training30 s100%3 s per step (10)" in text


def test_nothing_is_asked_of_the_network_and_all_text_is_escaped(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [{"reward/<u>odd": 1.0, "reward/total": math.nan}])
    finish_run(folder)
    add_videos(folder, [entry()])
    page = report(folder)
    for _, attributes in page.tags:
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    html = (folder / "report.html").read_text()
    assert "http" not in re.sub(r"const NS = '[^']*'", "", html)
    assert len(page.named("script")) == 1
    assert not page.named("u")
    assert "<u>odd" in page.text
    assert page.text.count(EVIL) == 1  # the prompt; in the config its quotes are escaped


def test_of_a_prompt_of_100_kb_the_beginning_is_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [])
    add_videos(folder, [entry(prompt="ball " * 20_000)])
    text = report(folder).text
    assert "ball … (100000 characters)" in text
    assert text.count("ball") < 1000


def test_videos_are_embedded_whole_and_tiny_ones_are_not_blurred(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [])
    add_videos(folder, [entry()])
    before, after = report(folder).named("video")
    assert (
        before["src"] == "data:video/mp4;base64," + base64.b64encode(encode_mp4(video(10))).decode()
    )
    assert before["src"] != after["src"]
    assert {"autoplay", "loop", "muted", "playsinline"} <= set(before)
    assert before["class"] == "tiny"
    write_mp4(folder / "evaluation/before/0.mp4", video(10, size=256))
    assert "class" not in report(folder).named("video")[0]


def test_missing_files_and_files_elsewhere_are_not_embedded(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [])
    (tmp_path / "secret.mp4").write_bytes(encode_mp4(video(1)))
    add_videos(folder, [entry(before="../../secret.mp4", after="after/1.mp4", after_score=None)])
    page = report(folder)
    assert page.named("video") == []
    assert page.text.count("no video file") == 2


def test_a_run_that_goes_on_is_shown_so_far(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", [{"reward/total": 0.1}] * 3)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    page = report(folder)
    assert "This run has not finished" in page.text
    assert "3 of 40" in page.text
    assert len(page.named("figure", "chart")) == 1
    make_run(tmp_path / "new", [])
    (tmp_path / "new" / "metrics.jsonl").unlink(missing_ok=True)
    assert "0 of 40" in report(tmp_path / "new").text


def test_reference_swaps_are_vertical_lines(tmp_path: Path) -> None:
    rows = [
        {"reward/total": 0.0, "reference/version_step": float((step + 1) // 20 * 20)}
        for step in range(40)
    ]
    page = report(make_run(tmp_path / "run", rows))
    # At steps 19 and 39 of 0..39: the last one on the right border, x = 330.
    swaps = page.named("line", "swap")
    assert [line["x1"] for line in swaps] == 2 * ["185.4", "330.0"], "in both charts"


@pytest.mark.parametrize(
    ("error", "margin", "is_warned"),
    [(0.2, 1.0, True), (0.02, 1.0, False), (0.2, -1.0, False), (-0.2, 1.0, False)],
)
def test_likelihood_displacement_is_warned_of(
    tmp_path: Path, error: float, margin: float, is_warned: bool
) -> None:
    """Both grow from 0 after each swap, as they do when measured against the new reference."""
    rows = [
        {
            "dpo/winner_error_change": error * (step % 20) / 19,
            "learn/margin": margin * (step % 20) / 19,
            "reference/version_step": float((step + 1) // 20 * 20),
        }
        for step in range(40)
    ]
    page = report(make_run(tmp_path / "run", rows))
    assert ("Likelihood displacement" in page.text) == is_warned
    if is_warned:
        assert "rose +17.9 % above" in page.text  # mean of 15..19 of 19, times 0.2


def test_what_is_no_run_folder_or_is_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"has no config\.yaml"):
        write_report(tmp_path)
    folder = make_run(tmp_path / "run", [])
    (folder / "summary.json").write_text("{")
    with pytest.raises(RunFolderError, match="cannot be read"):
        write_report(folder)


def test_a_number_that_is_not_finite_is_written_as_it_is() -> None:
    shown = [number(float(text)) for text in ("nan", "inf", "-inf")]
    assert shown == ["nan", "inf", "−inf"]


def test_numbers_and_ticks_by_hand() -> None:
    shown = [number(x) for x in (0.0, 1.0, -0.05, 123.4, 0.00012, 1234567.0, 0.693147, None)]
    assert shown == ["0", "1", "−0.05", "123", "1.2e−04", "1.2e+06", "0.693", "–"]
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.5, 1.0])
    assert tick_labels([-0.5, 0.0, 0.5]) == ["−0.5", "0.0", "0.5"]
    assert tick_labels([-0.9885, -0.988]) == ["−0.9885", "−0.9880"]
    assert tick_labels([3.0]) == ["3"]
    assert tick_labels([0.0, 2e-5, 4e-5]) == ["0", "2e−5", "4e−5"]
    assert ticks(-0.1, 0.33) == pytest.approx([0.0, 0.2])
    assert ticks(-0.047, 0.045) == pytest.approx([-0.04, -0.02, 0.0, 0.02, 0.04])  # not 0 alone
    assert ticks(0.0, 100.0, 5) == pytest.approx([0, 20, 40, 60, 80, 100])


def test_smoothing_keeps_a_straight_line_and_gaps() -> None:
    line: list[tuple[float, float | None]] = [(float(x), 2.0 * x) for x in range(60)]
    assert [y for _, y in smooth(line)] == pytest.approx([y for _, y in line])
    line[30] = (30.0, None)
    assert smooth(line)[30] == (30.0, None)
    figure = chart("gap", line)
    drawn = re.findall(r'class="line" d="([^"]*)"', figure)
    assert drawn[0].count("M") == 2


def test_every_metric_is_drawn_and_unknown_prefixes_come_last(tmp_path: Path) -> None:
    own = ["zzz/strange", "yyy/strange", "entropy", "nan/only"]
    names = [*own, "reward/total", "learn/loss", "pool/workers", "canary/difference"]
    rows = [
        {name: math.nan if name == "nan/only" else float(step) for name in names}
        for step in range(4)
    ]
    page = report(make_run(tmp_path / "run", rows))
    titles = ["Reward", "Learning", "Pipeline", "Other", *own]
    places = [page.text.index(title) for title in titles]
    assert places == sorted(places)
    for shown in ("Loss", "Workers", "Difference"):
        assert shown in page.text
    assert len(page.named("figure", "chart")) == len(names)


def test_no_two_charts_have_the_same_title(tmp_path: Path) -> None:
    names = ["policy/version_step", "reference/version_step", "learn/margin", "pairs/margin"]
    names += [
        "learn/loss",
        "train/loss",
        "held_out/loss",
        "groups/dropped_a",
        "candidates/dropped_a",
    ]
    report(make_run(tmp_path / "run", [dict.fromkeys(names, 1.0)]))
    titles = re.findall(r"<figcaption><b>(.*?)</b>", (tmp_path / "run/report.html").read_text())
    assert len(titles) == len({*titles}) == len(names)
    assert {"Policy: version step", "Held out: loss", "Groups: dropped a"} <= {*titles}


def test_every_documented_metric_has_a_section() -> None:
    text = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    documented = {name.split("/")[0] for name in re.findall(r"^\| `([a-z_]+/)", text, re.MULTILINE)}
    assert {"reward", "learn", "pool", "canary", "held_out"} <= documented
    grouped = {prefix.removesuffix("/") for _, prefixes, _ in SECTIONS for prefix in prefixes}
    assert documented <= grouped
