"""A policy on a stock diffusers text-to-video pipeline, of any family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videorl.config import SamplingConfig
from videorl.errors import ConfigError
from videorl.policies.adapter_export import export_adapter
from videorl.policies.calls import call_options
from videorl.policies.family import Family, swapped
from videorl.policies.full import train_everything
from videorl.policies.steps import Change, StepCallback, changed_steps, kept_latents
from videorl.policies.texts import encode_text, pad
from videorl.policies.trained import TrainedWeights
from videorl.policies.video_codec import VideoCodec
from videorl.protocols import Process, Role
from videorl.types import Video


class PipelinePolicy:
    """A diffusers model with its trained weights and its frozen reference.

    Sampling is the stock pipeline's own call, so whatever scheduler the checkpoint names is used.
    In training, a prediction is the pipeline's own call of its transformer, without guidance.
    """

    def __init__(
        self,
        family: Family,
        pipeline: Any,
        trained: TrainedWeights | None,
        sampling: SamplingConfig,
        *,
        dtype: torch.dtype,
        is_lora: bool,
        autocast: bool,
    ) -> None:
        """Combine the loaded parts.

        Args:
            family: What this model family does differently from others.
            pipeline: The stock pipeline; parts that were not loaded are None.
            trained: The trained weights; None if the transformer was not loaded.
            sampling: Size of the videos, number of steps, guidance.
            dtype: Compute type of the transformer.
            is_lora: Whether adapters are trained, instead of all weights.
            autocast: Whether weights are held in float32 but compute in `dtype`.
        """
        self._family = family
        self._pipeline = pipeline
        self._trained = trained
        self._sampling = sampling
        self._dtype = dtype
        self._is_lora = is_lora
        self._autocast = autocast

    @property
    def process(self) -> Process:
        """The noising process of the checkpoint; needs the transformer to be loaded."""
        self._part("transformer")
        return self._family.process(self._pipeline.scheduler)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """Return one embedding [L, D] per prompt, on the CPU; padded if the model reads padding.

        Prompts are encoded one by one, so that an embedding never depends on its batch mates.

        Raises:
            PromptError: A prompt has more tokens than `sampling.max_sequence_length`, unless
                `sampling.long_prompts` cuts it off.
        """
        self._part("text_encoder")
        return [
            encode_text(self._family, self._pipeline, prompt, self._sampling) for prompt in prompts
        ]

    @torch.no_grad()
    def sample(
        self,
        prompt_embeds_LD: Tensor,
        negative_prompt_embeds_LD: Tensor | None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Return final latents [B, C, T, H, W] in float32, one per seed, for a single prompt.

        All noise is drawn per seed on the CPU, so that a candidate depends neither on the device
        nor on the others in its batch, up to rounding in batches of other shapes.

        Args:
            prompt_embeds_LD: Embedding of the prompt, as `encode` returns it.
            negative_prompt_embeds_LD: Embedding of `sampling.negative_prompt`; read only if
                `sampling.guidance_scale` > 1.
            seeds: Seeds of the initial noise and of a stochastic solver's.

        Raises:
            ConfigError: Guidance is on, but there is no negative embedding.
        """
        if self._sampling.guidance_scale > 1 and negative_prompt_embeds_LD is None:
            raise ConfigError("sampling.guidance_scale > 1 needs the negative prompt's embedding")
        size = self._sampling.batch_size or len(seeds)
        batches = [seeds[start : start + size] for start in range(0, len(seeds), size)]
        prompt, negative = [prompt_embeds_LD], [negative_prompt_embeds_LD]
        return torch.cat(
            [self._run(prompt * len(batch), negative * len(batch), batch) for batch in batches]
        )

    def sample_partly(
        self,
        prompt_embeds: Sequence[Tensor],
        negative_prompt_embeds: Sequence[Tensor],
        seeds: Sequence[int],
        steps: Sequence[int],
        longest: int,
    ) -> tuple[Tensor, Tensor]:
        """Take only the first of the sampler's steps; see `DifferentiablePolicy`."""
        found, keep = kept_latents(steps, longest)
        guided = self._sampling.guidance_scale > 1
        self._run(prompt_embeds, negative_prompt_embeds if guided else [], seeds, keep)
        return self._swap(torch.stack(found)), self._family.step_times(self._pipeline)

    def _run(
        self,
        prompt_embeds: Sequence[Tensor],
        negative_prompt_embeds: Sequence[Tensor | None],
        seeds: Sequence[int],
        after_step: StepCallback | None = None,
    ) -> Tensor:
        """Call the stock pipeline; return its latents [B, C, T, H, W] in float32."""
        self._part("transformer")
        negative = [embeds for embeds in negative_prompt_embeds if embeds is not None]
        with self._mixed_precision():
            latents = self._pipeline(
                prompt_embeds=self._padded(prompt_embeds),
                negative_prompt_embeds=self._padded(negative) if negative else None,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                **call_options(type(self._pipeline), self._sampling),
                callback_on_step_end=after_step,
                output_type="latent",
                return_dict=False,
            )[0]
        return self._swap(latents.float()).contiguous()

    def decode(self, latents_BCTHW: Tensor) -> list[Video]:
        """Decode latents as the stock pipeline does, in small batches if the videos are large."""
        return self._codec().decode(latents_BCTHW)

    def pixels(self, latents_BCTHW: Tensor, *, in_pieces: bool = False) -> Tensor:
        """Decode latents to pixels [B, F, 3, H, W] in [0, 1]; see `DifferentiablePolicy`."""
        return self._codec().pixels(latents_BCTHW, in_pieces=in_pieces)

    def encode_video(self, video: Video) -> Tensor:
        """Return the latents [C, T, H, W] of a video on the CPU; see `VideoCodec.encode`."""
        return self._codec().encode(video)

    def predict(
        self, x_t_BCTHW: Tensor, t_B: Tensor, prompt_embeds: Sequence[Tensor], role: Role
    ) -> Tensor:
        """Return the model's output [B, C, T, H, W] in float32, without guidance.

        Args:
            x_t_BCTHW: Noisy latents.
            t_B: Times in [0, 1], 1 is pure noise.
            prompt_embeds: One embedding [L, D] per item, as `encode` returns them.
            role: Whose prediction; only the policy's carries a gradient.
        """
        device = self._part("transformer").device
        x_t = self._swap(x_t_BCTHW.to(device, self._dtype))
        conditions = self._family.conditions(self._pipeline, x_t, t_B.to(device, torch.float32))
        with_grad = torch.is_grad_enabled() and role == "policy"
        with (
            torch.set_grad_enabled(with_grad),
            self._weights().using(role) as transformer,
            self._mixed_precision(),
        ):
            prediction = transformer(
                hidden_states=x_t,
                encoder_hidden_states=self._padded(prompt_embeds),
                return_dict=False,
                **conditions,
            )[0]
        return self._swap(prediction.float())

    def blocks(self) -> torch.nn.ModuleList:
        """Return the transformer's blocks."""
        return self._family.blocks(self._part("transformer"))

    def features(self, x_t_BCTHW: Tensor, t_B: Tensor, prompt_embeds: Sequence[Tensor]) -> Tensor:
        """Return the video's tokens [B, N, D] after the last block; arguments as in `predict`."""
        outputs: list[Any] = []
        with self.blocks()[-1].register_forward_hook(lambda *seen: outputs.append(seen[2])):
            self.predict(x_t_BCTHW, t_B, prompt_embeds, "policy")
        return (outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]).float()

    def keep_layers(self, num_layers: int) -> None:
        """Keep only the first blocks, for a network that reads their `features`.

        Raises:
            ConfigError: There are fewer blocks, or the policy has adapters.
        """
        blocks = self.blocks()
        if self._is_lora or not 1 <= num_layers <= len(blocks):
            raise ConfigError(
                f"num_layers must be 1 ... {len(blocks)}, and policy.lora.rank 0, got {num_layers}"
            )
        del blocks[num_layers:]
        self._trained = train_everything(self._part("transformer"), trainable=False)

    def changed_predictions(self, change: Change) -> AbstractContextManager[None]:
        """Inside the block, give the solver of `sample` `change(prediction, x_t, t_B)` instead.

        The prediction [B, C, T, H, W] is the model's after classifier-free guidance.
        """
        self._part("transformer")

        def in_our_axes(prediction: Tensor, x_t: Tensor, timestep: Tensor) -> Tensor:
            t_B = self._family.times(self._pipeline, timestep.to(x_t.device)).expand(len(x_t))
            return self._swap(change(self._swap(prediction), self._swap(x_t), t_B))

        return changed_steps(self._pipeline.scheduler, in_our_axes)

    def trainable_module(self) -> torch.nn.Module:
        """Return the transformer; in LoRA mode only the policy adapter requires gradients."""
        return self._part("transformer")

    def live(self, role: Role) -> list[torch.nn.Parameter]:
        """Return the live parameters of `weights`, or for the reference of `reference_weights`."""
        return self._weights().live(role)

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the policy's trained tensors as they are published.

        They are on the CPU, in the types in which a process that only samples holds them, so that
        its digest is the same once it has loaded them.
        """
        return self._weights().published()

    def reference_weights(self) -> dict[str, Tensor]:
        """Return copies of the reference's tensors on the CPU, in the types it holds them in."""
        return self._weights().reference_copies()

    def load_weights(self, weights: Mapping[str, Tensor], role: Role = "policy") -> None:
        """Copy tensors into the live parameters of `role`, all or nothing.

        Raises:
            WeightMismatchError: A name is missing or unknown, or a shape differs.
        """
        self._weights().load(weights, role)

    def update_reference(self) -> None:
        """Make the reference equal to the policy, in place."""
        self._weights().update_reference()

    def export(self, directory: Path) -> None:
        """Write the trained weights so that stock diffusers opens them.

        LoRA: `load_lora_weights(directory)` of the family's pipeline, which is tried. Full fine-
        tuning: `from_pretrained(directory, subfolder="transformer")` of its transformer's class.
        """
        if self._is_lora:
            weights = self.weights()
            export_adapter(self._family, self._pipeline, weights, directory, self._sampling)
        else:
            self._part("transformer").save_pretrained(directory / "transformer")

    def _part(self, name: str) -> Any:
        part = getattr(self._pipeline, name)
        if part is None:
            raise ConfigError(f"this policy was loaded without its {name}: add it to `parts`")
        return part

    def _weights(self) -> TrainedWeights:
        self._part("transformer")
        assert self._trained is not None
        return self._trained

    def _padded(self, prompt_embeds: Sequence[Tensor]) -> Tensor:
        device, limit = self._part("transformer").device, self._sampling.max_sequence_length
        return pad(prompt_embeds, limit, self._dtype, device)

    def _swap(self, latents: Tensor) -> Tensor:
        return swapped(self._family, latents)

    def _codec(self) -> VideoCodec:
        self._part("vae")
        return VideoCodec(self._family, self._pipeline, self._sampling)

    def _mixed_precision(self) -> AbstractContextManager[object]:
        device_type = self._part("transformer").device.type
        return torch.autocast(device_type, self._dtype) if self._autocast else nullcontext()
