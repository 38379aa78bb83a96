"""A small VideoMAE that was taught to name what Moving Shapes clips show: features and a judge.

No published video network knows clips of 32 × 32 pixels. This one is taught on clean clips alone,
so no policy was trained on it: its features are what FVD is measured on there, and how likely it
finds the words of a prompt is a reward that nothing optimises.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from videorl.data.video_io import write_mp4
from videorl.files import write_text
from videorl.rewards.videos import VideoSource, check_prompts, open_videos
from videorl.types import Score, Video
from videorl.worlds import grammar
from videorl.worlds.grammar import COLOURS, MOTIONS, SHAPES, SIZES, Scene
from videorl.worlds.moving_shapes import DefectRates, training_clip

NUM_FRAMES = 8
CLEAN = DefectRates(flicker=0.0, jitter=0.0, wrong_colour=0.0, wrong_direction=0.0)
_WORDS = (tuple(SIZES), tuple(COLOURS), SHAPES, tuple(MOTIONS))
_BATCH = 32


def words_of(scene: Scene) -> list[int]:
    """Return the number of each word of a scene, among the words of its kind."""
    said = (scene.size, scene.colour, scene.shape, scene.motion)
    return [kind.index(word) for kind, word in zip(_WORDS, said, strict=True)]


def clean_clip(number: int, scene: Scene) -> Video:
    """Return a clip without defects; equal numbers and scenes give equal clips."""
    return training_clip(np.random.default_rng((7, number)), scene, CLEAN)


def write_clean_clips(folder: Path, count: int) -> Path:
    """Write clean clips of the held-out prompts, in turn, with their texts beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = grammar.prompts("held_out")
    for number in range(count):
        text, path = texts[number % len(texts)], folder / f"{number:04d}.mp4"
        if not path.exists():
            write_text(path.with_suffix(".txt"), text)
            write_mp4(path, clean_clip(number, grammar.parse(text)))
    return folder


def teach(folder: Path, steps: int) -> Path:
    """Teach the network on clean clips of all scenes and save it; what is there is kept.

    Args:
        folder: Gets it, in the layout of transformers.
        steps: Optimizer steps of 32 clips.
    """
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    if (folder / "model.safetensors").exists():
        return folder
    torch.manual_seed(0)
    config = VideoMAEConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        num_frames=NUM_FRAMES,
        tubelet_size=2,
    )
    config.num_labels = sum(map(len, _WORDS))
    model: Any = VideoMAEForVideoClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    every = grammar.scenes()
    for step in range(steps):
        drawn = np.random.default_rng((8, step)).integers(0, len(every), _BATCH)
        scenes = [every[place] for place in drawn]
        clips = [clean_clip(1_000_000 + step * _BATCH + n, s) for n, s in enumerate(scenes)]
        pixels = pixels_of([clip.frames for clip in clips])
        logs = log_probabilities(model(pixel_values=pixels).logits)
        wanted = torch.tensor([words_of(scene) for scene in scenes])
        loss = -torch.stack(
            [log.gather(1, wanted[:, [kind]]).mean() for kind, log in enumerate(logs)]
        ).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    partial = folder.with_name(f".partial-{folder.name}")  # half a file would count as taught
    model.eval().save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def pixels_of(clips: Sequence[np.ndarray]) -> Tensor:
    """Return [N, F, 3, H, W] in [0, 1] of the first frames of clips, uint8 [F, H, W, 3]."""
    frames = np.stack([clip[:NUM_FRAMES] for clip in clips])
    return torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255.0


def log_probabilities(logits_NL: Tensor) -> list[Tensor]:
    """Return the log probabilities [N, words] of each kind of word."""
    parts = logits_NL.split([len(kind) for kind in _WORDS], dim=1)
    return [F.log_softmax(part, dim=1) for part in parts]


class Recogniser:
    """How likely the network finds the words of the prompt: the sum of their log probabilities."""

    dimensions = ("recognised",)

    def __init__(self, folder: str) -> None:
        from transformers import VideoMAEForVideoClassification

        self._model: Any = VideoMAEForVideoClassification.from_pretrained(folder).eval()

    def score(self, videos: Sequence[VideoSource], prompts: Sequence[str]) -> list[Score]:
        """Score each video against its prompt, at most 0.

        Raises:
            PromptError: A prompt is outside of the grammar.
            VideoError: The numbers of videos and prompts differ, or a video has too few frames.
        """
        opened = open_videos(videos, prompts)
        check_prompts(prompts, ())
        wanted = [words_of(grammar.parse(text)) for text in prompts]
        found: list[Score] = []
        for video, words in zip(opened, wanted, strict=True):
            with torch.no_grad():
                pixels = pixels_of([video.read(range(NUM_FRAMES))])
                logs = log_probabilities(self._model(pixel_values=pixels).logits)
            value = sum(float(log[0, word]) for log, word in zip(logs, words, strict=True))
            found.append(Score({"recognised": value}, value))
        return found
