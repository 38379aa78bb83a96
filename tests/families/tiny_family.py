"""What a family says of itself in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videorl.settings.model import SamplingConfig
from videorl.types import Condition, TextAndImage

SAMPLING: Mapping[str, object] = {
    "num_frames": 5,
    "height": 16,
    "width": 16,
    "fps": 8.0,
    "num_inference_steps": 3,
    "guidance_scale": 3.0,
    "max_sequence_length": 16,
}


def stock_options(sampling: SamplingConfig) -> dict[str, Any]:
    """Return what most stock pipelines are called with beside prompts and noise."""
    return {
        "num_frames": sampling.num_frames,
        "height": sampling.height,
        "width": sampling.width,
        "num_inference_steps": sampling.num_inference_steps,
        "guidance_scale": sampling.guidance_scale,
        "max_sequence_length": sampling.max_sequence_length,
    }


def stock_reconstruction(vae: Any, pixels_B3FHW: Tensor) -> Tensor:
    """Return what most VAEs of diffusers make of pixels by encoding and decoding them."""
    return vae.decode(vae.encode(pixels_B3FHW).latent_dist.mode()).sample


@dataclass(frozen=True)
class TinyFamily:
    """A tiny random checkpoint, of the real classes, and how a user of diffusers calls it.

    What is written here by hand is what the family's own code is held against.
    """

    save: Callable[[Path], Path]
    """Writes the checkpoint into a folder, and returns it."""
    latents: tuple[int, int, int, int]
    """[C, T, H, W] of a video of `sampling`."""
    time: Callable[[Tensor], Tensor]
    """Timestep of the checkpoint's scheduler -> time in [0, 1], 1 = noise."""
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    """What differs from `SAMPLING`."""
    options: Callable[[SamplingConfig], dict[str, Any]] = stock_options
    """Arguments of the stock pipeline's call."""
    guidance: str = "guidance_scale"
    """The setting of guidance by the negative prompt, which suites all call `guidance_scale`."""

    fewest_steps: int = 1
    """That the stock pipeline can take."""
    decodes_by_frames: bool = True
    """Whether the VAE decodes a few frames per call, and not a whole clip, or tile of it."""
    image: str = ""
    """File of the picture that every prompt carries, and that `options` has too; empty = none."""

    def prompt(self, text: str) -> Condition:
        """Return a text as the family's policies take it."""
        return TextAndImage(text, self.image) if self.image else text

    transformers: Sequence[str] = ("transformer",)
    """The stock pipeline's."""

    def load_adapter(self, pipeline: Any, folder: Path) -> None:
        """Open an exported adapter with the stock pipeline, as the documentation says."""
        pipeline.load_lora_weights(str(folder), weight_name="pytorch_lora_weights.safetensors")
        if "transformer_2" in self.transformers:
            pipeline.load_lora_weights(
                str(folder),
                weight_name="pytorch_lora_weights_2.safetensors",
                load_into_transformer_2=True,
            )

    def noisy(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return the noisy latents among the arguments of the stock transformer, as it has them."""
        return inputs["hidden_states"]

    def predicted(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return what the stock transformer predicts of them, in the same order."""
        return outputs[0]

    has_files: bool = True
    """Whether videos in files can be learned from."""
    reconstructed: Callable[[Any, Tensor], Tensor] = stock_reconstruction
    """Encodes and decodes pixels in [-1, 1] with the VAE."""
    latent_frames: Callable[[int], int] = lambda num_frames: (num_frames - 1) // 2 + 1
    """Pixel frames -> latent frames of the checkpoint's VAE."""
    end_tokens: int = 1
    """Tokens that its first text encoder reads after those of a prompt."""
    unread: Sequence[str] = ()
    """Parts of the names of weights that nothing reads, which therefore get no gradient."""
    has_tiles: bool = True
    """Whether its VAE decodes frames in tiles."""
    training_shift: float = 1.0
    """Shift of uniform training times for videos of `sampling`."""

    def sampling(self, **changes: object) -> SamplingConfig:
        """Return sampling settings that fit the checkpoint."""
        changes = {
            self.guidance if name == "guidance_scale" else name: value
            for name, value in changes.items()
        }
        settings: Mapping[str, Any] = {**SAMPLING, **self.settings, **changes}
        return SamplingConfig(**settings)

    def call(
        self,
        pipeline: Any,
        sampling: SamplingConfig,
        prompt: str,
        negative: str,
        seeds: Sequence[int],
        output_type: str = "latent",
    ) -> Any:
        """Sample a video per seed from text with the stock pipeline, as a user would."""
        return pipeline(
            prompt=[prompt] * len(seeds),
            negative_prompt=[negative] * len(seeds),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type=output_type,
            return_dict=False,
            **self.options(sampling),
        )[0]
