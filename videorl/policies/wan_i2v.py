"""Wan image-to-video models: Wan 2.1 I2V, and Wan 2.2 TI2V-5B from an image (arXiv 2503.20314).

The picture is the first frame. Wan 2.1 reads it twice: as tokens of a CLIP, and as the latents of a
video of which all else is grey, beside the noisy ones on the channels. Wan 2.2 TI2V has the
picture's latents in the place of the first latent frame, at time 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import CLIPVisionModel

from videorl.config import SamplingConfig
from videorl.embedding import Embedding
from videorl.errors import ConfigError, PromptError
from videorl.policies.checkpoints import read_json
from videorl.policies.wan import Wan

if TYPE_CHECKING:
    from PIL.Image import Image


_TEXT_TOKENS = 512
_IMAGE_TOKENS = 257
"""Of a published CLIP: 16×16 patches of a picture, and its class."""


class WanImageToVideo(Wan):
    """Implements `videorl.policies.family.Family`.

    Of an `Embedding`, `image_latents` [C, T or 1, H, W] are those of the picture, scaled like the
    pipeline's; `image_embeds` [L, D] only Wan 2.1 has.
    """

    pipeline_class = WanImageToVideoPipeline
    takes_images = True
    model_classes: Mapping[str, Any] = MappingProxyType(
        {**Wan.model_classes, "image_encoder": CLIPVisionModel}
    )

    def pipeline_options(self, folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
        """Return whether every token has a time of its own, as in Wan 2.2 TI2V.

        Raises:
            ConfigError: The model has two transformers, or takes a last frame too.
        """
        super().pipeline_options(folder, index)
        config = folder / "transformer/config.json"
        if config.exists() and read_json(config).get("pos_embed_seq_len"):
            raise ConfigError(
                f"policy.path: {folder} takes a first and a last frame (Wan 2.1 FLF2V), but a "
                "prompt has only one image: use Wan 2.1 I2V or Wan 2.2 TI2V-5B"
            )
        return {"expand_timesteps": bool(index.get("expand_timesteps"))}

    def latent_channels(self, transformer_config: Mapping[str, Any]) -> int:
        """Return the output channels: Wan 2.1 reads mask and picture beside its input."""
        return transformer_config["out_channels"]

    def check_size(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Refuse what the pipeline would round, and lengths of the text that Wan 2.1 lacks.

        Raises:
            ConfigError: See `check_multiples`; or Wan 2.1 is to read other than 512 tokens.
        """
        super().check_size(pipeline, sampling)
        has_clip = pipeline.transformer.config.image_dim is not None
        if has_clip and sampling.max_sequence_length != _TEXT_TOKENS:
            raise ConfigError(
                f"sampling.max_sequence_length must be {_TEXT_TOKENS} for Wan 2.1 I2V, whose "
                "transformer finds the image's tokens by the number of the text's, got "
                f"{sampling.max_sequence_length}"
            )

    def example_image(self, pipeline: Any, sampling: SamplingConfig) -> dict[str, Tensor]:
        """Return zeros of the shapes that `encode_image` returns."""
        config = pipeline.transformer.config
        frames = (sampling.num_frames - 1) // pipeline.vae_scale_factor_temporal + 1
        stride = pipeline.vae_scale_factor_spatial
        size = (sampling.height // stride, sampling.width // stride)
        if pipeline.config.expand_timesteps:
            frames = 1
        found = {"image_latents": torch.zeros(config.out_channels, frames, *size)}
        if config.image_dim is not None:
            found["image_embeds"] = torch.zeros(_IMAGE_TOKENS, config.image_dim)
        return found

    def encode_image(
        self, pipeline: Any, image: Image, sampling: SamplingConfig
    ) -> dict[str, Tensor]:
        """Return latents and CLIP tokens by the pipeline's own methods.

        For the latents the picture is resized to the size of the video, as the pipeline does it:
        its aspect is not kept.
        """
        device, size = pipeline.vae.device, (sampling.height, sampling.width)
        pixels_13HW = pipeline.video_processor.preprocess(image, *size).to(device, torch.float32)
        num_channels = pipeline.vae.config.z_dim
        condition = pipeline.prepare_latents(
            pixels_13HW,
            1,
            num_channels,
            *size,
            sampling.num_frames,
            torch.float32,
            device,
            latents=torch.zeros(()),  # none are drawn
        )[1]
        found = {"image_latents": condition[0, -num_channels:].cpu().clone()}
        if pipeline.image_encoder is not None:
            found["image_embeds"] = pipeline.encode_image(image, device)[0].cpu()
        return found

    def text_arguments(
        self,
        embeds: Sequence[Embedding],
        sampling: SamplingConfig,
        dtype: torch.dtype,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Return the text's, and the pictures' if there are any; the latents stay in float32."""
        arguments = super().text_arguments(embeds, sampling, dtype, device)
        for name, its_type in (("image_embeds", dtype), ("image_latents", torch.float32)):
            if rows := [each[name] for each in embeds if name in each.tensors]:
                arguments[name] = torch.stack(rows).to(device, its_type)
        return arguments

    def transformer_text(self, arguments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the embeddings of text and picture."""
        found = super().transformer_text(arguments)
        if "image_embeds" in arguments:
            found["encoder_hidden_states_image"] = arguments["image_embeds"]
        return found

    def inputs(
        self,
        pipeline: Any,
        x_t_BCTHW: Tensor,
        t_B: Tensor,
        arguments: Mapping[str, Tensor],
        sampling: SamplingConfig,
    ) -> dict[str, Any]:
        """Return the latents with those of the picture, the times, and the embeddings."""
        latents = _latents(arguments).to(x_t_BCTHW.dtype)
        if pipeline.config.expand_timesteps:
            hidden_states = torch.cat([latents, x_t_BCTHW[:, :, 1:]], dim=2)
        else:
            mask = _mask(latents, pipeline.vae_scale_factor_temporal)
            hidden_states = torch.cat([x_t_BCTHW, mask, latents], dim=1)
        text = self.transformer_text(arguments)
        times = self.conditions(pipeline, x_t_BCTHW, t_B, sampling)
        return {"hidden_states": hidden_states, **text, **times}

    def conditions(
        self, pipeline: Any, x_t_BCTHW: Tensor, t_B: Tensor, sampling: SamplingConfig
    ) -> dict[str, Any]:
        """Return the times, in units of training timesteps; of TI2V one per token, 0 at first."""
        timestep_B = super().conditions(pipeline, x_t_BCTHW, t_B, sampling)["timestep"]
        if not pipeline.config.expand_timesteps:
            return {"timestep": timestep_B}
        _, height, width = pipeline.transformer.config.patch_size
        frames_T, rows, columns = x_t_BCTHW.shape[2:]
        per_frame = (rows // height) * (columns // width)
        is_noisy_N = (torch.arange(frames_T * per_frame, device=t_B.device) >= per_frame).float()
        return {"timestep": timestep_B[:, None] * is_noisy_N}

    def given_frames(self, pipeline: Any) -> int:
        """Return 1 for TI2V, whose first latent frame is the picture."""
        return 1 if pipeline.config.expand_timesteps else 0

    def predicted(
        self,
        prediction_BCTHW: Tensor,
        x_t_BCTHW: Tensor,
        t_B: Tensor,
        arguments: Mapping[str, Tensor],
    ) -> Tensor:
        """Return the prediction; of TI2V with the velocity that leads to the picture at first.

        In the first frame the model sees the picture at any time and predicts nothing of use; its
        pipeline puts the picture back after the last step. With the velocity (x_t - x_0) / t there
        a loss is zero in that frame, with no gradient, and what is predicted of x_0 is the picture.
        At t = 0 it is that of no noise at all.
        """
        latents = _latents(arguments)
        if latents.shape[2] == x_t_BCTHW.shape[2]:  # Wan 2.1 predicts every frame
            return prediction_BCTHW
        t_B1111 = t_B.view(-1, 1, 1, 1, 1)
        velocity = (x_t_BCTHW[:, :, :1].float() - latents) / t_B1111
        velocity = torch.where(t_B1111 > 0, velocity, -latents)
        return torch.cat([velocity, prediction_BCTHW[:, :, 1:]], dim=2)

    def call(self, pipeline: Any, arguments: Mapping[str, Any]) -> Any:
        """Call the pipeline, which is given what `encode_image` made of the pictures.

        It would encode them for each call anew, and takes one picture per call only.
        """
        latents, given = _latents(arguments), dict(arguments)
        embeds = given.pop("image_embeds", None)
        for name in ("image_latents", "negative_image_latents", "negative_image_embeds"):
            given.pop(name, None)  # the negative prompt shares the picture
        callback = given.pop("callback_on_step_end", None)
        if callback is not None and pipeline.config.expand_timesteps:
            given["callback_on_step_end"] = _with_first_frame(callback, latents)
        else:
            given["callback_on_step_end"] = callback
        image = torch.zeros(1, 3, given["height"], given["width"])
        with _prepared(pipeline, latents, embeds):
            return pipeline(image=image, **given)


def _latents(arguments: Mapping[str, Tensor]) -> Tensor:
    """Return the latents of the pictures.

    Raises:
        PromptError: There are none.
    """
    if "image_latents" not in arguments:
        raise PromptError(
            "an image-to-video model needs a prompt with an image, got a text alone: give every "
            "prompt an `image` (docs/recipe_files.md, Prompt files)"
        )
    return arguments["image_latents"]


def _mask(latents_BCTHW: Tensor, num_channels: int) -> Tensor:
    """Return a channel per pixel frame of a latent one: 1 in the first, which is given, else 0."""
    mask = torch.zeros_like(latents_BCTHW[:, :1]).repeat(1, num_channels, 1, 1, 1)
    mask[:, :, 0] = 1
    return mask


@contextmanager
def _prepared(pipeline: Any, latents_BCTHW: Tensor, embeds_BLD: Tensor | None) -> Iterator[None]:
    """Inside the block, let a pipeline find its pictures encoded."""
    is_replacing = pipeline.config.expand_timesteps

    def prepare_latents(image: Tensor, batch_size: int, num_channels: int, *rest: Any) -> Any:
        _, _, num_frames, dtype, device, generator, *_ = rest
        frames = (num_frames - 1) // pipeline.vae_scale_factor_temporal + 1
        shape = (batch_size, num_channels, frames, *latents_BCTHW.shape[3:])
        noise: Any = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        if is_replacing:
            return noise, latents_BCTHW, 1 - _mask(noise[:1], 1)
        mask = _mask(latents_BCTHW, pipeline.vae_scale_factor_temporal)
        return noise, torch.cat([mask, latents_BCTHW], dim=1)

    # It repeats the tokens of its only picture for each video; here every video has its own.
    tokens = SimpleNamespace(repeat=lambda *_: embeds_BLD)
    parts = vars(pipeline)
    vae = parts["vae"]
    parts["prepare_latents"] = prepare_latents
    parts["encode_image"] = lambda *_: tokens
    parts["vae"] = SimpleNamespace(config=SimpleNamespace(z_dim=latents_BCTHW.shape[1]))
    try:
        yield
    finally:
        parts["vae"] = vae
        del parts["prepare_latents"], parts["encode_image"]


def _with_first_frame(callback: Any, latents_BC1HW: Tensor) -> Any:
    """Show a callback the picture in its place, where it is put only after the last step."""

    def called(pipeline: Any, step: int, time: Any, tensors: dict[str, Tensor]) -> Any:
        shown = torch.cat([latents_BC1HW, tensors["latents"][:, :, 1:]], dim=2)
        return callback(pipeline, step, time, {**tensors, "latents": shown})

    return called
