"""`videorl measure` with I3D, and with dimensions of VBench that another Python measures."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from jobs import command
from jobs.exit_codes import ExitCode
from jobs.measure import main
from tests.vbench_python import starts, write_python, write_weights
from tests.video_files import moving_pattern
from tests.video_networks import save_i3d
from videorl.data.video_io import write_mp4
from videorl.measures.i3d import I3DFeatures
from videorl.measures.vbench import QUALITY
from videorl.types import Video

MOTION, DYNAMIC, IMAGING = "motion smoothness", "dynamic degree", "imaging quality"


def clips(folder: Path, count: int, *, speed: int = 1, frames: int = 16) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = moving_pattern(frames * speed + number, 32, 48)[number::speed][:frames]
        write_mp4(folder / f"{number}.mp4", Video(pixels, 8.0))
        (folder / f"{number}.txt").write_text(f"prompt {number}")
    return folder


def run(*argv: object) -> int:
    return command.run(main, [str(word) for word in argv])


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "measured.json").read_text())


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("VIDEORL_VBENCH_PYTHON", str(write_python(tmp_path / "bin")))
    write_weights(tmp_path / "weights")
    return tmp_path / "weights"


def test_fvd_on_i3d_beside_that_on_videomae(tmp_path: Path) -> None:
    from tests.unit.jobs.test_measure import tiny_video_mae
    from videorl.data.video_io import read_video
    from videorl.measures.frechet import frechet_distance

    save_i3d(tmp_path / "i3d")
    a, b, real = (clips(tmp_path / n, 4, speed=s) for n, s in (("a", 1), ("b", 3), ("real", 1)))
    out, asked = tmp_path / "out", ("--reference", real, "--i3d", tmp_path / "i3d")
    both = ("--metric", "fvd_i3d", "fvd", "--video-mae", tiny_video_mae(tmp_path / "mae"))
    assert run(a, b, *both, *asked, "--few-clips", "--out", out) == 0
    same, other = (row["numbers"] for row in results(out)["rows"])
    network = I3DFeatures(str(tmp_path / "i3d"), "cpu")
    sides = [
        np.stack([network.of(read_video(path).frames) for path in sorted(place.glob("*.mp4"))])
        for place in (b, real)
    ]
    assert same["FVD (I3D)"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert other["FVD (I3D)"]["value"] == pytest.approx(frechet_distance(*sides), rel=1e-6)
    assert other["FVD (I3D)"]["value"] != pytest.approx(other["FVD (VideoMAE)"]["value"])
    assert str(tmp_path / "i3d") in results(out)["computed_by"]["FVD (I3D)"]
    assert run(a, "--metric", "fvd_i3d", *asked, "--at-infinity", "--out", out) == 1
    assert "FVD (I3D) at infinity of a is not measured: too few" in results(out)["notes"][0]
    alone = results(out)["rows"][0]["numbers"]
    assert "FVD (I3D)" in alone and "FVD (VideoMAE)" not in alone


def test_clips_that_are_too_short_for_i3d_are_counted(tmp_path: Path, weights: Path) -> None:
    save_i3d(tmp_path / "i3d")
    a, real = clips(tmp_path / "a", 4, frames=12), clips(tmp_path / "real", 4, frames=12)
    write_mp4(a / "0.mp4", Video(np.zeros((12, 32, 48, 3), np.uint8), 8.0))  # has another problem
    metrics = ("--metric", "motion_smoothness", "fvd_i3d")
    asked = (*metrics, "--reference", real, "--i3d", tmp_path / "i3d")
    assert run(a, *asked, "--out", tmp_path / "out") == 1
    said = results(tmp_path / "out")["notes"]
    assert "FVD (I3D) of a is not measured" in said[0] and "16 frames are needed" in said[0]
    assert "a: 4 clips lack a number" in said[1] and "was killed" in said[1]


def test_dimensions_of_another_python_join_the_totals(tmp_path: Path, weights: Path) -> None:
    a, out, file = clips(tmp_path / "a", 3), tmp_path / "out", tmp_path / "a_eval_results.json"
    metrics = [name.replace(" ", "_") for name in (MOTION, DYNAMIC, IMAGING)]
    here = (MOTION, DYNAMIC, IMAGING, "temporal flickering")
    others = [name for name in QUALITY if name not in here]
    file.write_text(json.dumps({name: [0.8, []] for name in others[1:]}))
    asked = (a, "--metric", *metrics, "temporal_flickering", "--vbench", f"a={file}")
    assert run(*asked, "--out", out) == 0
    assert "quality score" not in results(out)["rows"][0]["numbers"]  # a dimension is missing
    file.write_text(json.dumps({name: [0.8, []] for name in others}))
    assert run(*asked, "--out", out) == 0
    numbers, by = results(out)["rows"][0]["numbers"], results(out)["computed_by"]
    assert "quality score" in numbers and "total score" not in numbers
    assert by[MOTION].startswith("vbench 0.1.5 in an environment of its own")
    assert by["temporal flickering"] == "videorl" and "results" in by[others[0]]
    assert f"| {MOTION} | vbench 0.1.5 in" in (out / "measured.md").read_text()


def test_what_a_process_measured_is_not_measured_again(tmp_path: Path, weights: Path) -> None:
    a, out = clips(tmp_path / "a", 4), tmp_path / "out"
    black = np.zeros((16, 32, 48, 3), np.uint8)
    write_mp4(a / "1.mp4", Video(black, 8.0))
    asked = (a, "--metric", "motion_smoothness", "temporal_flickering", "--out", out)
    assert run(*asked) == 1  # the process died of a clip, and the others have their numbers
    found = results(out)
    assert found["rows"][0]["num_failed"] == 1
    assert "1.mp4: motion smoothness: the process of vbench was killed" in found["notes"][0]
    assert found["rows"][0]["numbers"]["temporal flickering"]["num_prompts"] == 4
    assert found["rows"][0]["numbers"][MOTION]["num_prompts"] == 3
    assert starts(weights, MOTION) == 2
    lines = (out / "measured.jsonl").read_text().splitlines()
    write_mp4(a / "1.mp4", Video(black + 99, 8.0))
    assert run(*asked) == 0
    added = (out / "measured.jsonl").read_text().splitlines()[len(lines) :]
    assert sum(MOTION in line for line in added) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_a_process_that_hangs(tmp_path: Path, weights: Path, workers: int) -> None:
    a, hangs = clips(tmp_path / "a", 2), weights / "amt_model/amt-s.pth.hangs"
    write_mp4(a / "0.mp4", Video(np.full((16, 32, 48, 3), 210, np.uint8), 8.0))

    def press() -> None:
        end = time.monotonic() + 120
        while not hangs.exists() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = Thread(target=press)
    thread.start()
    asked = ("--metric", "motion_smoothness", "temporal_flickering", "--workers", workers)
    assert run(a, *asked, "--out", tmp_path / "out") == ExitCode.STOPPED
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(hangs.read_text()), 0)


def test_networks_compute_in_single_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As StyleGAN-V's: on a GPU, cuDNN's convolutions would round to TF32."""
    save_i3d(tmp_path / "i3d")
    a, real = clips(tmp_path / "a", 4), clips(tmp_path / "real", 4, speed=3)
    rounds: list[bool] = []
    features, usual = I3DFeatures.of, torch.backends.cudnn.allow_tf32

    def noted(network: I3DFeatures, frames: Any) -> Any:
        rounds.append(torch.backends.cudnn.allow_tf32)
        return features(network, frames)

    monkeypatch.setattr(I3DFeatures, "of", noted)
    asked = ("--metric", "fvd_i3d", "--reference", real, "--i3d", tmp_path / "i3d")
    assert run(a, *asked, "--workers", 2, "--out", tmp_path / "out") == 0
    assert rounds == [False] * 8
    assert torch.backends.cudnn.allow_tf32 == usual


def test_a_dimension_that_cannot_be_loaded_is_named(tmp_path: Path, weights: Path) -> None:
    a, out = clips(tmp_path / "a", 2), tmp_path / "out"
    (weights / "raft_model/models/raft-things.pth").unlink()
    (weights / "amt_model/amt-s.pth").write_text("damaged")
    metrics = ("motion_smoothness", "dynamic_degree", "imaging_quality")
    assert run(a, "--metric", *metrics, "--out", out) == 1
    said = " ".join(results(out)["notes"])
    assert "motion smoothness is not measured" in said and "these are no weights" in said
    assert "raft-things.pth is not there" in said
    assert list(results(out)["rows"][0]["numbers"]) == [IMAGING]
