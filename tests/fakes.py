"""A policy and a reward small enough for tests, with nothing mocked.

`FakePolicy` has real trained tensors, draws real noise from seeds and paints real pixels; it keeps
the whole `Policy` protocol. Every number can be worked out by hand: the prediction is
`scale * x_t + embedding mean`, and a sample is `noise * scale + embedding mean`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from videorl.embedding import Embedding, plain
from videorl.errors import PromptError
from videorl.processes.rectified_flow import RectifiedFlow
from videorl.protocols import Process, Role
from videorl.types import (
    Candidate,
    CandidateGroup,
    Condition,
    Prompt,
    SampleRequest,
    Score,
    Video,
    WeightVersion,
)
from videorl.weights import digest

LATENT_SHAPE = (2, 3, 4, 4)
"""[C, T, H, W] of a fake latent."""
MAX_WORDS = 8


class FakePolicy:
    """One trainable number per channel; prompts embed as one row per word.

    Args:
        tamper: Change the weights while loading, as a faulty transport would.
        seconds: Time that every `sample` takes.
    """

    process: Process = RectifiedFlow()

    def __init__(self, *, tamper: bool = False, seconds: float = 0.0) -> None:
        self._module = torch.nn.ParameterDict({"scale": torch.nn.Parameter(torch.ones(2))})
        self._reference = self.weights()
        self._tamper = tamper
        self._seconds = seconds
        self.num_encoded = 0

    def encode(self, prompts: Sequence[Condition]) -> list[Embedding]:
        """Embed each word as [len(word), 1], at most `MAX_WORDS` words."""
        texts = [prompt if isinstance(prompt, str) else prompt.text for prompt in prompts]
        if too_long := [text for text in texts if len(text.split()) > MAX_WORDS]:
            raise PromptError(f"prompt {too_long[0]!r} has more than {MAX_WORDS} words")
        self.num_encoded += len(prompts)
        words = [text.split() or ["."] for text in texts]
        return [plain(torch.tensor([[float(len(word)), 1.0] for word in one])) for one in words]

    def sample(
        self,
        prompt_embeds: Embedding,
        negative_prompt_embeds: Embedding | None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Return seeded noise, scaled per channel and shifted by the mean embedding."""
        time.sleep(self._seconds)
        noise = [
            torch.randn(LATENT_SHAPE, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        scale_C111 = self._module["scale"].detach().view(-1, 1, 1, 1)
        return torch.stack(noise) * scale_C111 + prompt_embeds["prompt_embeds"].mean()

    def decode(self, latents_BCTHW: Tensor) -> list[Video]:
        """Paint the first channel as grey 64×64 pixels: large enough for the object store."""
        videos: list[Video] = []
        for latents_CTHW in latents_BCTHW:
            grey_THW = (latents_CTHW[0].sigmoid() * 255).round().to(torch.uint8)
            grey_FHW = grey_THW.repeat_interleave(16, 1).repeat_interleave(16, 2)
            frames = np.repeat(grey_FHW.numpy()[..., None], 3, axis=-1)
            videos.append(Video(np.repeat(frames, 3, axis=0), fps=8.0))
        return videos

    def predict(
        self, x_t_BCTHW: Tensor, t_B: Tensor, prompt_embeds: Sequence[Embedding], role: Role
    ) -> Tensor:
        """Return `scale * x_t + embedding mean`; the base has scale 1, only the policy gradient."""
        scales = {
            "policy": self._module["scale"],
            "reference": self._reference["scale"],
            "base": torch.ones(2),
        }
        scale = scales[role]
        shift_B = torch.stack([embeds["prompt_embeds"].mean() for embeds in prompt_embeds])
        return scale.view(-1, 1, 1, 1) * x_t_BCTHW + shift_B.view(-1, 1, 1, 1, 1)

    def live(self, role: Role) -> list[torch.nn.Parameter]:
        """Return none."""
        return []

    def trainable_module(self) -> torch.nn.Module:
        """Return the module with the one parameter, `scale`."""
        return self._module

    def networks(self) -> list[torch.nn.Module]:
        """Return the module with the one parameter."""
        return [self._module]

    def weights(self) -> dict[str, Tensor]:
        """Return `{"scale": [C]}`."""
        return {"scale": self._module["scale"].detach().clone()}

    def load_weights(self, weights: Mapping[str, Tensor], role: Role = "policy") -> None:
        """Load `scale`; a tampering policy doubles it."""
        loaded = weights["scale"] * 2 if self._tamper else weights["scale"]
        if role == "reference":
            self._reference = {"scale": loaded.clone()}
        else:
            self._module["scale"].data.copy_(loaded)

    def reference_weights(self) -> dict[str, Tensor]:
        """Return the reference's `scale`."""
        return dict(self._reference)

    def update_reference(self) -> None:
        """Copy `scale` into the reference."""
        self._reference = self.weights()

    def export(self, directory: Path) -> None:
        """Write `scale.pt`."""
        torch.save(self.weights(), directory / "scale.pt")


@dataclass
class FakeReward:
    """Scores brightness and contrast in [0, 1]; total = their sum.

    Args:
        replace: Dimension -> value to answer instead, e.g. NaN.
        error: Raised instead of scoring.
    """

    dimensions: tuple[str, ...] = ("brightness", "contrast")
    replace: dict[str, float] = field(default_factory=dict[str, float])
    error: Exception | None = None

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        """Measure each video."""
        if self.error is not None:
            raise self.error
        return [self._one(video) for video in videos]

    def _one(self, video: Video) -> Score:
        pixels = video.frames / 255.0
        measured = {"brightness": float(pixels.mean()), "contrast": float(pixels.std())}
        dimensions = {**measured, **self.replace}
        return Score(dimensions, sum(dimensions.values()))


def published(scale: float, step: int = 0) -> tuple[WeightVersion, dict[str, Tensor]]:
    """Return weights of a `FakePolicy`, with their version."""
    weights = {"scale": torch.full((2,), scale)}
    return WeightVersion(step, digest(weights)), weights


def request_of(
    version: WeightVersion, text: str = "a red ball", index: int = 0, num_candidates: int = 3
) -> SampleRequest:
    """Return a request whose seeds depend on the prompt's index alone."""
    seeds = tuple(1000 * index + candidate for candidate in range(num_candidates))
    return SampleRequest(0, Prompt(index, text), seeds, version)


def group_of(videos: Sequence[Any], text: str = "a red ball") -> CandidateGroup:
    """Return a group of candidates with these videos, or handles to them."""
    prompt, version = Prompt(0, text), WeightVersion(0, "none")
    candidates = tuple(
        Candidate(0, prompt, index, index, version, None, video)
        for index, video in enumerate(videos)
    )
    return CandidateGroup(prompt, None, candidates)


def grey(level: int) -> Video:
    """Return a video of one grey level in [0, 255]."""
    return Video(np.full((3, 8, 8, 3), level, np.uint8), fps=8.0)
