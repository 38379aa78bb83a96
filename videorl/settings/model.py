"""The sections `policy` and `sampling` of a recipe: which model, and how it samples."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class LoraConfig:
    """Low-rank adapters (peft). `rank: 0` trains every weight of the transformer instead."""

    rank: int = 32
    alpha: int = 32
    """The adapter's output is multiplied by alpha / rank."""
    target_modules: list[str] = field(
        default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
    )
    """Module-name suffixes; the default adapts attention and feed-forward layers of Wan. Those of
    CogVideoX are called `ff` instead of `ffn`."""
    initial: str | None = None
    """File, folder or hub id (`owner/name/file@revision`) of a trained adapter to start from;
    it is the first reference then. Its effect is kept, whatever its own alpha; `rank` must be its
    largest."""


@dataclass
class PolicyConfig:
    """Which model is aligned."""

    family: str = "wan"
    """One of `videorl.policies.FAMILIES`, `wan` or `cogvideox`, or `module:attribute`."""
    path: str = MISSING
    """Folder or hub id (`owner/name` or `owner/name@revision`) of a diffusers pipeline;
    `moving_shapes_wan` is the one we ship."""
    dtype: str = "auto"
    """Compute type of frozen weights: float32, bfloat16, float16. auto = bfloat16 where learner or
    generators have GPUs with it, float32 elsewhere; a run decides it once, in `compute.json`."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    gradient_checkpointing: bool | str = "auto"
    """Compute activations again in the backward pass: less memory, more time, same result. `auto` =
    for models above a size that their family states: 500 million parameters of the transformer."""
    frozen_device: str = "auto"
    """Of full fine-tuning: where the reference, a whole second model, lies. auto = beside the
    policy; cpu = in host memory, each block on the GPU only while it computes: less memory, more
    time, same result."""


@dataclass
class SamplingConfig:
    """How candidates are sampled; the words are those of the diffusers pipelines.

    What a recipe leaves out is as published for the model: `videorl.policies.defaults`. The values
    here are for what is said nowhere there, and for tiny checkpoints.
    """

    num_frames: int = 81
    height: int = 480
    width: int = 832
    fps: float = 16.0
    num_inference_steps: int = 30
    guidance_scale: float = 5.0
    """Classifier-free guidance; 1 = none, at half the cost."""
    dynamic_guidance: bool = False
    """Change the guidance from step to step, as CogVideoX's authors do with the DPM scheduler, and
    not with the DDIM scheduler that their checkpoints name (diffusers: `use_dynamic_cfg`)."""
    flow_shift: float | None = None
    """How much of sampling is spent near pure noise (Wan, with the schedulers of its checkpoints);
    null = as the checkpoint says."""
    negative_prompt: str = ""
    max_sequence_length: int = 512
    """Tokens of a prompt that the transformer is given."""
    long_prompts: str = "skip"
    """What becomes of a prompt with more tokens, online, offline and in ReFL: `skip` = it is left
    out, logged and counted; `truncate` = it is cut off, as the stock pipelines do silently."""
    batch_size: int = 0
    """Candidates denoised at once; 0 = all of a prompt."""
