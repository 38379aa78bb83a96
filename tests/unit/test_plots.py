"""Plots as SVG files: well formed, escaped, and every known point is drawn where it belongs."""

from __future__ import annotations

from xml.etree import ElementTree

from videorl.ablation.plots import arms_plot, curves_plot
from videorl.report.plots import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, line_panels, line_plot

SVG = "{http://www.w3.org/2000/svg}"


def test_points_notes_and_intervals() -> None:
    first = Line("a < b", [(0, 0.0), (1, None), (2, 1.0)], ["low", "gone", "high"])
    second = Line("c", [(1, 0.5)], intervals=[(0.25, 0.75)])
    text = line_plot("x & y", [first, second], x_name="x", y_name="y", y_range=(0.0, 1.0))
    root = ElementTree.fromstring(text)
    circles = [
        (float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter(f"{SVG}circle")
    ]
    assert len(circles) == 3
    # The axis of x reaches 6 % beyond its values; that of y ends where it was told to.
    step = (WIDTH - RIGHT - LEFT) / 2.24
    assert circles[0][0] == round(LEFT + 0.12 * step, 1)
    assert circles[1] == (round(LEFT + 2.12 * step, 1), TOP)
    middle = circles[0][1] + (TOP - circles[0][1]) / 2
    assert abs(circles[2][1] - middle) < 0.1
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert {"x & y", "a < b", "c", "low", "high"} <= set(words)
    assert "gone" not in words


def test_no_point_at_all_is_an_empty_plot() -> None:
    text = line_plot("nothing", [Line("a", [])], x_name="x", y_name="y")
    assert not list(ElementTree.fromstring(text).iter(f"{SVG}circle"))
    assert f'height="{HEIGHT}"' in text


def test_more_lines_than_colours_are_all_drawn_and_told_apart() -> None:
    lines = [Line(f"line {number}", [(0, number), (1, number)]) for number in range(8)]
    root = ElementTree.fromstring(line_plot("many", lines, x_name="x", y_name="y"))
    looks = [
        (path.attrib["stroke"], path.attrib.get("stroke-dasharray"))
        for path in root.iter(f"{SVG}path")
    ]
    assert len(looks) == len({*looks}) == 8
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert {line.name for line in lines} <= {*words}


def test_panels_share_a_legend_and_have_scales_of_their_own() -> None:
    runs = [[(0, 0.0), (4, 1.0)], [(0, 0.0), (4, 3.0)]]
    small = [Line("mean", [(0, 0.0), (4, 2.0)], behind=runs)]
    large = [Line("mean", [(0, 0.0), (4, 2e6)])]
    text = line_panels({"a < b": small, "c": large}, x_name="steps")
    root = ElementTree.fromstring(text)
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert [words.count(word) for word in ("a < b", "c", "steps", "mean")] == [1, 1, 2, 1]
    assert {"2", "2e+06"} <= {*words}
    assert len(list(root.iter(f"{SVG}path"))) == 3 + 1


def test_one_seed_has_no_interval_and_every_arm_its_row() -> None:
    curve = [{"step": 4, "total": 0.5}]
    arms = {"one seed": [{"seed": 0, "curve": curve}]}
    root = ElementTree.fromstring(arms_plot(arms, {"total": "total"}))
    assert not list(root.iter(f"{SVG}path"))
    arms["two"] = [{"seed": seed, "curve": [{"step": 4, "total": seed}]} for seed in (0, 1)]
    root = ElementTree.fromstring(arms_plot(arms, {"total": "total"}))
    assert len(list(root.iter(f"{SVG}path"))) == 1
    rows = {float(dot.attrib["cy"]) for dot in root.iter(f"{SVG}circle")}
    assert rows == {36.0, 60.0}
    drawn = ElementTree.fromstring(curves_plot(arms, {"total": "total"}))
    assert len(list(drawn.iter(f"{SVG}path"))) == 2 + 1 + 2
    assert len(list(drawn.iter(f"{SVG}circle"))) == 4
