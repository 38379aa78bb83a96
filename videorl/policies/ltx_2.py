"""LTX-2 text-to-video models (2.0, 2.3), which denoise picture and sound together (2601.03233)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
from torch import Tensor, nn
from transformers import Gemma3ForConditionalGeneration

from videorl.config import SamplingConfig
from videorl.embedding import Embedding
from videorl.errors import ConfigError
from videorl.policies.checkpoints import read_json
from videorl.policies.family import check_multiples, check_steps
from videorl.policies.ltx_2_checks import check_guidance, check_registers, check_sound
from videorl.policies.ltx_2_sound import (
    PICTURE,
    Connected,
    Shape,
    Unread,
    changed_velocities,
    in_place,
    join,
    part,
    sound_vae,
    with_sound,
)
from videorl.policies.plain_family import PlainFamily
from videorl.policies.steps import Change
from videorl.policies.texts import check_length

_PUBLISHED = {
    "in_channels": 128,
    "audio_in_channels": 128,
    "audio_sampling_rate": 16000,
    "audio_hop_length": 160,
    "audio_scale_factor": 4,
}
"""What a configuration may leave out, as diffusers has it."""


class LTX2(PlainFamily):
    """Implements `videorl.policies.family.Family`.

    A candidate is picture and sound of one seed, in one tensor (see `ltx_2_sound`): both are noised
    at the same time, and losses are on both, as a preference is between samples of both. What is
    left over of the sound's last frame is 0 in a sample, and predicted without error. Only the
    picture is decoded: videos have no sound.
    """

    pipeline_class = LTX2Pipeline
    model_classes: Mapping[str, Any] = MappingProxyType(
        {
            "transformer": LTX2VideoTransformer3DModel,
            "vae": AutoencoderKLLTX2Video,
            "text_encoder": Gemma3ForConditionalGeneration,
            "connectors": LTX2TextConnectors,
        }
    )
    guides_in_one_call = True
    fewest_steps = 2
    """The scheduler stretches the times of its steps to a fixed last one (`shift_terminal`)."""
    checkpointed_above = 500_000_000
    """The published ones have 18.9 billion parameters and more."""
    caches_steps = False
    """TaylorSeer would extrapolate the picture alone, and the sound would lack skipped blocks."""
    shares_videos = False
    """Diffusers' plan splits the picture's tokens, but not their places for the sound to read."""

    def pipeline_options(self, folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
        """Return what stands for the sound's VAE, and no vocoder."""
        # Not there for plans and for encoders of text, which do not look at its sizes.
        file = folder / "audio_vae/config.json"
        config = read_json(file) if file.is_file() else {}
        return {"audio_vae": sound_vae(config), "vocoder": None}

    def strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Return the VAE's compression."""
        halvings = 2 ** sum(vae_config.get("spatio_temporal_scaling", (True,) * 4))
        temporal = vae_config.get("temporal_compression_ratio")
        spatial = vae_config.get("spatial_compression_ratio")
        return (
            temporal or halvings * vae_config.get("patch_size_t", 1),
            spatial or halvings * vae_config.get("patch_size", 4),
        )

    def added_frames(
        self,
        transformer_config: Mapping[str, Any],
        latents: tuple[int, int, int],
        sampling: SamplingConfig,
    ) -> int:
        """Return the frames that the sound takes."""
        config = {**_PUBLISHED, **transformer_config}
        per_s = config["audio_sampling_rate"] / config["audio_hop_length"]
        per_s /= config["audio_scale_factor"]
        tokens = round(sampling.num_frames / sampling.fps * per_s)
        return _of(config, latents, tokens).sound_frames

    def check_size(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Refuse settings for which the pipeline would return other videos, or none.

        Raises:
            ConfigError: See `check_multiples` and `check_steps`; or the video is too short for any
                sound, which the transformer needs.
            CheckpointError: Transformer and VAE of the sound do not fit each other.
        """
        # The pipeline demands multiples of 32 of every model.
        pixels_step = math.lcm(32, pipeline.vae_scale_factor_spatial)
        check_multiples(
            sampling, frames_step=pipeline.vae_scale_factor_temporal, pixels_step=pixels_step
        )
        check_steps(sampling, self.fewest_steps)
        check_sound(pipeline, self._shape_of(pipeline, sampling), sampling)
        transformer = pipeline.transformer
        check_guidance(transformer, len(self.blocks(transformer)), sampling)

    def call_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        """Return size, steps, frame rate, and all guidance: the pipeline's is on by default.

        Those of the sound are as those of the picture, but for guidance by the negative prompt.
        """
        same = {
            "stg_scale": sampling.stg_scale,
            "modality_scale": sampling.modality_scale,
            "guidance_rescale": sampling.guidance_rescale,
        }
        scale, sound = sampling.guidance_scale, sampling.audio_guidance_scale
        return {
            **super().call_options(sampling),
            **same,
            **{f"audio_{name}": value for name, value in same.items()},
            "audio_guidance_scale": scale if sound is None or scale <= 1 else sound,
            "spatio_temporal_guidance_blocks": list(sampling.stg_blocks),
            "frame_rate": sampling.fps,
        }

    def forwards_per_step(self, sampling: SamplingConfig) -> int:
        """Return the predictions that a step of the pipeline makes for a video."""
        return (
            1
            + (sampling.guidance_scale > 1)
            + (sampling.stg_scale > 0)
            + (sampling.modality_scale > 1)
        )

    def encoder_arguments(
        self, encoder: str, config: Mapping[str, Any], sampling: SamplingConfig, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Return what Gemma is called with, or the connectors, which read all its layers."""
        given = super().encoder_arguments(encoder, config, sampling, dtype)
        if encoder != "connectors":
            return {**given, "output_hidden_states": True}
        width = config.get("caption_channels", 3840) * config.get("text_proj_in_factor", 49)
        mask = given["attention_mask"]
        states = torch.zeros(*mask.shape, width, dtype=dtype)
        return {"text_encoder_hidden_states": states, "attention_mask": mask}

    def encode_text(self, pipeline: Any, prompt: str, sampling: SamplingConfig) -> Embedding:
        """Return what the connectors make of a prompt, for the picture and for the sound.

        They put their registers into the places of the padding, so all of it is read.

        Raises:
            ConfigError: `sampling.max_sequence_length` is no multiple of their number.
            CheckpointError: The connectors have no registers.
        """
        check_registers(pipeline.connectors.config, sampling)
        num_tokens = len(pipeline.tokenizer(prompt.strip()).input_ids)
        check_length(prompt, num_tokens, sampling)
        embeds_BLD, mask_BL, *_ = pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            max_sequence_length=sampling.max_sequence_length,
            device=pipeline.text_encoder.device,
        )
        side = pipeline.tokenizer.padding_side
        picture_BLD, sound_BLD, _ = pipeline.connectors(embeds_BLD, mask_BL, padding_side=side)
        return Embedding(
            {
                "prompt_embeds": picture_BLD[0].cpu().clone(),
                "audio_prompt_embeds": sound_BLD[0].cpu().clone(),
            }
        )

    def text_width(self, transformer: Any) -> int:
        """Return the width of the picture's text."""
        return _text_widths(transformer.config)[0]

    def example_text(self, transformer: Any, num_tokens: int) -> Embedding:
        """Return zeros [L, D] for the picture and for the sound."""
        picture, sound = (torch.zeros(num_tokens, w) for w in _text_widths(transformer.config))
        return Embedding({"prompt_embeds": picture, "audio_prompt_embeds": sound})

    def text_arguments(
        self,
        embeds: Sequence[Embedding],
        sampling: SamplingConfig,
        dtype: torch.dtype,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Return the embeddings [B, L, D] of both, and a mask [B, L] of ones."""
        arguments = {
            name: torch.stack([each[name] for each in embeds]).to(device, dtype)
            for name in ("prompt_embeds", "audio_prompt_embeds")
        }
        shape = arguments["prompt_embeds"].shape[:2]
        mask = torch.ones(shape, dtype=torch.int64, device=device)
        return {**arguments, "prompt_attention_mask": mask}

    def transformer_text(self, arguments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the same under the transformer's names."""
        mask = arguments["prompt_attention_mask"]
        return {
            "encoder_hidden_states": arguments["prompt_embeds"],
            "audio_encoder_hidden_states": arguments["audio_prompt_embeds"],
            "encoder_attention_mask": mask,
            "audio_encoder_attention_mask": mask,
        }

    def inputs(
        self,
        pipeline: Any,
        x_t_BCTHW: Tensor,
        t_B: Tensor,
        arguments: Mapping[str, Tensor],
        sampling: SamplingConfig,
    ) -> dict[str, Any]:
        """Return picture, sound and text, and what places and times are made of."""
        shape = self._shape_of(pipeline, sampling)
        picture, sound = part(shape, self.packed(pipeline, x_t_BCTHW))
        timestep = t_B * pipeline.scheduler.config["num_train_timesteps"]
        return {
            "hidden_states": picture,
            "audio_hidden_states": sound,
            **self.transformer_text(arguments),
            "timestep": timestep,
            "sigma": timestep,
            "num_frames": shape.frames,
            "height": shape.rows,
            "width": shape.columns,
            "fps": sampling.fps,
            "audio_num_frames": shape.sound_tokens,
            "use_cross_timestep": True,
        }

    def put_out(
        self,
        pipeline: Any,
        outputs: Sequence[Tensor],
        x_t_BCTHW: Tensor,
        t_B: Tensor,
        sampling: SamplingConfig,
    ) -> Tensor:
        """Return the velocities of both; where there is neither, that which leads to 0: x_t / t.

        At t = 0 nothing leads anywhere: 0, with no gradient.
        """
        shape = self._shape_of(pipeline, sampling)
        picture, sound, *_ = outputs
        x_t = self.packed(pipeline, x_t_BCTHW.float())
        rest = x_t / t_B.masked_fill(t_B <= 0, math.inf)[:, None, None]
        return join(shape, picture.float(), sound.float(), rest)

    def call(self, pipeline: Any, arguments: Mapping[str, Any]) -> Any:
        """Call the pipeline with text that has passed the connectors, and join what it returns."""
        given = dict(arguments)
        connected = Connected(given["prompt_embeds"].shape[2])
        for prefix in ("", "negative_"):
            if (sound := given.pop(f"{prefix}audio_prompt_embeds", None)) is not None:
                name = f"{prefix}prompt_embeds"
                given[name] = torch.cat([given[name], sound], dim=2)
        size = (given["num_frames"], given["height"], given["width"])
        shape = self._shape(pipeline, size, given["frame_rate"])
        if (after_step := given.get("callback_on_step_end")) is not None:
            given["callback_on_step_end"] = with_sound(after_step, shape)
            given["callback_on_step_end_tensor_inputs"] = ["latents", "audio_latents"]
        known = [*pipeline._callback_tensor_inputs, "audio_latents"]
        with in_place(pipeline, connectors=connected, vae=PICTURE, _callback_tensor_inputs=known):
            picture, sound = pipeline(**given)
        sound_BLD = pipeline._pack_audio_latents(sound)
        return (join(shape, self.packed(pipeline, picture), sound_BLD),)

    def changed_steps(
        self, pipeline: Any, change: Change, sampling: SamplingConfig
    ) -> AbstractContextManager[None]:
        """Change what is predicted of picture and sound together."""
        return changed_velocities(pipeline, self._shape_of(pipeline, sampling), change)

    def packed(self, pipeline: Any, latents_BCTHW: Tensor) -> Tensor:
        """Return the latents as tokens [B, N, C]."""
        return pipeline._pack_latents(latents_BCTHW)

    def unpacked(self, pipeline: Any, latents: Tensor, sampling: SamplingConfig) -> Tensor:
        """Return the latents of tokens [B, N, C], in the order of frames, rows and columns."""
        stride = pipeline.vae_spatial_compression_ratio
        rows, columns = sampling.height // stride, sampling.width // stride
        frames = latents.shape[1] // (rows * columns)
        return pipeline._unpack_latents(latents, frames, rows, columns)

    def blocks(self, transformer: Any) -> nn.ModuleList:
        """Return the blocks."""
        return transformer.transformer_blocks

    def keep_blocks(self, transformer: Any, count: int) -> None:
        """Remove also what makes the sound for a block that is gone."""
        super().keep_blocks(transformer, count)
        last = transformer.transformer_blocks[-1]
        last.video_to_audio_attn, last.audio_ff = Unread(), nn.Identity()

    def decode(self, pipeline: Any, x0_BCTHW: Tensor, num_frames: int) -> Tensor:
        """Return the pixels of the picture's latents, of zero mean and unit variance per channel.

        A VAE with a time is given 0, without noise, as the pipeline does unless it is told another.
        """
        vae = pipeline.vae
        frames = (num_frames - 1) // pipeline.vae_scale_factor_temporal + 1
        x0 = pipeline._denormalize_latents(
            x0_BCTHW[:, :, :frames], vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        )
        is_timed = vae.config.timestep_conditioning
        time_B = torch.zeros(len(x0), device=x0.device, dtype=x0.dtype) if is_timed else None
        return vae.decode(x0, time_B, return_dict=False)[0]

    def encode(self, pipeline: Any, pixels_B3FHW: Tensor) -> Tensor:
        """Raise: a video has no latents of a sound.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "policy.family=ltx_2 cannot learn from videos in files: its candidates are picture and "
            "sound, and such videos have none that it could read; learn online, or from the "
            "latents of a run's archive"
        )

    def _shape_of(self, pipeline: Any, sampling: SamplingConfig) -> Shape:
        size = (sampling.num_frames, sampling.height, sampling.width)
        return self._shape(pipeline, size, sampling.fps)

    def _shape(self, pipeline: Any, size: tuple[int, int, int], fps: float) -> Shape:
        """Return the shape of the latents of a video of so many frames, rows and columns."""
        temporal, spatial = pipeline.vae_scale_factor_temporal, pipeline.vae_scale_factor_spatial
        latents = (size[0] - 1) // temporal + 1, size[1] // spatial, size[2] // spatial
        # As the pipeline computes it.
        per_s = (
            pipeline.audio_sampling_rate
            / pipeline.audio_hop_length
            / float(pipeline.audio_vae_temporal_compression_ratio)
        )
        return _of(pipeline.transformer.config, latents, round(size[0] / fps * per_s))


def _of(config: Any, latents: tuple[int, int, int], sound_tokens: int) -> Shape:
    return Shape(*latents, config["in_channels"], sound_tokens, config["audio_in_channels"])


def _text_widths(config: Any) -> tuple[int, int]:
    """Return the widths of the text of picture and sound, which LTX-2.3's connectors project."""
    if config.use_prompt_embeddings:
        return config.caption_channels, config.caption_channels
    return config.cross_attention_dim, config.audio_cross_attention_dim
