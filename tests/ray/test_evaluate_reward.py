"""`videorl evaluate_reward` on a real Ray, and again from the scores that it left."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from actors import scoring
from jobs import evaluate_reward
from videorl.data.video_io import write_mp4
from videorl.errors import ConfigError
from videorl.worlds.grammar import parse, prompts
from videorl.worlds.moving_shapes import training_clip

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

TEXTS = prompts("held_out")[:3]


def save_benchmark(folder: Path) -> None:
    """Write pairs of a clip of the prompt and one of the next prompt; some have no video."""
    rng = np.random.default_rng(0)
    (folder / "videos").mkdir(parents=True)
    for number, text in enumerate(TEXTS):
        write_mp4(folder / f"videos/{number}.mp4", training_clip(rng, parse(text)))
    (folder / "videos/damaged.mp4").write_bytes(b"no video")
    pairs = [(0, 1, 0, "A"), (2, 1, 1, "B"), (2, 0, 2, "A"), (0, 0, 0, "same")]
    lost = [(0, "missing", 0, "A"), ("damaged", 0, 0, "A")]
    rows = [
        f"videos/{a}.mp4,videos/{b}.mp4,{TEXTS[prompt]},same,invalid,{label},{label}\n"
        for a, b, prompt, label in (*pairs, *lost)
    ]
    header = "path_A,path_B,prompt,VQ,MQ,TA,Overall\n"
    (folder / "videogen-rewardbench.csv").write_text(header + "".join(rows))


def test_a_benchmark_is_scored_once_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # This process is connected already; that the command connects is what test_scoring.py shows.
    monkeypatch.setattr(scoring, "connect", lambda *_, **__: nullcontext())
    save_benchmark(tmp_path / "data")
    options = ["--benchmark", "videogen_rewardbench", "--data", str(tmp_path / "data")]
    model = ["--model", "moving_shapes", "rewards.0.num_cpus=0.5", "--out", str(tmp_path / "out")]
    assert evaluate_reward.main([*options, *model]) == 0
    table = capsys.readouterr().out
    scores = tmp_path / "out/videogen_rewardbench-moving_shapes.parquet"
    assert pq.read_table(scores).num_rows == 8

    results = json.loads((tmp_path / "out/videogen_rewardbench.json").read_text())["results"]
    by_dimension = {one["dimension"]: one for one in results}
    text = by_dimension["TA"]
    assert (text["num_used"], text["num_skipped"]) == (4, 2)
    # Each clip fits its own prompt best; a clip is as good as itself.
    assert text["accuracy"]["without_ties"] == text["accuracy"]["with_ties"] == 1.0
    assert (by_dimension["MQ"]["num_used"], by_dimension["MQ"]["num_skipped"]) == (0, 0)
    judged = pq.read_table(tmp_path / "out/videogen_rewardbench.parquet").to_pylist()
    assert len(judged) == 3 * 6
    reasons = [row["skipped"] for row in judged if row["dimension"] == "TA" and row["skipped"]]
    assert ["missing.mp4" in reasons[0], "damaged.mp4" in reasons[1]] == [True, True]

    clips = ["--sanity", str(tmp_path / "data/videos"), "--out", str(tmp_path / "sanity")]
    for number, text in enumerate(TEXTS):
        (tmp_path / f"data/videos/{number}.txt").write_text(text)
    asked = [*clips, "--model", "moving_shapes", "rewards.0.num_cpus=0.5"]
    assert evaluate_reward.main([*asked, "--json"]) == 0
    printed = capsys.readouterr()
    assert re.search(r"videos: (\d+)/\1  .*(/s|s each), all done", printed.err)
    assert evaluate_reward.main(asked) == 0
    assert "moving_shapes  TA  text_alignment" in capsys.readouterr().out
    assert json.loads(printed.out) == json.loads((tmp_path / "sanity/sanity.json").read_text())
    found = json.loads((tmp_path / "sanity/sanity.json").read_text())["results"]
    assert {(one["num_clips"], one["num_skipped"]) for one in found} == {(3, 1)}
    assert "sees it" in {one["verdict"] for one in found}

    again = [*options, "--scores", str(scores), "--out", str(tmp_path / "again")]
    assert evaluate_reward.main(again) == 0
    assert table.splitlines()[:-1] == capsys.readouterr().out.splitlines()[:-1]
    assert table.startswith("videogen_rewardbench: 8 videos\n")
    written = json.loads((tmp_path / "again/videogen_rewardbench.json").read_text())
    assert written["results"] == results


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--map", "VQ"], "--map must be DIMENSION=A[+B], once per dimension, got 'VQ'"),
        (["--map", "VQ=a", "--map", "VQ=b"], "once per dimension, got 'VQ=b'"),
        (["--map", "QV=a"], "videogen_rewardbench has no dimension 'QV'"),
    ],
)
def test_wrong_mappings_are_named_before_anything_is_scored(
    options: list[str], message: str, tmp_path: Path
) -> None:
    save_benchmark(tmp_path / "data")
    given = ["--benchmark", "videogen_rewardbench", "--data", str(tmp_path / "data")]
    with pytest.raises(ConfigError, match=re.escape(message)):
        evaluate_reward.main([*given, "--model", "moving_shapes", *options])
