"""The configuration of a saved latent reward, and requests for guidance; without torch."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.errors import CheckpointError, ConfigError
from videorl.settings.model import LoraConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "latent_reward.safetensors"
FORMAT = 1

HEADS = ("mean", "attention")
"""How tokens are pooled: their mean, or attention with a learned query per dimension."""
TRAINED = ("head", "lora", "blocks")
"""What is trained: the head alone, with adapters on the policy's blocks, or with all weights."""


@dataclass(frozen=True, slots=True)
class LatentRewardConfig:
    """How a latent reward is built."""

    family: str
    """Family of the policy, see `videorl.policies.FAMILIES`."""
    policy: str
    """Path of the policy in the training's recipe, for messages."""
    base_digest: str
    """SHA-256 of the policy's weights that it is built on, before its own training."""
    num_layers: int
    """Number of first blocks of the policy's transformer."""
    head: str
    """One of `HEADS`."""
    train: str
    """One of `TRAINED`."""
    dimensions: tuple[str, ...]
    """Names of its outputs, in order."""
    latent_shape: tuple[int, int, int, int]
    """[C, T, H, W] of the latents it was trained on."""
    lora: LoraConfig | None = None
    """The adapters, if `train` is `lora`."""


def write_config(folder: Path, config: LatentRewardConfig) -> None:
    """Write `config.json` into an existing folder."""
    settings = {"format": FORMAT, **dataclasses.asdict(config)}
    (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n")


def read_config(folder: Path) -> LatentRewardConfig:
    """Read what `write_config` wrote.

    Raises:
        CheckpointError: The file is missing, damaged, or was written by a later version of videorl.
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
            f"{path} is not a configuration of a latent reward ({error}); give the folder that "
            "`videorl train_latent_reward` wrote, such as runs/NAME/reward"
        ) from error


def parse_weights(requests: Sequence[str], config: LatentRewardConfig) -> dict[str, float]:
    """Read `dimension=weight` requests, as given on a command line.

    Raises:
        ConfigError: A request has another form, a dimension is named twice, or `check_weights`
            refuses it.
    """
    weights: dict[str, float] = {}
    for request in requests:
        name, _, text = request.partition("=")
        if name in weights:
            raise ConfigError(f"guidance: {name} has two weights, {weights[name]} and {text}")
        try:
            weights[name] = float(text)
        except ValueError:
            raise ConfigError(f"guidance: expected dimension=weight, got {request!r}") from None
    check_weights(weights, config)
    return weights


def check_weights(weights: Mapping[str, float], config: LatentRewardConfig) -> None:
    """Check the dimensions and the weights of a request.

    Raises:
        ConfigError: The reward does not score a dimension, or a weight is not finite.
    """
    for name, weight in weights.items():
        if name not in config.dimensions:
            raise ConfigError(
                f"guidance: unknown dimension {name!r}; this latent reward scores "
                f"{', '.join(config.dimensions)}"
            )
        if not math.isfinite(weight):
            raise ConfigError(f"guidance: the weight of {name} must be finite, got {weight}")
