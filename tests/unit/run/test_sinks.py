import json
import math
from pathlib import Path

import pytest

from videorl.run.sinks import JsonlSink, fan_out, read_last_metrics, read_metrics


def test_lines_are_strict_json(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "run" / "metrics.jsonl")
    sink.write(0, {"reward/total": 0.5, "learn/loss": math.nan})
    sink.write(1, {"reward/total": math.inf})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse) for line in lines] == [
        {"step": 0, "reward/total": 0.5, "learn/loss": None},
        {"step": 1, "reward/total": None},
    ]


def test_a_resumed_run_appends_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    for step in range(5):
        sink.write(step, {"reward/total": float(step)})
    resumed = JsonlSink(path)
    resumed.truncate(3)
    resumed.write(3, {"reward/total": 30.0})
    assert [row["reward/total"] for row in read_metrics(path)] == [0.0, 1.0, 2.0, 30.0]


def test_the_last_row_is_read_from_the_end(tmp_path: Path) -> None:
    """However long the rows, and whether or not one is just being written."""
    path = tmp_path / "metrics.jsonl"
    path.touch()
    assert read_last_metrics(path) is None
    path.write_text('{"step": 0')
    assert read_last_metrics(path) is None
    sink = JsonlSink(path)
    for step in range(3):
        sink.write(step, {"dpo/loss": 0.5, "é" * 70_000: float(step)})
    with path.open("a") as file:
        file.write('{"step": 3, "a"')
    assert read_last_metrics(path) == read_metrics(path)[-1]
    path.write_text('{"step": 0}\nno json\n')
    with pytest.raises(ValueError, match="the last line is not JSON: 'no json'"):
        read_last_metrics(path)


def test_a_file_of_others_may_hold_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "a": NaN, "b": -Infinity, "c": 1}\n')
    row = {"step": 0, "a": None, "b": None, "c": 1}
    assert read_metrics(path) == [row]
    assert read_last_metrics(path) == row


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "a": 1.0}\n{"step": 1, "a"')
    assert read_metrics(path) == [{"step": 0, "a": 1.0}]
    JsonlSink(path).write(1, {"a": 2.0})
    assert path.read_text() == '{"step": 0, "a": 1.0}\n{"step": 1, "a": 2.0}\n'


@pytest.mark.parametrize("line", ["{", "[1]", '{"a": 1}', ""])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 0}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        read_metrics(path)


def test_fan_out_reaches_every_sink(tmp_path: Path) -> None:
    both = fan_out([JsonlSink(tmp_path / "a.jsonl"), JsonlSink(tmp_path / "b.jsonl")])
    both.write(0, {"x": 1.0})
    both.write(1, {"x": 2.0})
    both.truncate(1)
    both.close()
    assert read_metrics(tmp_path / "a.jsonl") == read_metrics(tmp_path / "b.jsonl")
    assert read_metrics(tmp_path / "a.jsonl") == [{"step": 0, "x": 1.0}]


def test_names_of_older_runs_are_read_as_those_of_today(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "dpo/loss": 0.5, "dpo/pairs": 8.0, "dpo/chosen_error": 1.0}\n')
    expected = {"step": 0, "learn/loss": 0.5, "learn/examples": 8.0, "dpo/chosen_error": 1.0}
    assert read_metrics(path) == [expected]
    JsonlSink(path).close()
    assert json.loads(path.read_text()) == expected, "a resumed run goes on under these names"


def test_an_own_metric_with_an_older_name_is_not_lost(tmp_path: Path) -> None:
    path, row = tmp_path / "metrics.jsonl", {"learn/loss": 0.5, "dpo/loss": 0.25, "refl/loss": 1.0}
    JsonlSink(path).write(0, row)
    assert read_metrics(path) == [{"step": 0, **row}]
