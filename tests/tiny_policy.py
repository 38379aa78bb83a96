"""A policy of a few hundred numbers, with layers as real models have them, for tests."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from videorl.embedding import Embedding, plain
from videorl.processes.rectified_flow import RectifiedFlow
from videorl.protocols import Process, Role
from videorl.types import Condition, Video

LATENT_SHAPE = (2, 3, 4, 4)
"""[C, T, H, W] of its latents."""
EMBED_WIDTH = 4
"""D of its prompt embeddings."""


class Velocity(nn.Module):
    """A convolution of x_t, shifted by time and by the mean prompt embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 5, 3, padding=1)
        self.condition = nn.Linear(1 + EMBED_WIDTH, 5)
        self.last = nn.Conv3d(5, 2, 1)

    def forward(self, x_t_BCTHW: Tensor, t_B: Tensor, embed_BD: Tensor) -> Tensor:
        """Return the velocity [B, C, T, H, W]."""
        condition_BC = self.condition(torch.cat([t_B[:, None], embed_BD], dim=1))
        hidden_BCTHW = self.first(x_t_BCTHW) + condition_BC[:, :, None, None, None]
        return self.last(nn.functional.silu(hidden_BCTHW))


class TinyPolicy:
    """Implements what a learner asks of `videorl.protocols.Policy`; all weights are trained."""

    process: Process = RectifiedFlow()

    def __init__(self, seed: int = 0) -> None:
        """Draw the weights from `seed`; reference and base are frozen copies."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.module = Velocity()
        self.reference = copy.deepcopy(self.module).requires_grad_(False)
        self.base = copy.deepcopy(self.reference)

    def predict(
        self, x_t_BCTHW: Tensor, t_B: Tensor, prompt_embeds: Sequence[Embedding], role: Role
    ) -> Tensor:
        """Return the velocity that `role` predicts."""
        embed_BD = torch.stack([embeds["prompt_embeds"].mean(0) for embeds in prompt_embeds])
        models = {"policy": self.module, "reference": self.reference, "base": self.base}
        return models[role](x_t_BCTHW, t_B, embed_BD)

    def trainable_module(self) -> nn.Module:
        """Return the network."""
        return self.module

    def networks(self) -> list[nn.Module]:
        """Return the network of each role."""
        return [self.module, self.reference, self.base]

    def live(self, role: Role) -> list[nn.Parameter]:
        """Return the live parameters of a role; not what a test may have added to the network."""
        model = self.module if role == "policy" else self.reference
        return [model.get_parameter(name) for name, _ in self.base.named_parameters()]

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the policy's weights."""
        live = zip(_copies(self.base), self.live("policy"), strict=True)
        return {name: parameter.detach().clone() for name, parameter in live}

    def reference_weights(self) -> dict[str, Tensor]:
        """Return copies of the reference's weights."""
        return _copies(self.reference)

    def load_weights(self, weights: Mapping[str, Tensor], role: Role = "policy") -> None:
        """Copy weights into the live parameters of `role`."""
        model = self.module if role == "policy" else self.reference
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])

    def update_reference(self) -> None:
        """Copy the policy's weights into the reference."""
        self.load_weights(dict(self.module.named_parameters()), "reference")

    def export(self, directory: Path) -> None:
        """Write the weights."""
        save_file(self.weights(), directory / "policy.safetensors")

    def encode(self, prompts: Sequence[Condition]) -> list[Embedding]:
        """Embed a prompt by its length and its first letters."""
        texts = [prompt if isinstance(prompt, str) else prompt.text for prompt in prompts]
        padded = [text.ljust(3)[:3] for text in texts]
        return [
            plain(torch.tensor([[len(text) / 100, *(ord(one) / 128 for one in letters)]]))
            for text, letters in zip(texts, padded, strict=True)
        ]

    @torch.no_grad()
    def sample(
        self,
        prompt_embeds: Embedding,
        negative_prompt_embeds: Embedding | None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Take one Euler step from seeded noise."""
        noise_BCTHW = torch.stack(
            [torch.randn(LATENT_SHAPE, generator=torch.Generator().manual_seed(s)) for s in seeds]
        )
        t_B = torch.ones(len(seeds))
        return noise_BCTHW - self.predict(noise_BCTHW, t_B, [prompt_embeds] * len(seeds), "policy")

    def decode(self, latents_BCTHW: Tensor) -> list[Video]:
        """Paint the first channel in grey."""
        grey_BTHW = (latents_BCTHW[:, 0].sigmoid() * 255).to(torch.uint8)
        return [
            Video(one[..., None].expand(-1, -1, -1, 3).contiguous().numpy(), fps=8.0)
            for one in grey_BTHW
        ]


def _copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in module.named_parameters()}
