"""Open-Sora 1.2 as a pipeline with the interface of those in diffusers, which has none for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import CogVideoXLoraLoaderMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from videorl.open_sora.flow import NUM_TIMESTEPS, step_times, time_ratio
from videorl.open_sora.texts import cleaned, with_scores
from videorl.open_sora.vae import latent_frames

IMAGE_FPS = 120.0
"""The frame rate that the network is told for a single frame."""


@dataclass
class OpenSoraPipelineOutput(BaseOutput):
    """What a call of the pipeline returns."""

    frames: Any
    """Latents [B, C, T, H, W], or videos as `VideoProcessor.postprocess_video` makes them."""


class OpenSoraPipeline(DiffusionPipeline, CogVideoXLoraLoaderMixin):
    """Text to video by the published sampler of Open-Sora 1.2.

    Adapters are loaded and saved as those of CogVideoX, of whose names nothing is translated.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"

    def __init__(  # noqa: PLR0913 - the parts of a pipeline, and what its prompts end with
        self,
        tokenizer: Any,
        text_encoder: Any,
        vae: Any,
        transformer: Any,
        scheduler: Any,
        aesthetic_score: float | None = None,
        motion_score: float | None = None,
        camera_motion: str | None = None,
    ) -> None:
        """Combine the parts.

        Args:
            tokenizer: Of T5.
            text_encoder: T5's encoder.
            vae: An `OpenSoraVAE`.
            transformer: An `STDiT3`.
            scheduler: A `FlowMatchEulerDiscreteScheduler`. Its shift is multiplied by what the
                size of the video asks for.
            aesthetic_score: Appended to every prompt, see `with_scores`; None = is not.
            motion_score: Likewise.
            camera_motion: Likewise.
        """
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            transformer=transformer,
            scheduler=scheduler,
        )
        self.register_to_config(
            aesthetic_score=aesthetic_score,
            motion_score=motion_score,
            camera_motion=camera_motion,
        )
        self.vae_scale_factor_spatial = 8 if vae is None else vae.spatial_stride
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor_spatial)
        self._conditions: tuple[float, float, float] | None = None
        self._interrupt = False

    def full_text(self, prompt: str) -> str:
        """Return what the tokenizer is given: the prompt with its scores, cleaned; "" stays so."""
        config = self.config
        scores = (config["aesthetic_score"], config["motion_score"], config["camera_motion"])
        return cleaned(with_scores(prompt, *scores)) if prompt else ""

    @torch.no_grad()
    def encode_prompt(
        self,
        prompt: str | Sequence[str],
        max_sequence_length: int = 300,
        device: torch.device | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return T5's embeddings [B, L, D] and the mask [B, L] of tokens, padded to `max_...`.

        The empty prompt is all padding: it stands for the embedding of no text.
        """
        texts = [self.full_text(text) for text in ([prompt] if isinstance(prompt, str) else prompt)]
        given: Any = self.tokenizer(
            texts,
            padding="max_length",
            max_length=max_sequence_length,
            truncation=True,
            return_tensors="pt",
        ).to(device or self.text_encoder.device)
        embeds_BLD = self.text_encoder(given.input_ids, attention_mask=given.attention_mask)[0]
        mask_BL = given.attention_mask * torch.tensor(
            [[bool(text)] for text in texts], device=given.attention_mask.device
        )
        return embeds_BLD * mask_BL[..., None].to(embeds_BLD.dtype), mask_BL

    def set_video(self, height: int, width: int, num_frames: int, fps: float) -> None:
        """Set what depends on a video's size: the shift of times, and `conditions`.

        Args:
            height: In pixels, as the model was trained: 240 × 426 is decoded to 240 × 424.
            width: Likewise.
            num_frames: Pixel frames.
            fps: Frames per second; a single frame has a rate of its own.

        Raises:
            ConfigError: The model has no times for so few frames.
        """
        ratio = time_ratio(height, width, num_frames)
        self.scheduler.set_shift(self.scheduler.config["shift"] * ratio)
        rate = IMAGE_FPS if num_frames == 1 else fps
        self._conditions = (float(height), float(width), float(rate))

    def conditions(self, device: torch.device) -> dict[str, Tensor]:
        """Return what the transformer is told of the video that `set_video` was given."""
        assert self._conditions is not None, "set_video comes first"
        height, width, fps = self._conditions
        # The size is read as numbers, for which a GPU would have to be waited for.
        return {
            "height": torch.tensor([height], device="cpu"),
            "width": torch.tensor([width], device="cpu"),
            "fps": torch.tensor([fps], device=device),
        }

    @torch.no_grad()
    def __call__(  # noqa: PLR0913 - as pipelines are called
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        height: int = 240,
        width: int = 426,
        num_frames: int = 51,
        fps: float = 24.0,
        num_inference_steps: int = 30,
        guidance_scale: float = 7.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        max_sequence_length: int = 300,
    ) -> Any:
        """Sample videos; names and meanings are those of diffusers' pipelines.

        Args:
            prompt: One text per video, or `prompt_embeds` and their mask instead.
            negative_prompt: "" = no text, as published: the embedding that stands for none, of
                which as many tokens are read as the prompt has. Or its embeddings and mask.
            height: In pixels; what is decoded is rounded down to whole latents.
            width: Likewise.
            num_frames: 1, or at least 17, best a multiple of it.
            fps: Frames per second that the model is told.
            num_inference_steps: Of Euler's method.
            guidance_scale: Of classifier-free guidance; 1 = none.
            generator: Of the noise; a list has one per video.
            latents: The noise [B, C, T, H, W] itself.
            prompt_embeds: [B, L, D], as `encode_prompt` returns them.
            prompt_attention_mask: [B, L].
            negative_prompt_embeds: Likewise.
            negative_prompt_attention_mask: Likewise.
            output_type: `latent`, `np`, `pt` or `pil`.
            return_dict: Whether to return an `OpenSoraPipelineOutput`, or a tuple with its field.
            callback_on_step_end: Is called with the pipeline, step, timestep and `latents`.
            max_sequence_length: Tokens that texts are padded or cut to.
        """
        self.set_video(height, width, num_frames, fps)
        self._interrupt = False
        device = self.transformer.device
        length, is_guided = max_sequence_length, guidance_scale > 1
        text = self._text(prompt, prompt_embeds, prompt_attention_mask, length)
        batch = len(text[0])
        if is_guided:
            none = [""] * batch if negative_prompt is None else negative_prompt
            given = (negative_prompt_embeds, negative_prompt_attention_mask)
            text = self._both(text, self._text(none, *given, length))
        if latents is None:
            latents = self._noise(batch, height, width, num_frames, generator)
        x_t: Any = latents.to(device)
        progress_bar: Any = self.progress_bar
        self._set_timesteps(num_inference_steps, device)
        for step, timestep in enumerate(progress_bar(self.scheduler.timesteps)):
            if self._interrupt:
                continue
            velocity = self._velocity(x_t, timestep, text, guidance_scale)
            # The network points to the data, the solvers of diffusers to the noise.
            x_t = self.scheduler.step(-velocity, timestep, x_t, return_dict=False)[0]
            if callback_on_step_end is not None:
                changed = callback_on_step_end(self, step, timestep, {"latents": x_t})
                x_t = changed.get("latents", x_t)
        frames = x_t
        if output_type != "latent":
            pixels = self.vae.decode(x_t.to(self.vae.device, self.vae.dtype), num_frames)
            frames = self.video_processor.postprocess_video(pixels, output_type)
        return OpenSoraPipelineOutput(frames=frames) if return_dict else (frames,)

    def _text(
        self,
        prompt: str | Sequence[str] | None,
        embeds_BLD: Tensor | None,
        mask_BL: Tensor | None,
        length: int,
    ) -> tuple[Tensor, Tensor]:
        if embeds_BLD is not None and mask_BL is not None:
            return embeds_BLD, mask_BL != 0
        if prompt is None or embeds_BLD is not None or mask_BL is not None:
            raise ValueError("give a prompt, or its embeddings together with their mask")
        embeds_BLD, mask_BL = self.encode_prompt(prompt, length)
        device, dtype = self.transformer.device, self.transformer.dtype
        return embeds_BLD.to(device, dtype), mask_BL.to(device) != 0

    def _both(
        self, text: tuple[Tensor, Tensor], negative: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return prompts, then negative ones; no text is read under the prompt's mask."""
        negative_BLD, mask_BL = self.transformer.y_embedder.without_text(*negative, text[1])
        return torch.cat([text[0], negative_BLD]), torch.cat([text[1], mask_BL])

    def _noise(
        self, batch: int, height: int, width: int, num_frames: int, generator: Any
    ) -> Tensor:
        stride = self.vae_scale_factor_spatial
        size = (latent_frames(num_frames), height // stride, width // stride)
        shape = (batch, self.transformer.config["in_channels"], *size)
        return randn_tensor(shape, generator, self.transformer.device, torch.float32)

    def _set_timesteps(self, num_steps: int, device: torch.device) -> None:
        """Set the published times, of which the scheduler's arithmetic would not begin at 1."""
        shift = self.scheduler.shift
        self.scheduler.set_shift(1.0)
        noise_levels = (step_times(num_steps, shift) / NUM_TIMESTEPS).tolist()
        self.scheduler.set_timesteps(sigmas=noise_levels, device=device)
        self.scheduler.set_shift(shift)

    def _velocity(
        self, latents: Tensor, timestep: Tensor, text: tuple[Tensor, Tensor], guidance: float
    ) -> Tensor:
        """Return the velocity towards the data; with guidance, both halves are one call."""
        embeds_BLD, mask_BL = text
        times = len(embeds_BLD) // len(latents)
        both = self.transformer(
            hidden_states=latents.repeat(times, 1, 1, 1, 1),
            timestep=timestep.expand(len(embeds_BLD)),
            encoder_hidden_states=embeds_BLD,
            encoder_attention_mask=mask_BL,
            **self.conditions(latents.device),
            return_dict=False,
        )[0].chunk(2, dim=1)[0]
        if times == 1:
            return both
        with_text, without = both.chunk(2)
        return without + guidance * (with_text - without)
