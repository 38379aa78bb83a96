"""Rules that fail a comparison against an earlier one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videorl.errors import ConfigError
from videorl.measures.regression import read_rules
from videorl.measures.results import Number, Report, Row


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    numbers = {"oracle total": 2.0, "FVD": 10.0, "temporal flickering": 0.9, "zero": 0.0}
    row = {"label": "a", "numbers": {name: {"value": value} for name, value in numbers.items()}}
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"rows": [row]}))
    return path


def report(**values: float) -> Report:
    numbers = {name.replace("_", " "): Number(value) for name, value in values.items()}
    return Report([Row("a", 3, 3, numbers)])


def fvd(**values: float) -> Report:
    return Report([Row("a", 3, 3, {f"FVD ({name})": Number(v) for name, v in values.items()})])


@pytest.mark.parametrize(
    ("rule", "value", "is_broken"),
    [
        ("total < -1 %", 1.97, True),
        ("total < -1%", 1.99, False),
        ("oracle total<-0.05", 1.94, True),
        ("oracle_total < -0.05", 1.96, False),
        ("total > 5 %", 2.2, True),
    ],
)
def test_rules(baseline: Path, rule: str, value: float, is_broken: bool) -> None:
    (found,) = read_rules([rule], baseline)
    said = found.broken(report(oracle_total=value))
    assert bool(said) == is_broken
    if is_broken:
        assert f"oracle total of a was 2, is {value}" in said[0]


def test_less_is_better_is_a_matter_of_the_sign(baseline: Path) -> None:
    (found,) = read_rules(["FVD > 10 %"], baseline)  # of VideoMAE, in files of older versions
    assert not found.broken(fvd(VideoMAE=10.9)) and found.broken(fvd(VideoMAE=11.1))


def test_fvd_is_that_on_every_network(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    numbers = {f"FVD ({name})": {"value": 10.0} for name in ("VideoMAE", "I3D")}
    path.write_text(json.dumps({"rows": [{"label": "a", "numbers": numbers}]}))
    (both,) = read_rules(["FVD > 10 %"], path)
    (said,) = both.broken(fvd(VideoMAE=10.0, I3D=12.0))
    assert "FVD (I3D) of a was 10, is 12" in said
    (theirs,) = read_rules(["FVD (VideoMAE) > 10 %"], path)
    assert not theirs.broken(fvd(VideoMAE=10.0, I3D=12.0))


def test_rules_on_fvd_at_infinity_keep_their_name(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    row = {"label": "a", "numbers": {"FVD": {"value": 9.0}, "FVD at infinity": {"value": 10.0}}}
    path.write_text(json.dumps({"rows": [row]}))
    (rule,) = read_rules(["FVD at infinity > 10 %"], path)
    now = {"FVD (VideoMAE)": Number(99.0), "FVD (VideoMAE) at infinity": Number(10.9)}
    assert not rule.broken(Report([Row("a", 3, 3, now)]))
    now["FVD (VideoMAE) at infinity"] = Number(11.1)
    (said,) = rule.broken(Report([Row("a", 3, 3, now)]))
    assert "FVD (VideoMAE) at infinity of a was 10, is 11.1" in said


def test_a_measure_without_a_number_breaks_its_rule(baseline: Path) -> None:
    (found,) = read_rules(["FVD > 10 %"], baseline)
    for now in (
        report(oracle_total=2.0),
        Report([Row("b", 3, 3, fvd(VideoMAE=1.0).rows[0].numbers)]),
    ):
        assert "a has no FVD (VideoMAE) now" in found.broken(now)[0]


def test_any_change_from_zero_is_infinite(baseline: Path) -> None:
    (found,) = read_rules(["zero < -50 %"], baseline)
    assert found.broken(report(zero=-0.001)) and not found.broken(report(zero=0.0))


@pytest.mark.parametrize("rule", ["total", "total < x", "total < 1.2.3", "total = 3", "< 3 %", ""])
def test_rules_that_cannot_be_read(baseline: Path, rule: str) -> None:
    with pytest.raises(ConfigError, match="--fail-if must be such as"):
        read_rules([rule], baseline)


def test_measures_that_the_baseline_lacks(baseline: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no 'speed'; it has FVD \(VideoMAE\), oracle"):
        read_rules(["speed < -1 %"], baseline)
    baseline.write_text("[]")
    with pytest.raises(ConfigError, match="--baseline"):
        read_rules(["FVD > 1"], baseline)


def test_a_baseline_that_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    path.write_text('{"rows": [{"label": "a", "numbers": {"FVD": {"value": NaN}}}]}')
    with pytest.raises(ConfigError, match=r"cannot be read.*finite numbers, got nan"):
        read_rules(["FVD > 1 %"], path)
