"""A server in this process, for tests without Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI

from videorl.config import Recipe, SamplingConfig
from videorl.policies import load_policy
from videorl.recipes.reading import load_recipe, to_yaml
from videorl.serving.app import build_app
from videorl.serving.engine import Engine
from videorl.serving.errors import Failure
from videorl.serving.guards import digest_of
from videorl.serving.limits import ServingLimits
from videorl.serving.policy import ServedPolicy
from videorl.serving.requests import Offer, VideoTask
from videorl.serving.results import Results
from videorl.serving.scorer import UploadScorer
from videorl.serving.work import Replicas
from videorl.types import Score

TOKEN = "the-token"
SMALL = ServingLimits(max_pixels=9 * 64 * 64, max_steps=8, max_upload_mib=1, upload_s=5)
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
TEXT = "a large red circle moving left"


@dataclass
class LocalEngine:
    """Implements `videorl.serving.engine.Engine` with the objects that replicas hold."""

    policy: ServedPolicy
    scorers: Mapping[str, UploadScorer] = field(default_factory=dict[str, UploadScorer])
    seen: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    async def fit(self, sampling: SamplingConfig, *, exactly: bool) -> SamplingConfig | Failure:
        return self.policy.fit(sampling, exactly=exactly)

    async def sample(self, tasks: Sequence[VideoTask]) -> Sequence[bytes | Failure]:
        return self.policy.sample(tasks, self.policy.read(tasks[0].adapter))

    async def score(
        self, model: str, uploads: Sequence[tuple[bytes, str]]
    ) -> Sequence[Score | Failure]:
        scorer = self.scorers[model]
        videos = scorer.decoded([content for content, _ in uploads])
        return scorer.score(videos, [prompt for _, prompt in uploads])

    async def is_ready(self) -> bool:
        return True

    async def metrics(self) -> str:
        return "".join(f"{route} {status}\n" for route, status in self.seen)

    def observe(self, route: str, status: int, seconds: float) -> None:
        self.seen.append((route, status))

    def queued(self, what: str, count: int) -> None:
        pass


def aligned_run(folder: Path, seed: int) -> Path:
    """Write what a run on Moving Shapes leaves of its policy: its recipe, and a random adapter."""
    recipe = small_recipe(f"name={folder.name}")
    policy = load_policy(recipe.policy, recipe.sampling, parts=frozenset({"transformer"}))
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: 0.3 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in sorted(policy.weights().items())
    }
    policy.load_weights(weights)
    policy.export(folder / "aligned")
    (folder / "config.yaml").write_text(to_yaml(recipe))
    return folder


def error(answer: Any) -> tuple[int, str | None]:
    """Return status and code; every refusal has OpenAI's shape."""
    found = answer.json()["error"]
    assert found.keys() == {"message", "type", "param", "code"}
    assert found["message"]
    return answer.status_code, found["code"]


def small_recipe(*settings: str) -> Recipe:
    """Return the default recipe with a small adapter and few steps."""
    few = ["policy.lora.rank=4", "policy.lora.alpha=4", "sampling.num_inference_steps=3"]
    return load_recipe("moving_shapes", [*few, "policy.dtype=float32", *settings])


def local_app(engine: Engine, offer: Offer, folder: Path, limits: ServingLimits = SMALL) -> FastAPI:
    """Return an application with the token `TOKEN`."""
    results = Results(folder, limits)
    token = digest_of(TOKEN)
    return build_app(engine, offer, results, token=token, limits=limits, replicas=Replicas())


OFFER = Offer("shapes", small_recipe().sampling, rewards=("moving_shapes",))
