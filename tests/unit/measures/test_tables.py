"""Tables as papers print them."""

from __future__ import annotations

from dataclasses import replace

from videorl.evaluation.statistics import Interval
from videorl.measures.results import Number, Report, Row
from videorl.measures.tables import format_latex, format_markdown, format_text
from videorl.measures.win_rates import WinRate

FLICKERING, FVD = "temporal flickering", "FVD (VideoMAE)"
RATE = WinRate(
    "b", "reward", "VQ", 0.6, 0.2, 0.2, Interval(0.7, 0.6, 0.8), 0.5, 100, 100, 0, 0.01, 0.02
)  # fmt: skip
REPORT = Report(
    [
        Row("a_1|x", 9, 9, {FLICKERING: Number(0.97, Interval(0.97, 0.96, 0.98)), FVD: Number(9)}),
        Row("b", 9, 9, {FLICKERING: Number(0.98), FVD: Number(0.25)}),
        Row("c", 9, 9, {FLICKERING: Number(0.98)}),
    ],
    [RATE],
    ["50 % of it"],
    computed_by={FLICKERING: "videorl", "motion smoothness": "vbench 0.1.5"},
)


def test_latex() -> None:
    found = format_latex(REPORT).splitlines()
    assert found[:2] == ["% 50 % of it", "% temporal flickering: videorl"]
    assert r"a\_1\textbar{}x & 97.00 & 9.00 \\" in found
    small = format_latex(replace(REPORT, win_rates=[replace(RATE, p_holm=0.0001)]))
    assert r"$<$ 0.001" in small  # LaTeX prints a plain one as another sign
    assert r"b & \textbf{98.00} & \textbf{0.2500} \\" in found  # of FVD the smallest is the best
    assert r"c & \textbf{98.00} & – \\" in found


def test_markdown() -> None:
    found = format_markdown(REPORT).splitlines()
    assert found[:3] == [
        "|  | temporal flickering | FVD (VideoMAE) |",
        "| --- | ---: | ---: |",
        "| a_1\\|x | 97.00 | 9.00 |",
    ]
    assert "| c | **98.00** | – |" in found
    assert found[-1] == "- 50 % of it"
    assert "| temporal flickering | videorl |" in found
    assert not any("vbench" in line for line in found)  # a measure that has no number


def test_text() -> None:
    found = format_text(REPORT)
    assert "97.00 [96.00, 98.00]" in found
    # ((1.96 + 0.84) 0.5 / 0.2)² = 49.06
    shares = ["60.0", "20.0", "20.0", "70.00", "[60.0,", "80.0]"]
    row = ["reward", "VQ", "b", *shares, "0.020", "100", "50"]
    assert row in [line.split() for line in found.splitlines()]


def test_too_few_prompts_to_see_anything() -> None:
    change = Interval(0.01, 0.0, 0.02)
    number = Number(0.98, difference=change, seen=None, needed=6, num_prompts=2, p=0.5, p_holm=1.0)
    base = Row("a", 2, 2, {FLICKERING: Number(0.97)})
    found = format_text(Report([base, Row("b", 2, 2, {FLICKERING: number})]))
    row = [*FLICKERING.split(), "b", "+1.00", "[+0.00,", "+2.00]", "1.000", "–", "2", "6"]
    assert row in [line.split() for line in found.splitlines()]
