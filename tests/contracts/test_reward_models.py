"""What every reward model must do; a new one is covered by one entry in `tests.reward_cases`.

Each runs on a tiny checkpoint in its published layout, with random weights.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest

from tests.reward_cases import MODELS, Case, load, write
from videorl import rewards
from videorl.data.video_io import encode_mp4, read_video
from videorl.errors import CheckpointError, ConfigError, PromptError, VideoError
from videorl.protocols import RewardModel
from videorl.rewards.feed import Feed
from videorl.rewards.scoring import checked_scores, score_each
from videorl.types import Score, Video


@pytest.fixture(scope="module", params=sorted(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def case(name: str) -> Case:
    return MODELS[name]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path | None]:
    """Return a function that gives a model's checkpoint, written once. Never write to it."""
    return cache(lambda name: write(MODELS[name], tmp_path_factory.mktemp("checkpoint") / name))


@pytest.fixture(scope="module")
def folder(name: str, folder_of: Callable[[str], Path | None]) -> Path | None:
    return folder_of(name)


@pytest.fixture(scope="module")
def model(name: str, case: Case, folder: Path | None) -> RewardModel:
    return load(name, case, folder)


def clip(
    num_frames: int = 6, height: int = 28, width: int = 42, fps: float = 4.0, seed: int = 0
) -> Video:
    levels = np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), np.uint8)
    return Video(levels, fps)


def assert_equal(got: Score, wanted: Score, tolerance: float) -> None:
    assert got.dimensions == pytest.approx(wanted.dimensions, abs=tolerance)
    assert got.total == pytest.approx(wanted.total, abs=tolerance)


def test_every_reward_model_is_covered() -> None:
    assert MODELS.keys() == rewards.MODELS.keys()


def test_scores_have_the_dimensions_of_the_model(model: RewardModel, case: Case) -> None:
    (score,) = model.score([clip()], case.prompts[:1])
    assert tuple(score.dimensions) == model.dimensions
    assert all(map(math.isfinite, (*score.dimensions.values(), score.total)))
    assert model.score([], []) == []


def test_batches_of_any_kind_score_like_single_videos(model: RewardModel, case: Case) -> None:
    videos = [
        clip(6),
        clip(case.min_frames, 64, 30, 1.0, seed=1),
        clip(41, 20, 20, 29.97, seed=2),
        clip(6, seed=3),
        clip(7, 30, 100, 0.5, seed=4),
        clip(6),
    ]
    prompts = [case.prompts[number % 2] for number in (0, 1, 1, 0, 0, 1)]
    together = model.score(videos, prompts)
    for video, prompt, score in zip(videos, prompts, together, strict=True):
        assert_equal(score, model.score([video], [prompt])[0], case.tolerance)
    assert len({round(score.total, 9) for score in together}) > 3


def test_threads_and_concurrent_requests_change_no_bit(
    model: RewardModel, case: Case, tmp_path: Path
) -> None:
    if not hasattr(model, "feed"):
        pytest.skip("no network, so nothing is made ready ahead of it")
    fed: Any = model
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode_mp4(clip(9)))
    videos: Any = [path, clip(5, seed=1), clip(6, 40, 30, seed=2)]
    prompts = [case.prompts[0]] * 3
    wanted = fed.score(videos, prompts)
    plain = fed.feed
    fed.feed = Feed(2, Lock())
    try:
        with ThreadPoolExecutor(2) as requests:
            found = list(requests.map(lambda _: fed.score(videos, prompts), range(2)))
        with pytest.raises(VideoError, match="no such file"):
            fed.score([*videos[1:], tmp_path / "none.mp4"], prompts)
    finally:
        fed.feed = plain
    assert found == [wanted, wanted]


def test_a_file_scores_like_its_frames_in_memory(
    model: RewardModel, case: Case, tmp_path: Path
) -> None:
    path = tmp_path / "a clip.mp4"
    path.write_bytes(encode_mp4(clip(13, fps=5.0)))
    videos: list[Any] = [path, str(path), read_video(path)]
    from_path, from_text, from_memory = model.score(videos, case.prompts[:1] * 3)
    assert_equal(from_path, from_memory, 1e-6)
    assert_equal(from_text, from_memory, 1e-6)


def bad_files(folder: Path) -> dict[Path, str]:
    """Write files that no model can score; return them with the reason to be given."""
    good = encode_mp4(clip(24, 64, 64))
    damaged = bytearray(good)
    damaged[len(good) // 4 : len(good) // 2] = np.random.default_rng(0).bytes(len(good) // 4 + 1)
    written = {
        "corrupt.mp4": (bytes(damaged), "cannot be decoded"),
        "cut.mp4": (good[: len(good) * 2 // 3], "truncated"),
        "empty.mp4": (b"", "cannot be decoded"),
        "text.mp4": (b"this is no video\n" * 99, "cannot be decoded"),
        "still.mp4": (encode_mp4(clip(1)), "holds 1 frame"),
    }
    for file_name, (content, _) in written.items():
        (folder / file_name).write_bytes(content)
    (folder / "folder.mp4").mkdir()
    found = {folder / file_name: reason for file_name, (_, reason) in written.items()}
    return found | {folder / "none.mp4": "no such file", folder / "folder.mp4": "is a folder"}


FRAMES = clip().frames
BAD_VIDEOS: Mapping[str, tuple[Any, Any]] = {
    "holds 0 frame": (FRAMES[:0], 4.0),
    "holds 1 frame": (FRAMES[:1], 4.0),
    "[6, 28, 42] (grayscale)": (FRAMES[..., 0], 4.0),
    "[6, 28, 42, 1] (grayscale)": (FRAMES[..., :1], 4.0),
    "[6, 28, 42, 4] (RGBA)": (np.concatenate([FRAMES, FRAMES[..., :1]], axis=-1), 4.0),
    "[3, 28, 42, 6]": (FRAMES.transpose(3, 1, 2, 0), 4.0),
    "got float32": (FRAMES.astype(np.float32), 4.0),
    "got int64": (FRAMES.astype(np.int64), 4.0),
    "got list": (FRAMES.tolist(), 4.0),
    "1×1 pixels": (FRAMES[:, :1, :1], 4.0),
    "42×0 pixels": (FRAMES[:, :0], 4.0),
    "got 0.0": (FRAMES, 0.0),
    "got -4.0": (FRAMES, -4.0),
    "got nan": (FRAMES, math.nan),
    "got inf": (FRAMES, math.inf),
    "as a number, got None": (FRAMES, None),
}


def test_bad_videos_are_named_with_the_reason_and_cost_only_themselves(
    model: RewardModel, case: Case, tmp_path: Path
) -> None:
    bad: list[tuple[Any, str]] = [
        (path, f"{path}: .*{reason}") for path, reason in bad_files(tmp_path).items()
    ]
    bad += [
        (Video(*video), f"PLACE: .*{re.escape(reason)}") for reason, video in BAD_VIDEOS.items()
    ]
    bad += [(FRAMES, "PLACE: expected a path or a Video, got ndarray")]
    videos = [clip(), *(video for video, _ in bad), clip(seed=1)]
    results = score_each(model, videos, case.prompts[:1] * len(videos))
    for place, (result, (_, reason)) in enumerate(zip(results[1:-1], bad, strict=True), start=1):
        assert isinstance(result, VideoError), reason
        assert re.match(reason.replace("PLACE", f"video {place} of {len(videos)}"), str(result))
    for video, result in ((videos[0], results[0]), (videos[-1], results[-1])):
        assert isinstance(result, Score)
        assert_equal(result, model.score([video], case.prompts[:1])[0], case.tolerance)
    with pytest.raises(VideoError, match="video 1 of 2: holds 1 frame"):
        model.score([clip(), Video(FRAMES[:1], 4.0)], case.prompts)


def test_bad_prompts_are_named_with_the_reason_and_cost_only_themselves(
    model: RewardModel, case: Case
) -> None:
    if case.is_blind_to_prompts:
        assert model.score([clip()], [""]) == model.score([clip()], ["a cat"])
        return
    good = case.prompts[0]
    tokens = ("<image>", "<|VQ_reward|>", case.special)
    prompts: list[Any] = [good, "", " \n\t", None, *(f"{good} {token}" for token in tokens), good]
    results = score_each(model, [clip()] * len(prompts), prompts)
    for place, result in enumerate(results[1:-1], start=1):
        assert isinstance(result, PromptError), prompts[place]
        assert str(result).startswith(f"prompt {place} of {len(prompts)}")
    assert all(isinstance(result, Score) for result in (results[0], results[-1]))


def test_the_loop_counts_what_a_model_refuses(model: RewardModel, case: Case) -> None:
    results = checked_scores(model, [clip(), Video(FRAMES, 0.0), clip()], case.prompts[:1] * 3)
    assert results[1] == "video_unscorable"
    assert isinstance(results[0], Score)
    assert isinstance(results[2], Score)


def test_numbers_of_videos_and_prompts_must_agree(model: RewardModel, case: Case) -> None:
    with pytest.raises(VideoError, match="got 1 videos for 2 prompts"):
        model.score([clip()], case.prompts)


def test_each_missing_or_damaged_file_of_a_checkpoint_is_named(
    name: str, case: Case, folder: Path | None, tmp_path: Path
) -> None:
    if folder is None:
        return
    endings = (".pth", ".pt", ".safetensors", "tokenizer.json", "config.json")
    files = [file for file in sorted(folder.rglob("*")) if file.name.endswith(endings)]
    assert files
    for file in files:
        copy = tmp_path / name
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.mp4", "*.npz"))
        same = copy / file.relative_to(folder)
        content = same.read_bytes()
        for damage in (None, content[: len(content) // 3]):
            same.unlink(missing_ok=True)
            if damage is not None:
                same.write_bytes(damage)
            try:
                load(name, case, copy)
            except CheckpointError as error:
                assert same.name in str(error) or str(same.parent) in str(error), error
            else:
                assert same.name in UNUSED | case.unused, same
        shutil.rmtree(copy)


UNUSED = {"generation_config.json", "tokenizer_config.json"}
"""Published files that some models do not read."""


def test_no_such_folder_is_named(name: str, case: Case, tmp_path: Path) -> None:
    error = ConfigError if case.write is None else CheckpointError
    with pytest.raises(error, match="nowhere"):
        rewards.load(name, str(tmp_path / "nowhere"), **case.options(tmp_path / "nowhere"))


PROGRAM = """
import socket, sys

def no_network(*_args, **_kwargs):
    raise AssertionError("the network was used")

sys.modules.update(dict.fromkeys({names}))  # None: as if not installed
socket.socket.connect = socket.getaddrinfo = no_network

import numpy as np
from videorl import rewards
from videorl.types import Video

video = Video(np.zeros((4, 28, 42, 3), np.uint8), 4.0)
for name, (folder, options, prompt) in {cases}.items():
    (score,) = rewards.load(name, folder, **options).score([video], [prompt])
    print(name, score.total)
print(sorted(name for name in sys.modules if name.partition(".")[0] == "transformers_modules"))
"""


def test_models_need_no_torchvision_flash_attention_remote_code_or_network(
    folder_of: Callable[[str], Path | None],
) -> None:
    names = {
        "torchvision", "flash_attn", "qwen_vl_utils", "mantis", "pytorchvideo", "xformers",
        "hpsv2", "open_clip", "ImageReward", "timm",
    }  # fmt: skip
    cases: dict[str, tuple[str | None, dict[str, Any], str]] = {}
    for name, case in MODELS.items():
        folder = folder_of(name)
        options = case.options(folder) if folder else {}
        cases[name] = (str(folder) if folder else None, options, case.prompts[0])
    program = PROGRAM.format(names=names, cases=cases)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *scored, remote = done.stdout.splitlines()
    assert [line.split()[0] for line in scored] == list(MODELS)
    assert remote == "[]"
