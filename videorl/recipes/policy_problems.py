"""What is wrong with a policy's settings, and with those of its sampling."""

from __future__ import annotations

from collections.abc import Iterator

from videorl.config import PolicyConfig, Recipe, SamplingConfig
from videorl.policies import problem_of_family
from videorl.settings.bounds import Problem, above, at_least, one_of
from videorl.settings.plugins import is_plugin

DTYPES = ("auto", "float32", "bfloat16", "float16")
DIFFUSION_FAMILIES = ("cogvideox",)
"""Families that are no rectified flows; repeated here, since their files import torch, and compared
by a contract test."""
TWO_EXPERTS = ("wan_2_2",)
"""Families with two transformers; repeated and compared in the same way."""
EXPERTS = ("both", "high", "low")
FROZEN_DEVICES = ("auto", "cpu")
"""Of `policy.frozen_device`, and of `policy.idle_expert`."""
LONG_PROMPTS = ("skip", "truncate")
STEP_CACHES = ("none", "first_block", "taylorseer")
HALF_PRECISIONS = ("bfloat16", "float16")


def policy_problems(policy: PolicyConfig) -> Iterator[Problem]:
    """Yield what is wrong with a `policy` section."""
    yield problem_of_family("policy.family", policy.family)
    yield one_of("policy.dtype", policy.dtype, DTYPES)
    checkpointing = policy.gradient_checkpointing
    yield one_of("policy.gradient_checkpointing", checkpointing, ("auto", True, False))
    yield at_least("policy.lora.rank", policy.lora.rank, 0)
    yield one_of("policy.experts", policy.experts, EXPERTS)
    if policy.experts != "both" and not _may_have_experts(policy):
        yield (
            f"policy.experts must be both for policy.family={policy.family}, whose models have one "
            f"transformer ({', '.join(TWO_EXPERTS)} has two), got {policy.experts}"
        )
    yield one_of("policy.idle_expert", policy.idle_expert, FROZEN_DEVICES)
    if policy.idle_expert != "auto" and not _may_have_experts(policy):
        yield (
            f"policy.idle_expert must be auto for policy.family={policy.family}, whose models have "
            f"one transformer ({', '.join(TWO_EXPERTS)} has two), got {policy.idle_expert}"
        )
    yield one_of("policy.frozen_device", policy.frozen_device, FROZEN_DEVICES)
    if policy.lora.rank > 0 and policy.frozen_device != "auto":
        yield (
            "policy.frozen_device must be auto unless policy.lora.rank is 0 (the reference of an "
            f"adapter is an adapter, not another model), got {policy.frozen_device!r}"
        )
    if policy.lora.rank > 0:
        yield at_least("policy.lora.alpha", policy.lora.alpha, 1)
        if not policy.lora.target_modules:
            yield "policy.lora.target_modules must name at least one module, got none"
    elif policy.lora.initial is not None:
        yield (
            "policy.lora.initial must be left out when policy.lora.rank is 0 (every weight is "
            f"trained, there is no adapter to start from), got {policy.lora.initial!r}"
        )


def experts_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield what is wrong with the settings of two transformers (Wan 2.2 A14B)."""
    policy, learner = recipe.policy, recipe.learner
    if recipe.sampling.guidance_scale_2 is not None and not _may_have_experts(policy):
        yield (
            f"sampling.guidance_scale_2 must be null for policy.family={policy.family}, whose "
            f"models have one transformer ({', '.join(TWO_EXPERTS)} has two), got "
            f"{recipe.sampling.guidance_scale_2:g}"
        )
    if policy.experts != "both" and recipe.objective.learns_from == "prompts":
        yield (
            f"policy.experts must be both for objective.name={recipe.objective.name}, whose "
            f"gradient goes through the times of both, got {policy.experts}"
        )
    if policy.idle_expert == "cpu" and learner.zero_stage == 3:
        yield (
            "policy.idle_expert must be auto where learner.zero_stage is 3, which shares out the "
            "weights of both transformers over the ranks already, got cpu"
        )
    ranks = max(learner.num_workers, learner.max_workers) // max(learner.context_parallel, 1)
    is_split = policy.family in TWO_EXPERTS and policy.experts == "both" and ranks > 1
    if is_split and learner.zero_stage > 1:
        yield (
            "learner.zero_stage must be 0 or 1 where several ranks train both experts "
            "(policy.experts=both): the later stages share gradients out as they come, and a rank "
            f"may have no video at the times of an expert, got {learner.zero_stage}; or train "
            "policy.experts=high and low in turn"
        )


def _may_have_experts(policy: PolicyConfig) -> bool:
    return policy.family in TWO_EXPERTS or is_plugin(policy.family)


def sampling_problems(sampling: SamplingConfig) -> Iterator[Problem]:
    """Yield what is wrong with a `sampling` section."""
    yield at_least("sampling.num_frames", sampling.num_frames, 1)
    yield at_least("sampling.height", sampling.height, 1)
    yield at_least("sampling.width", sampling.width, 1)
    yield above("sampling.fps", sampling.fps, 0)
    yield at_least("sampling.num_inference_steps", sampling.num_inference_steps, 1)
    yield at_least("sampling.guidance_scale", sampling.guidance_scale, 0)
    yield at_least("sampling.true_guidance_scale", sampling.true_guidance_scale, 1)
    if (second := sampling.guidance_scale_2) is not None:
        yield at_least("sampling.guidance_scale_2", second, 0)
        if second > 1 >= sampling.guidance_scale:
            yield (
                "sampling.guidance_scale_2 must be null or at most 1 where sampling.guidance_scale "
                f"is {sampling.guidance_scale:g}: without the first there is no guidance at all, "
                f"got {second:g}"
            )
    yield from _joint_guidance_problems(sampling)
    if sampling.flow_shift is not None:
        yield above("sampling.flow_shift", sampling.flow_shift, 0)
    yield at_least("sampling.max_sequence_length", sampling.max_sequence_length, 1)
    yield one_of("sampling.long_prompts", sampling.long_prompts, LONG_PROMPTS)
    yield one_of("sampling.half_precision", sampling.half_precision, HALF_PRECISIONS)
    yield at_least("sampling.batch_size", sampling.batch_size, 0)
    yield one_of("sampling.step_cache", sampling.step_cache, STEP_CACHES)
    yield above("sampling.step_cache_threshold", sampling.step_cache_threshold, 0)
    yield at_least("sampling.step_cache_interval", sampling.step_cache_interval, 2)
    yield one_of("sampling.vae_tiling", sampling.vae_tiling, ("auto", True, False))


def _joint_guidance_problems(sampling: SamplingConfig) -> Iterator[Problem]:
    """Yield what is wrong with the settings of LTX-2, whose picture and sound guide each other."""
    if sampling.audio_guidance_scale is not None:
        yield at_least("sampling.audio_guidance_scale", sampling.audio_guidance_scale, 1)
    yield at_least("sampling.stg_scale", sampling.stg_scale, 0)
    if (sampling.stg_scale > 0) != bool(sampling.stg_blocks):
        yield (
            "sampling.stg_scale and sampling.stg_blocks must be given together (a scale above 0, "
            f"and at least one block), got {sampling.stg_scale:g} and {list(sampling.stg_blocks)}"
        )
    yield at_least("sampling.modality_scale", sampling.modality_scale, 1)
    if not 0 <= sampling.guidance_rescale <= 1:
        yield (
            f"sampling.guidance_rescale must be between 0 and 1, got {sampling.guidance_rescale:g}"
        )
