"""VBench's numbers: flickering against the package itself, totals against the leaderboard."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from videorl.errors import ConfigError, VideoError
from videorl.measures.flickering import temporal_flickering
from videorl.measures.shapes import View
from videorl.measures.vbench import (
    DIMENSIONS,
    IN_PACKAGE,
    QUALITY,
    read_results,
    totals,
    why_absent,
)
from videorl.measures.vbench_networks import NETWORKS
from videorl.videos.opening import open_frames

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = Path(os.environ.get("VIDEORL_FIXTURES", ROOT.parent / "shared/fixtures"))
EXPECTED = FIXTURES / "temporal_flickering" / "expected.json"

_QUALITY = [0.8987, 0.9529, 0.9828, 0.9579, 0.6639, 0.5206, 0.5857]
_SEMANTIC = [0.8225, 0.3898, 0.9240, 0.8172, 0.3368, 0.3926, 0.2339, 0.2537, 0.2567]
MODEL_SCOPE = dict(zip(DIMENSIONS, [*_QUALITY, *_SEMANTIC], strict=True))
"""ModelScope in VBench's table, noted from memory: quality 78.05, semantic 66.54, total 75.75."""


def test_flickering_by_hand() -> None:
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    frames[1] = 255  # differences 255 and then, back to 51, 204: bytes must not wrap around
    frames[2] = 51
    parts = [frames[:1], frames[1:]]
    assert temporal_flickering(iter(parts)) == pytest.approx((255 - 229.5) / 255)
    assert temporal_flickering(iter([frames[[0, 0]]])) == 1.0
    with pytest.raises(VideoError, match="two frames"):
        temporal_flickering(iter(parts[:1]))


@pytest.mark.skipif(not EXPECTED.exists(), reason="no temporal_flickering in VIDEORL_FIXTURES")
def test_flickering_is_that_of_the_package() -> None:
    expected = json.loads(EXPECTED.read_text())
    found: dict[str, float] = {}
    for name in expected["videos"]:
        stored = (FIXTURES / name).with_suffix(".npz")
        path = FIXTURES / name
        if stored.exists():
            with np.load(stored) as arrays:
                frames = next(a for a in arrays.values() if a.ndim == 4 and a.dtype == np.uint8)
            found[f"{name} npz"] = temporal_flickering(iter([frames]))
            assert found[f"{name} npz"] == pytest.approx(
                expected["videos"][name]["from_npz"], abs=expected["tolerance"]["from_npz_abs"]
            )
        if path.exists():
            found[name] = temporal_flickering(View(open_frames(path)).parts())
            tolerance = expected["tolerance"]["from_mp4_abs_with_another_decoder"]
            assert found[name] == pytest.approx(
                expected["videos"][name]["from_mp4"], abs=tolerance
            ), name
    if not found:
        pytest.skip("none of the videos is in VIDEORL_FIXTURES")


def test_totals_are_those_of_the_leaderboard() -> None:
    found = totals(MODEL_SCOPE)
    assert found.quality == pytest.approx(0.7805, abs=2e-4)
    assert found.semantic == pytest.approx(0.6654, abs=2e-4)
    assert found.total == pytest.approx(0.7575, abs=2e-4)


def test_totals_by_hand() -> None:
    lows = {name: dimension.low for name, dimension in DIMENSIONS.items()}
    highs = {name: dimension.high for name, dimension in DIMENSIONS.items()}
    assert totals(lows).total == pytest.approx(0.0)
    assert totals(highs).total == pytest.approx(1.0)
    # Half of the dynamic degree, which weighs half of 6.5: 0.25 / 6.5; a quarter of color: 1 / 36.
    found = totals(lows | {"dynamic degree": 0.5, "color": 0.25})
    assert found.quality == pytest.approx(0.25 / 6.5)
    assert found.semantic == pytest.approx(1 / 36)
    assert found.total == pytest.approx((4 * 0.25 / 6.5 + 1 / 36) / 5)


def test_totals_are_of_all_dimensions_or_none() -> None:
    found = totals({name.replace(" ", "_"): MODEL_SCOPE[name] for name in QUALITY})
    assert found.quality == pytest.approx(0.7805, abs=2e-4)
    assert found.semantic is None and found.total is None
    assert totals({"scene": 0.5}).quality is None
    with pytest.raises(ConfigError, match="no dimension 'colour'"):
        totals({"colour": 0.5})
    with pytest.raises(ConfigError, match="finite"):
        totals({"scene": float("nan")})


def test_results_of_the_package_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x_eval_results.json"
    path.write_text(json.dumps({"dynamic_degree": [0.5, [{"video_results": True}]], "scene": 0.25}))
    assert read_results(path) == {"dynamic degree": 0.5, "scene": 0.25}
    for text in ("[]", '{"scene": "0.2"}', '{"scene": [NaN]}', '{"colour": 1}', "{"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="x_eval_results"):
            read_results(path)


def test_absent_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    said = why_absent("motion smoothness")
    assert str(tmp_path / "amt_model/amt-s.pth") in said and "not there" in said
    assert "--vbench-python" in said
    assert set(IN_PACKAGE) | set(NETWORKS) | {"temporal flickering"} == set(QUALITY)
