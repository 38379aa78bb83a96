"""What a saved latent reward says of itself, and requests for guidance; read without torch."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.config import LoraConfig
from videorl.errors import CheckpointError, ConfigError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "latent_reward.safetensors"
FORMAT = 1

HEADS = ("mean", "attention")
"""How tokens are pooled: their mean, or weighted by one learned query per dimension."""
TRAINED = ("head", "lora", "blocks")
"""What is trained: the head alone, adapters on the policy's blocks too, or all of these blocks."""


@dataclass(frozen=True, slots=True)
class LatentRewardConfig:
    """What a latent reward is built of."""

    family: str
    """Of the policy, see `videorl.policies.FAMILIES`."""
    policy: str
    """Path of the policy as the training had it, for messages."""
    base_digest: str
    """SHA-256 of the policy's weights that it is built on, before they were trained further."""
    num_layers: int
    """First blocks of the policy's transformer that it has."""
    head: str
    """One of `HEADS`."""
    train: str
    """One of `TRAINED`."""
    dimensions: tuple[str, ...]
    """What it scores, in the order of its outputs."""
    latent_shape: tuple[int, int, int, int]
    """[C, T, H, W] of the latents it was trained on."""
    lora: LoraConfig | None = None
    """The adapters, where these are trained."""


def write_config(folder: Path, config: LatentRewardConfig) -> None:
    """Write `config.json` into an existing folder."""
    settings = {"format": FORMAT, **dataclasses.asdict(config)}
    (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n")


def read_config(folder: Path) -> LatentRewardConfig:
    """Read what `write_config` wrote.

    Raises:
        CheckpointError: There is none, it is damaged, or a later version of this project wrote it.
    """
    path = folder / CONFIG_FILE
    try:
        settings: dict[str, Any] = json.loads(path.read_text())
        if settings.pop("format") > FORMAT:
            raise CheckpointError(f"{path} was written by a newer version: upgrade videorl")
        if settings["lora"] is not None:
            settings["lora"] = LoraConfig(**settings["lora"])
        for name in ("dimensions", "latent_shape"):
            settings[name] = tuple(settings[name])
        return LatentRewardConfig(**settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} is no configuration of a latent reward ({error}); give the folder that "
            "`videorl train_latent_reward` wrote, such as runs/NAME/reward"
        ) from error


def parse_weights(requests: Sequence[str], config: LatentRewardConfig) -> dict[str, float]:
    """Read `dimension=weight` requests, as given on a command line.

    Raises:
        ConfigError: One is not of that form, a dimension is named twice, or `check_weights`
            refuses it.
    """
    weights: dict[str, float] = {}
    for request in requests:
        name, _, text = request.partition("=")
        if name in weights:
            raise ConfigError(f"guidance: {name} is weighted twice, by {weights[name]} and {text}")
        try:
            weights[name] = float(text)
        except ValueError:
            raise ConfigError(
                f"guidance is asked for by dimension=weight, got {request!r}"
            ) from None
    check_weights(weights, config)
    return weights


def check_weights(weights: Mapping[str, float], config: LatentRewardConfig) -> None:
    """Check which dimensions a request weights, and how much.

    Raises:
        ConfigError: A dimension is not one that the reward scores, or a weight is not finite.
    """
    for name, weight in weights.items():
        if name not in config.dimensions:
            raise ConfigError(
                f"guidance: unknown dimension {name!r}; this latent reward scores "
                f"{', '.join(config.dimensions)}"
            )
        if not math.isfinite(weight):
            raise ConfigError(f"guidance: the weight of {name} must be finite, got {weight}")
