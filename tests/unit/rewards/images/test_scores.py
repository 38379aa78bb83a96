"""The image rewards from their published layouts, against computations of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TypeAlias

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.blip_model import image_reward_of, run_head
from tests.clip_models import SIDE_PX
from videorl.data.video_io import read_video, write_mp4
from videorl.errors import ConfigError, PromptError, VideoError
from videorl.rewards.clip_normal import MEAN, STD
from videorl.rewards.images.clip_preference import ClipPrompts
from videorl.rewards.per_frame import PerFrameReward
from videorl.rewards.scoring import score_each
from videorl.types import Score, Video

Load: TypeAlias = Callable[..., PerFrameReward]
NAMES = ("laion_aesthetic", "pick_score", "hps_v2", "image_reward")
PROMPTS = ["a red cat", "a dog runs", "a red cat"]


def noise(count: int, seed: int, size: tuple[int, int] = (SIDE_PX, SIDE_PX)) -> Video:
    frames = np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)
    return Video(frames, 8.0)


def pixels_of(video: Video) -> torch.Tensor:
    """Return pixels of frames that already have the network's size."""
    normal = (video.frames / 255 - np.array(MEAN)) / np.array(STD)
    return torch.tensor(normal, dtype=torch.float32).permute(0, 3, 1, 2)


@torch.no_grad()
def expected(name: str, models: SimpleNamespace, video: Video, prompt: str) -> list[float]:
    """Return each frame's score by a computation that shares no code with the project."""
    pixels = pixels_of(video)
    if name == "image_reward":
        tensors = models.image_reward
        return [image_reward_of(tensors, picture, prompt) for picture in pixels]
    ids = clip_ids(models, prompt)
    if name == "hps_v2":
        return models.open_clip.cosine(pixels, ids).tolist()
    both = models.clip(input_ids=torch.tensor([ids]), pixel_values=pixels)
    if name == "pick_score":
        return both.logits_per_image[:, 0].tolist()
    return run_head(models.heads[0], F.normalize(both.image_embeds)).tolist()


def clip_ids(models: SimpleNamespace, prompt: str) -> list[int]:
    """Return ids with the merges of the tiny tokenizer applied by hand: `cat` and `red`."""
    from transformers import CLIPTokenizer

    words = CLIPTokenizer.from_pretrained(models.path["pick_score"]).get_vocab()
    ids = [words["<|startoftext|>"]]
    for word in prompt.split():
        whole = f"{word}</w>" in words
        ids += [words[f"{word}</w>"]] if whole else [words[letter] for letter in word[:-1]]
        ids += [] if whole else [words[f"{word[-1]}</w>"]]
    return [*ids[:15], words["<|endoftext|>"]]


@pytest.mark.parametrize("name", NAMES)
def test_frames_score_what_an_independent_computation_gives(
    load_tiny: Load, image_models: SimpleNamespace, name: str
) -> None:
    video = noise(3, 0)
    spread = []
    for prompt in PROMPTS[:2]:
        (score,) = load_tiny(name).score([video], [prompt])
        wanted = expected(name, image_models, video, prompt)
        assert score.raw["frame_scores"] == pytest.approx(wanted, abs=2e-5, rel=1e-5)
        assert score.total == pytest.approx(sum(wanted) / 3, abs=2e-5, rel=1e-5)
        spread += [*wanted]
    assert max(spread) - min(spread) > 0.01  # so that a wrong picture or prompt is seen


@pytest.mark.parametrize("name", NAMES)
def test_batches_files_and_memory_give_the_same_numbers(
    load_tiny: Load, name: str, tmp_path: Path
) -> None:
    model = load_tiny(name, batch_frames=4)
    videos = [noise(5, 1, (30, 43)), noise(2, 2, (64, 36)), noise(3, 3, (16, 16))]
    together = model.score(videos, PROMPTS)
    for video, prompt, batched in zip(videos, PROMPTS, together, strict=True):
        (alone,) = load_tiny(name).score([video], [prompt])
        assert alone.raw["frame_scores"] == pytest.approx(batched.raw["frame_scores"], abs=1e-5)
    path = tmp_path / "clip.mp4"
    write_mp4(path, noise(3, 4, (64, 64)))
    from_file, from_memory = (
        model.score([source], ["a cat"]) for source in (path, read_video(path))
    )
    assert from_file == from_memory


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_video_costs_only_itself(load_tiny: Load, name: str, tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.mp4", tmp_path / "damaged.mp4"
    write_mp4(whole, noise(4, 0, (64, 64)))
    damaged.write_bytes(whole.read_bytes()[:2000])
    model = load_tiny(name)
    with pytest.raises(VideoError, match=r"damaged\.mp4"):
        model.score([whole, damaged], ["a cat", "a cat"])
    results = score_each(model, [whole, damaged, noise(2, 0)], ["a cat"] * 3)
    assert isinstance(results[1], VideoError)
    assert [results[0]] == model.score([whole], ["a cat"])
    assert isinstance(results[2], Score)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("pick_score", " "),
        ("pick_score", "a <|EndOfText|> cat"),
        ("hps_v2", "a &lt;|endoftext|&gt; cat"),
        ("hps_v2", "a <end_of_text> cat"),
        ("image_reward", "a [SEP] cat"),
        ("image_reward", ""),
    ],
)
def test_prompts_that_would_break_the_reading_are_refused(
    load_tiny: Load, name: str, prompt: str
) -> None:
    with pytest.raises(PromptError, match=r"is empty|is reserved"):
        load_tiny(name).score([noise(2, 0)], [prompt])


def test_the_aesthetic_predictor_reads_no_prompt(
    load_tiny: Load, image_models: SimpleNamespace
) -> None:
    video = noise(2, 0)
    scores = load_tiny("laion_aesthetic").score([video, video], ["", "<|endoftext|>"])
    assert scores[0].raw["frame_scores"] == pytest.approx(scores[1].raw["frame_scores"], abs=1e-6)
    (linear,) = load_tiny("laion_aesthetic", path=image_models.linear).score([video], [""])
    with torch.no_grad():
        embeds = image_models.clip.get_image_features(pixels_of(video)).pooler_output
    head = image_models.heads[1]
    wanted = F.normalize(embeds) @ head["weight"][0] + head["bias"]
    assert linear.raw["frame_scores"] == pytest.approx(wanted.tolist(), abs=1e-5)


def test_prompts_are_cut_cleaned_and_tokenized_as_upstream(
    load_tiny: Load, image_models: SimpleNamespace
) -> None:
    for name, prompt, same in (
        ("hps_v2", "&amp;amp; RED\n  cat ", "& red cat"),
        ("pick_score", "RED\n  cat ", "red cat"),
        ("pick_score", "雨 " * 40, "雨 " * 39),
    ):
        reader = load_tiny(name).scorer.prompts
        assert isinstance(reader, ClipPrompts)
        ids = reader.token_ids(prompt)
        assert ids == reader.token_ids(same)
        assert len(ids) <= 16
        assert ids[-1] == clip_ids(image_models, "a")[-1]
    reader = load_tiny("image_reward").scorer.prompts
    assert reader is not None
    ids = reader.read("A red cat").tolist()
    assert ids == [2, 4, 5, 6, 3] + [0] * 30
    assert reader.read("cat " * 50).tolist() == [2] + [6] * 33 + [3]


def test_the_version_of_hps_v2_picks_the_file(load_tiny: Load) -> None:
    video = noise(2, 0)
    newer, older = (
        load_tiny("hps_v2", version=version).score([video], ["a cat"])[0]
        for version in ("v2.1", "v2.0")
    )
    assert abs(newer.total - older.total) > 1e-3
    with pytest.raises(ConfigError, match=r"did you mean 'v2\.1'"):
        load_tiny("hps_v2", version="2.1")
    tall = noise(2, 0, (90, 60))
    rough, smooth = (
        load_tiny("hps_v2", antialias=antialias).score([tall], ["a cat"])[0]
        for antialias in (False, True)
    )
    assert rough.total != pytest.approx(smooth.total, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_scores_have_gradients_with_respect_to_pixels(load_tiny: Load, name: str) -> None:
    scorer = load_tiny(name).scorer
    pixels = pixels_of(noise(2, 0)).requires_grad_()
    text = torch.empty(0) if scorer.prompts is None else scorer.prompts.read("a cat").clone()
    scorer.network(pixels, torch.stack([text, text])).sum().backward()
    assert pixels.grad is not None
    assert float(pixels.grad.abs().min(dim=0).values.max()) > 0
    assert all(p.grad is None for p in scorer.network.parameters())


def test_bfloat16_scores_nearly_the_same(
    load_tiny: Load,
) -> None:
    for name in NAMES:
        exact, rounded = (
            load_tiny(name, dtype=dtype).score([noise(2, 0)], ["a cat"])[0].total
            for dtype in ("float32", "bfloat16")
        )
        assert math.isclose(exact, rounded, rel_tol=0.2, abs_tol=0.2), name
    with pytest.raises(ConfigError, match="no floating type 'int8'"):
        load_tiny("pick_score", dtype="int8")
