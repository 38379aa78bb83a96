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
    """One of `videorl.policies.FAMILIES`, such as `wan`, or `module:attribute`."""
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
    attention_backend: str = "auto"
    """What computes the transformer's attention in learner and generators: a back end by diffusers'
    name (`flash`, `_native_cudnn`, `sage`, ...); auto = PyTorch's own. For Wan; equal up to
    rounding, but for quantised ones such as `sage`."""
    context_parallel: str = "ulysses"
    """How processes that share a video attend, where `context_parallel` of learner or generators is
    above 1. `ulysses` = to all tokens with a share of the heads (arXiv 2309.14509), so that their
    number divides heads and tokens; `ring` = with all heads to one share of the tokens after the
    other (arXiv 2310.01889), so that it divides the tokens alone: for Wan, with an
    `attention_backend` that hands out its normaliser. Equal up to rounding."""
    experts: str = "both"
    """Of Wan 2.2 A14B, which transformers are trained: `high` = that of high noise alone, `low` =
    the other alone, each on the times that it computes at; `both` = on all times."""
    idle_expert: str = "auto"
    """Of Wan 2.2 A14B: where the transformer that does not compute lies, in learner and generators.
    auto = beside the other; cpu = the frozen weights of its blocks wait in host memory, and change
    places with the other's where its times begin: less memory, more time, same result."""
    compile: str = "none"
    """What compiles the transformer's blocks in learner and generators: `inductor`, or another back
    end of torch.compile; none = nothing. Equal up to rounding. A failure is logged and counted, and
    the blocks run uncompiled."""


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
    """Classifier-free guidance; 1 = none, at half the cost. HunyuanVideo is distilled: there it is
    an input of the transformer, at no cost, and learners predict with the same."""
    true_guidance_scale: float = 1.0
    """Of HunyuanVideo, guidance by `negative_prompt` beside the other; 1 = none, at half the
    cost."""
    guidance_scale_2: float | None = None
    """`guidance_scale` of Wan 2.2 A14B's second transformer, that of low noise; null = the same."""
    dynamic_guidance: bool = False
    """Change the guidance from step to step, as CogVideoX's authors do with the DPM scheduler, and
    not with the DDIM scheduler that their checkpoints name (diffusers: `use_dynamic_cfg`)."""
    audio_guidance_scale: float | None = None
    """Of LTX-2, `guidance_scale` of the sound, where that of the picture is above 1; null = the
    same."""
    stg_scale: float = 0.0
    """Of LTX-2.3, guidance of picture and sound away from what is predicted where `stg_blocks` do
    not attend (arXiv 2411.18664); 0 = none, else one more forward."""
    stg_blocks: list[int] = field(default_factory=list[int])
    """Numbers of these blocks, from 0; the authors advise 28."""
    modality_scale: float = 1.0
    """Of LTX-2, guidance of both away from what is predicted where picture and sound do not read
    each other; 1 = none, else one more forward."""
    guidance_rescale: float = 0.0
    """Of LTX-2, share, 0 ... 1, of guided predictions that are brought back to the deviation of
    those without guidance (arXiv 2305.08891)."""
    flow_shift: float | None = None
    """How much of sampling is spent near pure noise (Wan, with the schedulers of its checkpoints);
    null = as the checkpoint says."""
    negative_prompt: str = ""
    max_sequence_length: int = 512
    """Tokens of a prompt that the transformer is given."""
    long_prompts: str = "skip"
    """What becomes of a prompt with more tokens, online, offline and in ReFL: `skip` = it is left
    out, logged and counted; `truncate` = it is cut off, as the stock pipelines do silently."""
    half_precision: str = "bfloat16"
    """What encoders and generators compute in where `policy.dtype` is bfloat16: `bfloat16`, or
    `float16` for models that were published in it. The learner computes in bfloat16 all the same,
    as float16 loses small gradients, and publishes in this type."""
    batch_size: int = 0
    """Candidates denoised at once; 0 = all of a prompt."""
    guidance_in_one_batch: bool = False
    """Predict with and without the prompt in one call, where the pipeline makes two (Wan): faster
    while a call does not fill the device, more memory; equal up to rounding."""
    merge_lora: bool = False
    """Where nothing is trained, sample with the adapter merged into the base, of which host memory
    then holds the adapted layers once more. A version that would lose more than a tenth of its
    effect to rounding, as small adapters in bfloat16 do, is sampled unmerged, with a warning."""
    step_cache: str = "none"
    """`first_block` (diffusers' FirstBlockCache) skips all blocks but the first in steps where that
    one's output changes by less than `step_cache_threshold`; `taylorseer` (diffusers'
    TaylorSeerCache, arXiv 2503.06923, in lite mode) computes only every `step_cache_interval`-th
    step after the first three, and extrapolates the others. Samples differ visibly."""
    step_cache_threshold: float = 0.05
    """Relative change > 0 of the first block's residual; larger = faster, and further away."""
    step_cache_interval: int = 2
    """Steps, >= 2, from one that `taylorseer` computes to the next; larger = faster, and further
    away."""
    vae_tiling: bool | str = "auto"
    """Decode and encode frames in overlapping tiles, blended: less memory, and pixels change a
    little. auto = where a frame has more than 1,048,576 pixels."""
    vae_channels_last: bool = False
    """Hold the VAE's convolutions with their channels last in memory: faster on CPUs (Wan), equal
    up to rounding."""
