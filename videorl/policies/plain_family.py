"""What most families have in common: one text encoder, latents as they are, no special settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from videorl.config import PolicyConfig, SamplingConfig
from videorl.embedding import Embedding, plain
from videorl.policies.calls import call_options
from videorl.policies.steps import Change, changed_steps
from videorl.policies.texts import check_length, pad
from videorl.processes.rectified_flow import RectifiedFlow
from videorl.protocols import Process

if TYPE_CHECKING:
    from PIL.Image import Image


class PlainFamily:
    """The parts of `videorl.policies.family.Family` that a family need not write itself."""

    pipeline_class: Any
    takes_images = False
    vae_dtype: torch.dtype | None = None
    prediction_sign = 1
    decodes_float32 = False
    negative_guidance = "guidance_scale"
    attends_to_padding = False
    """Whether the transformer reads the padding of a prompt, which embeddings then include."""
    masks_padding = False
    """Whether the pipeline has a mask of the prompt's tokens, and hands it to the transformer."""

    def pipeline_options(self, folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
        """Return an empty dict: the pipeline takes only its parts."""
        return {}

    def latent_frames(self, num_frames: int, vae_config: Mapping[str, Any]) -> int:
        """Return a latent frame for the first frame, and one for every `strides` of the others."""
        return (num_frames - 1) // self.strides(vae_config)[0] + 1

    def added_frames(
        self,
        transformer_config: Mapping[str, Any],
        latents: tuple[int, int, int],
        sampling: SamplingConfig,
    ) -> int:
        """Return 0: latents are those of the video alone."""
        return 0

    def latent_channels(self, transformer_config: Mapping[str, Any]) -> int:
        """Return the transformer's input channels: it reads latents and nothing beside them."""
        return transformer_config["in_channels"]

    def num_blocks(self, transformer_config: Mapping[str, Any]) -> dict[str, int]:
        """Return `num_layers`: all blocks are of one kind."""
        return {"num_layers": transformer_config["num_layers"]}

    def shortened(
        self, transformer_config: Mapping[str, Any], blocks: Mapping[str, int]
    ) -> dict[str, Any]:
        """Return the configuration with the keys of `blocks` changed."""
        return {**transformer_config, **blocks}

    def encoder_tokens(
        self, encoder: str, config: Mapping[str, Any], sampling: SamplingConfig
    ) -> int:
        """Return `sampling.max_sequence_length`, or as many as the encoder has positions."""
        longest = sampling.max_sequence_length
        return min(longest, config.get("max_position_embeddings") or longest)

    def encoder_arguments(
        self, encoder: str, config: Mapping[str, Any], sampling: SamplingConfig, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Return tokens [1, L] and their mask."""
        length = self.encoder_tokens(encoder, config, sampling)
        tokens = torch.zeros(1, length, dtype=torch.long)
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}

    def forwards_per_step(self, sampling: SamplingConfig) -> int:
        """Return 2 where there is guidance by the negative prompt, else 1."""
        return 2 if getattr(sampling, self.negative_guidance) > 1 else 1

    def trained_transformers(self, names: Sequence[str], config: PolicyConfig) -> Sequence[str]:
        """Return all."""
        return names

    def offloads_transformers(self, config: PolicyConfig) -> bool:
        """Return whether `policy.idle_expert` says so."""
        return config.idle_expert == "cpu"

    def strides(self, vae_config: Mapping[str, Any]) -> tuple[int, int]:
        """Return the VAE's compression; see `Family`."""
        raise NotImplementedError

    def prepare(self, pipeline: Any, sampling: SamplingConfig) -> None:
        """Do nothing: process and conditions are those of any size."""

    def call_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        """Return size, steps and guidance."""
        return call_options(self.pipeline_class, sampling)

    def clean(self, prompt: str) -> str:
        """Return the text that the pipeline gives to its tokenizer: the prompt as it is."""
        return prompt

    def encode_text(self, pipeline: Any, prompt: str, sampling: SamplingConfig) -> Embedding:
        """Return the embedding of the only text encoder; see `Family`."""
        max_length = sampling.max_sequence_length
        num_tokens = len(pipeline.tokenizer(self.clean(prompt)).input_ids)
        check_length(prompt, num_tokens, sampling)
        padded_BLD, mask, *_ = pipeline.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            max_sequence_length=max_length,
            device=pipeline.text_encoder.device,
        )
        num_rows = max_length if self.attends_to_padding else min(num_tokens, max_length)
        if self.masks_padding:
            num_rows = int(mask.sum())
        return plain(padded_BLD[0, :num_rows].cpu().clone())

    def encode_image(
        self, pipeline: Any, image: Image, sampling: SamplingConfig
    ) -> Mapping[str, Tensor]:
        """Raise: only a family that `takes_images` has it."""
        raise NotImplementedError

    def example_image(self, pipeline: Any, sampling: SamplingConfig) -> Mapping[str, Tensor]:
        """Return nothing."""
        return {}

    def text_width(self, transformer: Any) -> int:
        """Return the width D of the prompt embeddings [L, D] that the transformer reads."""
        raise NotImplementedError

    def example_text(self, transformer: Any, num_tokens: int) -> Embedding:
        """Return zeros [L, D]."""
        return plain(torch.zeros(num_tokens, self.text_width(transformer)))

    def text_arguments(
        self,
        embeds: Sequence[Embedding],
        sampling: SamplingConfig,
        dtype: torch.dtype,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Return the embeddings [B, L, D], zeros after the last token, and the mask [B, L]."""
        rows = [embedding["prompt_embeds"] for embedding in embeds]
        length = sampling.max_sequence_length
        arguments = {"prompt_embeds": pad(rows, length, dtype, device)}
        if self.masks_padding:
            places_L = torch.arange(length, device=device)
            masks = [places_L < len(row) for row in rows]
            arguments["prompt_attention_mask"] = torch.stack(masks)
        return arguments

    def transformer_text(self, arguments: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the embeddings and the mask, under the names that transformers have for them."""
        text = {"encoder_hidden_states": arguments["prompt_embeds"]}
        if self.masks_padding:
            text["encoder_attention_mask"] = arguments["prompt_attention_mask"]
        return text

    def process(self, scheduler: Any) -> Process:
        """Return rectified flow with uniform training times; schedulers only integrate it."""
        return RectifiedFlow()

    def step_times(self, pipeline: Any) -> Tensor:
        """Return the scheduler's noise level before every step."""
        return pipeline.scheduler.sigmas[: len(pipeline.scheduler.timesteps)]

    def times(self, pipeline: Any, timestep: Tensor) -> Tensor:
        """Return the timesteps divided by the number of training timesteps."""
        return timestep.float() / pipeline.scheduler.config["num_train_timesteps"]

    def conditions(
        self, pipeline: Any, x_t_BCTHW: Tensor, t_B: Tensor, sampling: SamplingConfig
    ) -> dict[str, Any]:
        """Return the transformer's other arguments; see `Family`."""
        raise NotImplementedError

    def inputs(
        self,
        pipeline: Any,
        x_t_BCTHW: Tensor,
        t_B: Tensor,
        arguments: Mapping[str, Tensor],
        sampling: SamplingConfig,
    ) -> dict[str, Any]:
        """Return latents, text and `conditions`."""
        return {
            "hidden_states": self.packed(pipeline, x_t_BCTHW),
            **self.transformer_text(arguments),
            **self.conditions(pipeline, x_t_BCTHW, t_B, sampling),
        }

    def put_out(
        self,
        pipeline: Any,
        outputs: Sequence[Tensor],
        x_t_BCTHW: Tensor,
        t_B: Tensor,
        sampling: SamplingConfig,
    ) -> Tensor:
        """Return the first output in float32."""
        return outputs[0].float()

    def given_frames(self, pipeline: Any) -> int:
        """Return 0: all frames are predicted."""
        return 0

    def predicted(
        self,
        prediction_BCTHW: Tensor,
        x_t_BCTHW: Tensor,
        t_B: Tensor,
        arguments: Mapping[str, Tensor],
    ) -> Tensor:
        """Return the prediction as it is."""
        return prediction_BCTHW

    def call(self, pipeline: Any, arguments: Mapping[str, Any]) -> Any:
        """Call the pipeline."""
        return pipeline(**arguments)

    def changed_steps(
        self, pipeline: Any, change: Change, sampling: SamplingConfig
    ) -> AbstractContextManager[None]:
        """Change what the scheduler is given."""
        return changed_steps(pipeline.scheduler, change)

    def packed(self, pipeline: Any, latents_BCTHW: Tensor) -> Tensor:
        """Return the latents as they are."""
        return latents_BCTHW

    def unpacked(self, pipeline: Any, latents: Tensor, sampling: SamplingConfig) -> Tensor:
        """Return the latents as they are."""
        return latents

    def blocks(self, transformer: Any) -> nn.ModuleList:
        """Return the transformer's blocks."""
        raise NotImplementedError

    def keep_blocks(self, transformer: Any, count: int) -> None:
        """Remove all blocks after the first."""
        del self.blocks(transformer)[count:]
