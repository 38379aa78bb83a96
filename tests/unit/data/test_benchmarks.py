"""Readers of reward-model benchmarks, on a few rows in each published layout."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from videorl.data.benchmarks import find_benchmark_clips, read_benchmark, read_pairs_csv
from videorl.errors import ConfigError, DatasetError

HEADER = "path_A,path_B,A_model,B_model,prompt,VQ,MQ,TA,Overall,fps_A,num_frames_A\n"
VISION_REWARD_ROW = {
    "internal_id": "1",
    "prompt": "a cat",
    "standard_answer": "video2",
    "video1_path": "videos/a.mp4",
    "video2_path": "videos/b.mp4",
}


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def test_videogen_rewardbench(tmp_path: Path) -> None:
    (tmp_path / "videogen-rewardbench.csv").write_text(
        HEADER
        + 'videos/a/1.mp4,videos/b/1.mp4,a,b,"a cat, running",A,B,same,A,24.0,120\n'
        + "videos/c/1.mp4,videos/a/1.mp4,c,a,ein Mädchen,invalid,A,A,B,24.0,120\n"
    )
    benchmark = read_benchmark("videogen_rewardbench", tmp_path)
    assert benchmark.dimensions == ("VQ", "MQ", "TA", "Overall")
    first, second = benchmark.pairs
    assert first.a == ("videos/a/1.mp4", "a cat, running")
    assert first.labels == {"VQ": 1, "MQ": -1, "TA": 0, "Overall": 1}
    assert second.labels == {"MQ": 1, "TA": 1, "Overall": -1}
    # A video that comes with two prompts is two things to score.
    assert len(benchmark.keys()) == 4


def test_genai_bench(tmp_path: Path) -> None:
    link = "https://example.org/files/7.mp4"
    row = {
        "prompt": "a dog",
        "left_model": "lavie",
        "left_video": link,
        "right_model": "pika",
        "right_video": link,
    }
    votes = ("leftvote", "rightvote", "tievote", "bothbad_vote")
    write(
        tmp_path / "video_generation/test-00000-of-00001.parquet",
        *(row | {"vote_type": vote} for vote in votes),
    )
    write(tmp_path / "video_generation/test_v1-00000-of-00001.parquet", {"prompt": "an old split"})
    benchmark = read_benchmark("genai_bench", tmp_path)
    assert [pair.labels["Overall"] for pair in benchmark.pairs] == [1, -1, 0, 0]
    assert benchmark.keys() == [("videos/lavie/7.mp4", "a dog"), ("videos/pika/7.mp4", "a dog")]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("monetbench", "monetbench/test-0.parquet"),
        ("vision_reward_regression", "regression/train-0.parquet"),
    ],
)
def test_vision_reward_pairs(name: str, file: str, tmp_path: Path) -> None:
    answers = ("video1", "video2", "tie")
    write(tmp_path / file, *(VISION_REWARD_ROW | {"standard_answer": answer} for answer in answers))
    benchmark = read_benchmark(name, tmp_path)
    assert [pair.labels for pair in benchmark.pairs] == [{"Overall": label} for label in (1, -1, 0)]
    assert benchmark.keys() == [("videos/a.mp4", "a cat"), ("videos/b.mp4", "a cat")]


def test_video_feedback(tmp_path: Path) -> None:
    ratings = {
        "visual quality": 3,
        "temporal consistency": 2,
        "dynamic degree": 4,
        "text-to-video alignment": 1,
        "factual consistency": 2,
    }
    row = {"id": "p110367", "images": ["p110367_00.jpg"], "text prompt": "a fox", **ratings}
    write(tmp_path / "annotated/test-00000-of-00001.parquet", row)
    write(tmp_path / "real/test-00000-of-00001.parquet", row | {"id": "r1"})
    benchmark = read_benchmark("video_feedback", tmp_path)
    assert benchmark.keys() == [("videos/p110367.mp4", "a fox"), ("videos/r1.mp4", "a fox")]
    assert benchmark.ratings[0].values == ratings
    assert benchmark.dimensions == tuple(ratings)


def test_what_is_not_in_the_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'monetbench'"):
        read_benchmark("monet_bench", tmp_path)
    with pytest.raises(DatasetError, match=r"no file monetbench/test-\*\.parquet"):
        read_benchmark("monetbench", tmp_path)
    file = tmp_path / "monetbench/test-0.parquet"
    write(file, VISION_REWARD_ROW | {"standard_answer": "left"})
    with pytest.raises(DatasetError, match=r"row 1: Overall is 'left', expected one of video1"):
        read_benchmark("monetbench", tmp_path)
    write(file, VISION_REWARD_ROW | {"prompt": None})
    with pytest.raises(DatasetError, match="row 1: nothing in column 'prompt'"):
        read_benchmark("monetbench", tmp_path)
    write(file, {"prompt": "a cat"})
    with pytest.raises(DatasetError, match="has no column 'standard_answer', but prompt"):
        read_benchmark("monetbench", tmp_path)
    file.write_bytes(b"no parquet")
    with pytest.raises(DatasetError, match="is not a readable Parquet file"):
        read_benchmark("monetbench", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "pairs.csv cannot be read: No such file"),
        ("path_A,path_B\nx,y\n", "has no column 'prompt', but path_A"),
        ("path_A,path_B,prompt,VQ\na,b\n", "line 2: has 2 fields, but the header has 4"),
        ("path_A,path_B,prompt,VQ\na,b,c,C\n", "line 2: VQ is 'C', expected one of A, B, same"),
        ("", "has no usable row: it is empty"),
        ('path_A,path_B,prompt,VQ\n"a,b,c,A\nd,e,f,B\n', "line 2: is not CSV"),
    ],
)
def test_damaged_csv_files_are_named(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_pairs_csv(path, ["VQ"])


def test_a_row_that_cannot_be_used_costs_itself_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "videogen-rewardbench.csv").write_text(
        HEADER
        + "a.mp4,b.mp4,a,b,a cat, running,A,B,same,A,24.0,120\n"
        + "a.mp4,b.mp4,a,b,a cat,A,B,better,A,24.0,120\n"
        + 'a.mp4,b.mp4,a,b,"one\u2028line\nand another",A,B,same,A,24.0,120\n',
        encoding="utf-8",
    )
    (pair,) = read_benchmark("videogen_rewardbench", tmp_path).pairs
    assert pair.a == ("a.mp4", "one\u2028line\nand another")
    assert "line 2 skipped: has 12 fields, but the header has 11" in caplog.text
    assert "line 3 skipped: TA is 'better'" in caplog.text
    assert "2 of 3 rows skipped" in caplog.text


def test_a_benchmark_without_rows_is_no_benchmark(tmp_path: Path) -> None:
    (tmp_path / "videogen-rewardbench.csv").write_text(HEADER)
    with pytest.raises(DatasetError, match="has no usable row: it is empty"):
        read_benchmark("videogen_rewardbench", tmp_path)


def test_missing_videos_stay_in_unless_all_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "monetbench/test-0.parquet", VISION_REWARD_ROW)
    benchmark = read_benchmark("monetbench", tmp_path)
    with pytest.raises(DatasetError, match=r"none of the 2 videos .* first should be .*a\.mp4"):
        find_benchmark_clips(benchmark)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/b.mp4").write_bytes(b"")
    source = find_benchmark_clips(benchmark)
    assert "1 of 2 videos are missing, e.g. videos/a.mp4" in caplog.text
    assert [clip.key for clip in source.read(source.keys)] == benchmark.keys()
    (only,) = source.read({("videos/b.mp4", "a cat")})
    assert only.content == str(tmp_path / "videos/b.mp4")
