"""Dimensions that another Python measures: errors, deaths, and the package itself on demand."""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.vbench_python import starts, write_python, write_weights
from tests.video_files import moving_pattern
from videorl.data.video_io import write_mp4
from videorl.errors import CheckpointError, VideoError
from videorl.measures import vbench_package, vbench_worker
from videorl.measures.shapes import Shape, View
from videorl.measures.vbench import DIMENSIONS, IN_PACKAGE
from videorl.measures.vbench_package import PYTHON, PackageDimension, load_package_dimension
from videorl.measures.vbench_pixels import clip_pixels, dino_pixels
from videorl.types import Video
from videorl.videos.opening import open_frames

MOTION = "motion smoothness"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(folder))
    write_weights(folder)
    return folder


def clip(path: Path, frames: np.ndarray) -> View:
    write_mp4(path, Video(frames, 8.0))
    return View(open_frames(path))


def grey(path: Path, level: int) -> View:
    return clip(path, np.full((20, 32, 32, 3), level, np.uint8))


def test_frames_and_their_rate_reach_the_process(tmp_path: Path, weights: Path) -> None:
    found = load_package_dimension(MOTION, str(write_python(tmp_path)), "cpu")
    view = clip(tmp_path / "a.mp4", moving_pattern(20, 32, 48))  # more than a part
    frames = open_frames(tmp_path / "a.mp4").read(range(20))
    assert found.of(view)[0] == pytest.approx(frames.mean() / 255.0 + 8.0)
    half = View(open_frames(tmp_path / "a.mp4"), Shape(10, 4.0, 32, 48))
    assert found.of(half)[0] == pytest.approx(frames[::2].mean() / 255.0 + 4.0, abs=1e-9)
    assert starts(weights, MOTION) == 1
    assert found.computed_by == "vbench 0.1.5 in an environment of its own (torch 2.14.1)"


def test_a_clip_that_fails_costs_no_process(tmp_path: Path, weights: Path) -> None:
    found = load_package_dimension(MOTION, str(write_python(tmp_path)), "cpu")
    with pytest.raises(VideoError, match="RuntimeError: too bright"):
        found.of(grey(tmp_path / "white.mp4", 250))
    assert found.of(grey(tmp_path / "grey.mp4", 128))[0] > 8.0
    assert starts(weights, MOTION) == 1


def test_a_process_that_dies_is_started_anew_twice(tmp_path: Path, weights: Path) -> None:
    found = load_package_dimension(MOTION, str(write_python(tmp_path)), "cpu")
    black, other = grey(tmp_path / "black.mp4", 0), grey(tmp_path / "grey.mp4", 128)
    for _ in range(2):  # between them it measures, so that it is not given up
        with pytest.raises(VideoError, match=r"was killed \(out of memory\?\).*no memory is left"):
            found.of(black)
        assert found.of(other)[0] > 8.0
    for _ in range(2):
        with pytest.raises(VideoError, match="was killed"):
            found.of(black)
    with pytest.raises(VideoError, match="given up, as 2 processes in a row died"):
        found.of(other)
    assert starts(weights, MOTION) == 4


def test_what_is_not_there_is_named(tmp_path: Path, weights: Path) -> None:
    python = str(write_python(tmp_path / "bin"))
    (weights / "amt_model/amt-s.pth").write_text("damaged")
    with pytest.raises(
        CheckpointError, match=r"amt-s\.pth cannot be loaded: ValueError: these are no weights"
    ):
        load_package_dimension(MOTION, python, "cpu")
    (weights / "amt_model/amt-s.pth").unlink()
    with pytest.raises(CheckpointError, match=r"amt-s\.pth is not there"):
        load_package_dimension(MOTION, python, "cpu")
    with pytest.raises(CheckpointError, match="nowhere cannot be run"):
        load_package_dimension("dynamic degree", str(tmp_path / "nowhere"), "cpu")
    with pytest.raises(CheckpointError, match=r"true: the process of vbench ended with 0"):
        load_package_dimension("dynamic degree", "/bin/true", "cpu")
    with pytest.raises(CheckpointError, match=r"echo: .* said '-I .*', which is no answer"):
        load_package_dimension("dynamic degree", "/bin/echo", "cpu")
    (tmp_path / "latin").write_text("#!/bin/sh\nprintf 'caf\\351\\n'\n")
    (tmp_path / "latin").chmod(0o755)
    with pytest.raises(CheckpointError, match=r"latin: .* said 'caf.*', which is no answer"):
        load_package_dimension("dynamic degree", str(tmp_path / "latin"), "cpu")
    found = load_package_dimension("dynamic degree", str(tmp_path), "cpu")  # its bin/python
    assert "vbench 0.1.5" in found.settings


def test_a_python_without_the_package_says_so(tmp_path: Path, weights: Path) -> None:
    """With the worker as it is, in this very environment."""
    with pytest.raises(CheckpointError, match="ModuleNotFoundError: No module named 'vbench'"):
        load_package_dimension(MOTION, sys.executable, "cpu")
    with pytest.raises(CheckpointError, match=r"it: the device banana cannot be used there \(.*\)"):
        load_package_dimension(MOTION, sys.executable, "banana")


def test_an_answer_that_nobody_waited_for_is_not_that_on_the_next_clip(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_package_dimension(MOTION, str(write_python(tmp_path)), "cpu")
    dark, light = grey(tmp_path / "dark.mp4", 60), grey(tmp_path / "light.mp4", 180)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(vbench_package._Process, "_read", lambda *_: interrupt())
        found.of(dark)
    assert found.of(light)[0] == pytest.approx(180 / 255 + 8.0, abs=0.02)


def test_a_process_whose_gpu_breaks_is_started_anew(tmp_path: Path, weights: Path) -> None:
    found = load_package_dimension(MOTION, str(write_python(tmp_path)), "cpu")
    with pytest.raises(VideoError, match="CUDA error: an illegal memory access"):
        found.of(grey(tmp_path / "middle.mp4", 160))
    assert found.of(grey(tmp_path / "grey.mp4", 128))[0] > 8.0
    assert starts(weights, MOTION) == 2


def test_a_process_that_hangs_is_killed(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_package_dimension(MOTION, str(write_python(tmp_path)), "cpu")
    light, other = grey(tmp_path / "light.mp4", 210), grey(tmp_path / "grey.mp4", 128)
    with monkeypatch.context() as patched, pytest.raises(VideoError, match="no answer in 1 s"):
        patched.setattr(vbench_package, "_CLIP_S", 0.0)
        patched.setattr(vbench_package, "_FRAME_S", 0.05)  # of 20
        found.of(light)
    assert found.of(other)[0] > 8.0
    python = tmp_path / "hangs"
    python.write_text("#!/bin/sh\nsleep 100000\nexit 1\n")  # what it starts holds its output too
    python.chmod(0o755)
    monkeypatch.setattr(vbench_package, "_LOAD_S", 0.0)
    with pytest.raises(CheckpointError, match=r"hangs: .* was killed: no answer in 0 s"):
        load_package_dimension(MOTION, str(python), "cpu")


def test_a_process_that_closes_its_output_and_stays_is_killed(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "mute"
    python.write_text("#!/bin/sh\nexec >&- sleep 100000\n")
    python.chmod(0o755)
    monkeypatch.setattr(vbench_package, "_EXIT_S", 0.1)
    with pytest.raises(CheckpointError, match="closed its output without ending, and was killed"):
        load_package_dimension(MOTION, str(python), "cpu")


def test_closing_ends_the_wait_of_another_thread(tmp_path: Path, weights: Path) -> None:
    found = load_package_dimension(MOTION, str(write_python(tmp_path)), "cpu")
    light, other = grey(tmp_path / "light.mp4", 210), grey(tmp_path / "grey.mp4", 128)
    hangs = weights / "amt_model/amt-s.pth.hangs"
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(found.of, light), pool.submit(found.of, light)]
        until(hangs.exists)
        found.close()
        for future in waiting:
            with pytest.raises(VideoError, match="not measured, as it was stopped"):
                future.result(120)
    with pytest.raises(VideoError, match="not measured, as it was stopped"):
        found.of(other)
    assert starts(weights, MOTION) == 1


def test_a_process_that_hangs_ends_with_its_input(tmp_path: Path, weights: Path) -> None:
    """As where we are killed, and cannot kill it."""
    found = load_package_dimension(MOTION, str(write_python(tmp_path)), "cpu")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(found.of, grey(tmp_path / "light.mp4", 210))
        until((weights / "amt_model/amt-s.pth.hangs").exists)
        assert found._process is not None and found._process._process.stdin is not None
        found._process._process.stdin.close()
        with pytest.raises(VideoError, match="the process of vbench ended with 1"):
            waiting.result(120)
    found.close()


def until(is_so: Callable[[], bool], limit_s: float = 120.0) -> None:
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_frames_for_which_there_is_no_room(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_package_dimension(MOTION, str(write_python(tmp_path)), "cpu")
    view = grey(tmp_path / "grey.mp4", 128)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, usual[1]))
    try:
        with pytest.raises(VideoError, match=r"File too large.*TMPDIR"):
            found.of(view)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    with monkeypatch.context() as patched, pytest.raises(VideoError, match="TMPDIR"):
        patched.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        found.of(view)
    assert found.of(view)[0] > 8.0


def interrupt() -> None:
    raise KeyboardInterrupt


def test_files_that_hold_more_than_tensors() -> None:
    text = "Weights only load failed.\n\tWeightsUnpickler error: Unsupported global: GLOBAL x"
    said = vbench_worker._why_not_loaded(pickle.UnpicklingError(text), "amt-s.pth")
    assert "amt-s.pth cannot be read as tensors alone (WeightsUnpickler error: Unsupp" in said
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1" in said and "\n" not in said


_WEIGHTS = """
import os, sys, torch, vbench
from easydict import EasyDict
from omegaconf import OmegaConf
from pyiqa.archs.musiq_arch import MUSIQ
from vbench.third_party.RAFT.core.raft import RAFT
from vbench.third_party.amt.utils.build_utils import build_from_cfg

torch.manual_seed(0)
package = os.path.dirname(vbench.__file__)
amt = build_from_cfg(OmegaConf.load(package + "/third_party/amt/cfgs/AMT-S.yaml").network)
raft = RAFT(EasyDict(small=False, mixed_precision=False, alternate_corr=False)).state_dict()
for name in ("weight", "bias"):  # flow of about 3 pixels, which is the limit
    raft["update_block.flow_head.conv2." + name] *= 0.09
torch.save({"state_dict": amt.state_dict()}, sys.argv[1])
torch.save({"module." + name: tensor for name, tensor in raft.items()}, sys.argv[2])
torch.save(MUSIQ(pretrained=False).state_dict(), sys.argv[3])
"""
_DIRECTLY = """
import importlib, json, os, sys

folder, clips = sys.argv[1], sys.argv[2:]
import vbench
from vbench.utils import init_submodules

info = folder + "/info.json"
names = ("motion_smoothness", "dynamic_degree", "imaging_quality")
prompts = [{"prompt_en": "a", "dimension": list(names), "video_list": clips}]
with open(info, "w") as file:
    json.dump(prompts, file)
submodules = init_submodules(names, local=True)
found = {}
for name in names:
    compute = getattr(importlib.import_module("vbench." + name), "compute_" + name)
    mean, rows = compute(info, "cpu", submodules[name])
    found[name.replace("_", " ")] = [float(mean), [float(row["video_results"]) for row in rows]]
import numpy
from vbench.utils import clip_transform, dino_transform, load_video

frames = load_video(clips[1])
pixels = {"dino": dino_transform(32)(frames), "clip": clip_transform(32)(frames)}
numpy.savez(folder + "/pixels.npz", **{name: made.numpy() for name, made in pixels.items()})
with open(folder + "/found.json", "w") as file:
    json.dump(found, file)
"""


@pytest.mark.long
@pytest.mark.skipif(PYTHON not in os.environ, reason=f"{PYTHON} names no Python with vbench")
def test_numbers_are_those_of_the_package_on_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights under the published names, and whole files through the package's own code."""
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    write_weights(tmp_path)
    python = os.environ[PYTHON]

    files = [str(tmp_path / DIMENSIONS[name].weights_file) for name in IN_PACKAGE]
    subprocess.run([python, "-I", "-c", _WEIGHTS, *files], check=True)
    wide = moving_pattern(6, 136, 192)[:, :, ::-1]
    clips = {"plain": moving_pattern(5, 128, 160), "wide": wide, "dark": wide // 8}
    for name, frames in clips.items():
        write_mp4(tmp_path / f"{name}.mp4", Video(frames, 16.0))
    paths = [str(tmp_path / f"{name}.mp4") for name in clips]
    subprocess.run([python, "-I", "-c", _DIRECTLY, str(tmp_path), *paths], check=True)
    frames = open_frames(Path(paths[1])).read(range(len(wide)))
    with np.load(tmp_path / "pixels.npz") as pixels:  # of the dimensions that are measured here
        assert dino_pixels(frames, 32).numpy() == pytest.approx(pixels["dino"], abs=1e-5)
        assert clip_pixels(frames, 32).numpy() == pytest.approx(pixels["clip"], abs=1e-5)
    theirs = json.loads((tmp_path / "found.json").read_text())
    for name in IN_PACKAGE:
        mean, rows = theirs[name]
        ours = PackageDimension(name, Path(python), tmp_path / DIMENSIONS[name].weights_file, "cpu")
        found = [float(ours.of(View(open_frames(Path(path))))[0]) for path in paths]
        ours.close()
        scale = 100.0 if name == "imaging quality" else 1.0
        assert found == pytest.approx([row / scale for row in rows], abs=1e-6), name
        assert np.mean(found) == pytest.approx(mean, abs=1e-6), name
        assert len(set(found)) > 1, name
    tiny = clip(tmp_path / "tiny.mp4", moving_pattern(5, 96, 128))
    ours = load_package_dimension("dynamic degree", python, "cpu")
    with pytest.raises(VideoError, match="sides of 121 pixels or more"):
        ours.of(tiny)
