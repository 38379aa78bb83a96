"""A reward on noisy latents: the first blocks of a policy's own transformer, and a small head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from videorl.embedding import Embedding
from videorl.errors import CheckpointError, ConfigError
from videorl.guidance.config import WEIGHTS_FILE, LatentRewardConfig, read_config, write_config
from videorl.policies import load_policy
from videorl.policies.experts import models_of
from videorl.policies.lora import train_adapters
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.policies.precision import hold_frozen_layers
from videorl.rewards.checkpoints import check_tensors, read_tensors
from videorl.run.checkpoint_files import writing
from videorl.settings.model import LoraConfig, PolicyConfig, SamplingConfig
from videorl.weights import digest


class RewardHead(nn.Module):
    """Pools tokens, then applies a linear map whose weights are linear in time."""

    def __init__(self, kind: str, width: int, num_dimensions: int) -> None:
        """Draw the weights from the global generator.

        Args:
            kind: One of `config.HEADS`.
            width: Width D of the tokens.
            num_dimensions: Number K of outputs.
        """
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query_KD = nn.Parameter(torch.zeros(num_dimensions, width), kind == "attention")
        self.weight_K2D = nn.Parameter(torch.randn(num_dimensions, 2 * width) / math.sqrt(width))
        self.bias_K = nn.Parameter(torch.zeros(num_dimensions))

    def forward(self, tokens_BND: Tensor, t_B: Tensor) -> Tensor:
        """Return rewards [B, K]; while the queries are 0, attention is the mean."""
        tokens_BND = self.norm(tokens_BND)
        logits_BKN = self.query_KD @ tokens_BND.mT / math.sqrt(tokens_BND.shape[-1])
        pooled_BKD = logits_BKN.softmax(-1) @ tokens_BND
        pooled_BK2D = torch.cat([pooled_BKD, t_B[:, None, None] * pooled_BKD], dim=-1)
        return (pooled_BK2D * self.weight_K2D).sum(-1) + self.bias_K


class LatentReward(nn.Module):
    """r(x_t, t, prompt) of VideoReward's Flow-NRG (arXiv 2501.13918), an output per dimension.

    The paper reuses the first layers of the video model, but does not say how many, nor what the
    head is: both are settings. Weights are float32 on the CPU; a GPU computes in bfloat16.
    """

    def __init__(
        self, policy: PipelinePolicy, config: LatentRewardConfig, *, seed: int = 0
    ) -> None:
        """Build an untrained reward on `policy`, which must not be used elsewhere.

        Args:
            policy: In float32, without adapters, cut to its first layers, on the CPU.
            config: What to build.
            seed: Seed of new weights.
        """
        super().__init__()
        self.config = config
        self._policy = policy
        self.trunk = policy.trainable_module().requires_grad_(False).eval()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            width = _width(self.trunk)
            self.head = RewardHead(config.head, width, len(config.dimensions))
        if config.lora is not None:
            for number, model in enumerate(models_of(self.trunk).values()):
                seed_of_it = seed + number
                adapters = train_adapters(model, config.lora, seed=seed_of_it, trainable=False)
                for parameter in adapters.policy.values():
                    parameter.requires_grad_(True)
        elif config.train == "blocks":
            policy.blocks().requires_grad_(True)

    def on(self, device: torch.device | None) -> LatentReward:
        """Move to a device, None = the GPU if there is one, and return itself.

        A GPU holds frozen layers in bfloat16, in which it computes them anyway.
        """
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cuda":
            hold_frozen_layers(self.trunk, torch.bfloat16)
        return self.to(device)

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return next(self.trunk.parameters()).device

    @property
    def policy(self) -> PipelinePolicy:
        """The policy cut to its first layers."""
        return self._policy

    def forward(self, x_t_BCTHW: Tensor, t_B: Tensor, prompt_embeds: Sequence[Embedding]) -> Tensor:
        """Return rewards [B, K] in float32, with gradient; higher is better.

        Args:
            x_t_BCTHW: Noisy latents, of the shape that it was trained on.
            t_B: Times in [0, 1], 1 is pure noise.
            prompt_embeds: One per item, as the policy's `encode` returns them.

        Raises:
            ConfigError: The latents have another shape than in training.
        """
        if (shape := tuple(x_t_BCTHW.shape[1:])) != self.config.latent_shape:
            raise ConfigError(
                f"this latent reward was trained on latents {list(self.config.latent_shape)}, got "
                f"{list(shape)}: sample at the size of its training, or train one for this size"
            )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            tokens_BND = self._policy.features(x_t_BCTHW, t_B, prompt_embeds)
        return self.head(tokens_BND, t_B.to(tokens_BND))

    @torch.enable_grad()
    def gradient(
        self, x_t_BCTHW: Tensor, t_B: Tensor, prompt_embeds: Sequence[Embedding], weights_K: Tensor
    ) -> Tensor:
        """Return ∇_{x_t} Σ weights · rewards, detached, float32, of the shape of `x_t_BCTHW`."""
        x_t_BCTHW = x_t_BCTHW.detach().to(self.device, torch.float32).requires_grad_(True)
        rewards_BK = self(x_t_BCTHW, t_B, prompt_embeds)
        weighted = (rewards_BK * weights_K.to(rewards_BK)).sum()
        return torch.autograd.grad(weighted, x_t_BCTHW)[0]

    def trained_weights(self) -> dict[str, Tensor]:
        """Return the trained parameters by name; all others are the policy's own weights."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def save(self, folder: Path) -> None:
        """Write the configuration and the trained weights, which `load_latent_reward` opens.

        Raises:
            CheckpointError: They cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: p.detach().cpu() for name, p in self.trained_weights().items()}
        with writing(folder):
            save_file(tensors, folder / WEIGHTS_FILE)
            write_config(folder, self.config)


def first_layers(
    policy: PolicyConfig, sampling: SamplingConfig, num_layers: int
) -> tuple[PipelinePolicy, str]:
    """Load the first layers of a policy's base, and their digest.

    They are on the CPU, in float32, without adapters: what is dropped never goes to a device. Of
    two transformers they are those of both, whichever `policy.experts` trains.

    Raises:
        ConfigError: The policy has fewer layers.
        CheckpointError: The policy cannot be read.
    """
    base = dataclasses.replace(
        policy, dtype="float32", lora=LoraConfig(rank=0), experts="both", idle_expert="auto"
    )
    parts = frozenset({"transformer"})
    sampling = dataclasses.replace(sampling, merge_lora=False)  # there is no adapter
    loaded = load_policy(base, sampling, parts=parts, device=torch.device("cpu"))
    assert isinstance(loaded, PipelinePolicy)
    loaded.keep_layers(num_layers)
    return loaded, digest(loaded.weights())


def load_latent_reward(
    folder: Path,
    policy: PolicyConfig,
    sampling: SamplingConfig,
    *,
    device: torch.device | None = None,
) -> LatentReward:
    """Open a saved latent reward on the policy that it was trained for.

    Args:
        folder: What `LatentReward.save` wrote.
        policy: Section of the recipe. Adapters are not used: the reward has the base that it was
            trained on.
        sampling: Section of the recipe.
        device: Where to load it; None = the GPU if there is one.

    Raises:
        ConfigError: The reward is for another family.
        CheckpointError: The reward was trained on other weights, or is damaged.
    """
    config = read_config(folder)
    if config.family != policy.family:
        raise ConfigError(
            f"{folder} is a latent reward for policy.family={config.family} ({config.policy}), but "
            f"the recipe has {policy.family}"
        )
    layers, found_digest = first_layers(policy, sampling, config.num_layers)
    if found_digest != config.base_digest:
        raise CheckpointError(
            f"{folder} was trained on the weights of {config.policy} (digest "
            f"{config.base_digest[:12]}), but policy.path={policy.path} has {found_digest[:12]}: "
            "use that policy, or train a latent reward for this one"
        )
    reward = LatentReward(layers, config)
    trained, tensors = reward.trained_weights(), read_tensors(folder / WEIGHTS_FILE)
    check_tensors({name: p.shape for name, p in trained.items()}, tensors, folder)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[name])
    return reward.requires_grad_(False).on(device)


def _width(transformer: Any) -> int:
    config = transformer.config
    if "hidden_size" in config:  # Open-Sora
        return config["hidden_size"]
    return config["num_attention_heads"] * config["attention_head_dim"]
