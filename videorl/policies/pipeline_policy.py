"""A policy on a stock diffusers text-to-video pipeline, of any family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videorl.config import SamplingConfig
from videorl.embedding import Embedding
from videorl.errors import ConfigError
from videorl.policies.acceleration import Acceleration
from videorl.policies.adapter_export import export_adapter
from videorl.policies.adapter_files import open_adapter
from videorl.policies.adapter_layouts import read_layers
from videorl.policies.experts import Experts, by_model, models_of
from videorl.policies.family import Family, is_guided
from videorl.policies.features import blocks_of, keep_blocks, tokens_instead
from videorl.policies.full import train_everything
from videorl.policies.images import encode_condition
from videorl.policies.lora import filled
from videorl.policies.steps import Change, StepCallback, kept_latents
from videorl.policies.trained import TrainedWeights
from videorl.policies.video_codec import VideoCodec, tile_large_frames
from videorl.protocols import Process, Role
from videorl.settings.model import LoraConfig
from videorl.types import Condition, Video


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
        may_merge = is_lora and trained is not None and not trained.reference
        self._fast = Acceleration(family, pipeline, sampling, may_merge=may_merge)

    @property
    def process(self) -> Process:
        """The noising process of the checkpoint; needs the transformer to be loaded."""
        times = self._weights().times
        process: Any = self._family.process(self._pipeline.scheduler)
        return process if times == (0.0, 1.0) else replace(process, start=times[0], end=times[1])

    @property
    def given_frames(self) -> int:
        """Latent frames at the beginning that the model is given, and does not predict."""
        return self._family.given_frames(self._pipeline)

    @torch.no_grad()
    def encode(self, prompts: Sequence[Condition]) -> list[Embedding]:
        """Return one embedding per prompt, on the CPU; see `encode_condition`.

        Prompts are encoded one by one, so that an embedding never depends on its batch mates.

        Raises:
            PromptError: A prompt is longer than a text encoder reads (the first at the most
                `sampling.max_sequence_length`), unless `sampling.long_prompts` cuts it off; or
                its picture cannot be read, or the model takes none.
        """
        self._part("text_encoder")
        encoded = partial(encode_condition, self._family, self._pipeline, self._sampling)
        return [encoded(prompt) for prompt in prompts]

    @torch.no_grad()
    def sample(
        self,
        prompt_embeds: Embedding,
        negative_prompt_embeds: Embedding | None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Return final latents [B, C, T, H, W] in float32, one per seed, for a single prompt.

        All noise is drawn per seed on the CPU, so that a candidate depends neither on the device
        nor on the others in its batch, up to rounding in batches of other shapes.

        Args:
            prompt_embeds: Embedding of the prompt, as `encode` returns it.
            negative_prompt_embeds: Embedding of `sampling.negative_prompt`; read only if the
                family's guidance by it (`sampling.guidance_scale` of most) is above 1.
            seeds: Seeds of the initial noise and of a stochastic solver's.

        Raises:
            ConfigError: Guidance is on, but there is no negative embedding.
        """
        if is_guided(self._family, self._sampling) and negative_prompt_embeds is None:
            setting = f"sampling.{self._family.negative_guidance}"
            raise ConfigError(f"{setting} > 1 needs the negative prompt's embedding")
        size = self._sampling.batch_size or len(seeds)
        batches = [seeds[start : start + size] for start in range(0, len(seeds), size)]
        prompt, negative = [prompt_embeds], [negative_prompt_embeds]
        return torch.cat(
            [self._run(prompt * len(batch), negative * len(batch), batch) for batch in batches]
        )

    @torch.no_grad()
    def sample_each(
        self,
        prompt_embeds: Sequence[Embedding],
        negative_prompt_embeds: Sequence[Embedding],
        seeds: Sequence[int],
    ) -> Tensor:
        """Do as `sample`, in one batch, with a prompt of its own for each seed."""
        return self._run(prompt_embeds, negative_prompt_embeds, seeds)

    def check_sampling(self, sampling: SamplingConfig) -> None:
        """See whether the model makes videos of other settings.

        Raises:
            ConfigError: It does not; names the setting and the values it may have.
        """
        self._family.call_options(sampling)
        self._family.check_size(self._pipeline, sampling)

    def resample(self, sampling: SamplingConfig) -> None:
        """Sample in another size, length, guidance or number of steps from now on.

        Nothing is loaded anew, so what is read of `sampling` at loading alone must be the same.

        Raises:
            ConfigError: As `check_sampling`; nothing is changed then.
        """
        if sampling == self._sampling:
            return
        self.check_sampling(sampling)
        self._family.prepare(self._pipeline, sampling)
        tile_large_frames(self._part("vae"), sampling)
        self._fast.use(sampling)
        self._sampling = sampling

    def sample_partly(
        self,
        prompt_embeds: Sequence[Embedding],
        negative_prompt_embeds: Sequence[Embedding],
        seeds: Sequence[int],
        steps: Sequence[int],
        longest: int,
    ) -> tuple[Tensor, Tensor]:
        """Take only the first of the sampler's steps; see `DifferentiablePolicy`."""
        found, keep = kept_latents(steps, longest)
        guided = is_guided(self._family, self._sampling)
        self._run(prompt_embeds, negative_prompt_embeds if guided else [], seeds, keep)
        return self._unpacked(torch.stack(found)), self._family.step_times(self._pipeline)

    def _run(
        self,
        prompt_embeds: Sequence[Embedding],
        negative_prompt_embeds: Sequence[Embedding | None],
        seeds: Sequence[int],
        after_step: StepCallback | None = None,
    ) -> Tensor:
        """Call the stock pipeline; return its latents [B, C, T, H, W] in float32."""
        given = [embeds for embeds in negative_prompt_embeds if embeds is not None]
        prompt, negative = self._text(prompt_embeds), self._text(given) if given else {}
        # What only the prompt has, its picture, is that of the negative prompt too.
        steered = self._family.transformer_text({**prompt, **negative}) if given else None
        arguments = {
            **prompt,
            **{f"negative_{name}": tensor for name, tensor in negative.items()},
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            **self._family.call_options(self._sampling),
            "callback_on_step_end": after_step,
            "output_type": "latent",
            "return_dict": False,
        }
        with self._mixed_precision(), self._fast.sampling(steered):
            latents = self._family.call(self._pipeline, arguments)[0]
        return self._unpacked(latents.float()).contiguous()

    def decode(self, latents_BCTHW: Tensor) -> list[Video]:
        """Decode latents as the stock pipeline does, in small batches if the videos are large."""
        return self._codec().decode(latents_BCTHW)

    def pixels(self, latents_BCTHW: Tensor, *, in_pieces: bool = False, tile_px: int = 0) -> Tensor:
        """Decode latents to pixels [B, F, 3, H, W] in [0, 1]; see `DifferentiablePolicy`."""
        return self._codec().pixels(latents_BCTHW, in_pieces=in_pieces, tile_px=tile_px)

    def encode_video(self, video: Video) -> Tensor:
        """Return the latents [C, T, H, W] of a video on the CPU; see `VideoCodec.encode`."""
        return self._codec().encode(video)

    def predict(
        self, x_t_BCTHW: Tensor, t_B: Tensor, prompt_embeds: Sequence[Embedding], role: Role
    ) -> Tensor:
        """Return the model's output [B, C, T, H, W] in float32, without guidance.

        Args:
            x_t_BCTHW: Noisy latents.
            t_B: Times in [0, 1], 1 is pure noise.
            prompt_embeds: One per item, as `encode` returns them.
            role: Whose prediction; only the policy's carries a gradient.
        """
        x_t_BCTHW, t_B = self._placed(x_t_BCTHW), self._placed(t_B.float())
        text = self._text(prompt_embeds)
        outputs = self._outputs(x_t_BCTHW, t_B, text, role)
        given = (self._pipeline, outputs, x_t_BCTHW, t_B, self._sampling)
        prediction = self._ours(self._family.put_out(*given))
        return self._family.predicted(prediction, x_t_BCTHW, t_B, text)

    def blocks(self) -> torch.nn.ModuleList:
        """Return the transformer's blocks; of two transformers, those of the first come first."""
        return blocks_of(self._family, self.trainable_module())

    def features(
        self, x_t_BCTHW: Tensor, t_B: Tensor, prompt_embeds: Sequence[Embedding]
    ) -> Tensor:
        """Return the video's tokens [B, N, D] after the last block; arguments as in `predict`.

        Of two transformers each item has the tokens of the one of its time.
        """
        x_t_BCTHW, t_B = self._placed(x_t_BCTHW), self._placed(t_B.float())
        with tokens_instead(self._family, self.trainable_module()):
            outputs = self._outputs(x_t_BCTHW, t_B, self._text(prompt_embeds), "policy")
        return outputs[0].float()

    def keep_layers(self, num_layers: int) -> None:
        """Keep only the first blocks of each transformer, for a network that reads `features`.

        Raises:
            ConfigError: There are fewer blocks, or the policy has adapters.
        """
        if self._is_lora:
            raise ConfigError("a policy that keeps only its first blocks needs policy.lora.rank 0")
        module = self.trainable_module()
        keep_blocks(self._family, module, num_layers)
        self._trained = train_everything(module, trainable=False)

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._part("transformer").device)

    def _outputs(
        self, x_t_BCTHW: Tensor, t_B: Tensor, text: Mapping[str, Tensor], role: Role
    ) -> Sequence[Tensor]:
        """Return what the transformer puts out, as it puts it out."""
        self._fast.plain()
        given = x_t_BCTHW.to(self._dtype)
        inputs = self._family.inputs(self._pipeline, given, t_B, text, self._sampling)
        with_grad = torch.is_grad_enabled() and role == "policy"
        with (
            torch.set_grad_enabled(with_grad),
            self._weights().using(role) as transformer,
            self._mixed_precision(),
        ):
            return transformer(**inputs, return_dict=False)

    def changed_predictions(self, change: Change) -> AbstractContextManager[None]:
        """Inside the block, give the solver of `sample` `change(prediction, x_t, t_B)` instead.

        The prediction [B, C, T, H, W] is the model's after classifier-free guidance.
        """
        self._part("transformer")

        def ours(prediction: Tensor, x_t: Tensor, timestep: Tensor) -> Tensor:
            t_B = self._family.times(self._pipeline, timestep.to(x_t.device)).expand(len(x_t))
            changed = change(self._ours(prediction), self._unpacked(x_t), t_B)
            changed = changed if self._family.prediction_sign > 0 else -changed
            return self._family.packed(self._pipeline, changed)

        return self._family.changed_steps(self._pipeline, ours, self._sampling)

    def trainable_module(self) -> torch.nn.Module:
        """Return the transformer, or both; in LoRA mode only policy adapters require gradients."""
        with self._weights().using("policy") as module:
            return module

    def networks(self) -> list[torch.nn.Module]:
        """Return the modules that predict: one with adapters, else one per role."""
        return self._weights().networks()

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

    def read_adapter(self, lora: LoraConfig, fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a trained adapter as `load_weights` takes it.

        Args:
            lora: Its `initial` says which; the rest is as this policy was loaded with.
            fresh: `weights` of this policy before anything was loaded into it: they stay where the
                trained adapter has none.

        Raises:
            CheckpointError, ConfigError: It does not fit this policy.
        """
        assert lora.initial is not None
        layers = [name for name, _ in self._part("transformer").named_modules()]
        rename = self._family.pipeline_class.lora_state_dict
        found = read_layers(open_adapter(lora.initial), layers, rename)
        return filled(fresh, lora, found)

    def load_weights(self, weights: Mapping[str, Tensor], role: Role = "policy") -> None:
        """Copy tensors into the live parameters of `role`, all or nothing.

        Raises:
            WeightMismatchError: A name is missing or unknown, or a shape differs.
        """
        self._fast.plain()
        self._weights().load(weights, role)

    def update_reference(self) -> None:
        """Make the reference equal to the policy, in place."""
        self._weights().update_reference()

    def export(self, directory: Path) -> None:
        """Write the trained weights so that stock diffusers opens them.

        LoRA: `load_lora_weights(directory)` of the family's pipeline, which is tried. Full fine-
        tuning: `from_pretrained(directory, subfolder="transformer")` of its transformer's class.
        Of two experts the second is in a file or folder of its own, see `adapter_files.FILES`.
        """
        self._fast.plain()
        module = self.trainable_module()
        if self._is_lora:
            weights = by_model(module, self.weights())
            turns = module.turns if isinstance(module, Experts) else None
            export_adapter(self._family, self._pipeline, weights, directory, self._sampling, turns)
            return
        for name in by_model(module, self._weights().policy):
            models_of(module)[name].save_pretrained(directory / name)

    def _part(self, name: str) -> Any:
        part = getattr(self._pipeline, name)
        if part is None:
            raise ConfigError(f"this policy was loaded without its {name}: add it to `parts`")
        return part

    def _weights(self) -> TrainedWeights:
        self._part("transformer")
        assert self._trained is not None
        return self._trained

    def _text(self, prompt_embeds: Sequence[Embedding]) -> dict[str, Tensor]:
        """Return the pipeline's arguments for some prompts."""
        device = self._part("transformer").device
        return self._family.text_arguments(prompt_embeds, self._sampling, self._dtype, device)

    def _unpacked(self, latents: Tensor) -> Tensor:
        return self._family.unpacked(self._pipeline, latents, self._sampling)

    def _ours(self, prediction: Tensor) -> Tensor:
        """Return what the transformer predicts [B, C, T, H, W], as the process defines it."""
        prediction = self._unpacked(prediction)
        return prediction if self._family.prediction_sign > 0 else -prediction

    def _codec(self) -> VideoCodec:
        self._part("vae")
        return VideoCodec(self._family, self._pipeline, self._sampling)

    def _mixed_precision(self) -> AbstractContextManager[object]:
        device_type = self._part("transformer").device.type
        return torch.autocast(device_type, self._dtype) if self._autocast else nullcontext()
