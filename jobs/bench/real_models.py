"""Models of real sizes with random weights, and one unit of work of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from jobs.bench import real_configs as real
from videorl.config import Recipe
from videorl.embedding import Embedding
from videorl.learning.engines.local import LocalEngine
from videorl.learning.from_candidates import FromCandidates
from videorl.learning.gradient_step import gradient_step
from videorl.objectives.dpo import FlowDPO
from videorl.policies import load_family
from videorl.policies.attention import use_backend
from videorl.policies.compiling import compile_blocks
from videorl.policies.lora import train_adapters
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.policies.precision import float32_linears, prepare_for_autocast
from videorl.recipes.reading import load_recipe
from videorl.types import Candidate, PreferencePair, Prompt, Score, ScoredCandidate, WeightVersion

Work = Callable[[], object]
Changes = Mapping[str, object]
"""Setting of `policy` or `sampling`, such as `sampling.merge_lora` -> its value."""
_NONE: Changes = MappingProxyType({})
NUM_STEPS = 3
"""Solver steps that are measured."""
_TEXT_TOKENS = 400
"""Of a question to a reward model."""


@dataclass(frozen=True)
class Scale:
    """Real sizes, or tiny ones."""

    is_tiny: bool
    device: torch.device
    dtype: torch.dtype
    compiler: str = "inductor"
    """Back end of torch.compile for what is compiled."""

    def config(self, settings: Mapping[str, Any], name: str) -> real.Settings:
        """Return published settings, or tiny ones."""
        return {**settings, **(real.TINY[name] if self.is_tiny else {})}

    def recipe(self, family: str) -> Recipe:
        """Return the shipped recipe of a family, at its published size or a tiny one.

        It computes plainly: what makes it faster is measured against that.
        """
        recipe = load_recipe({"wan": "wan_1_3b_three_rewards", "cogvideox": "cogvideox_2b"}[family])
        recipe.policy.compile = "none"
        if self.is_tiny:
            size = {"num_frames": 9, "height": 32, "width": 32, "max_sequence_length": 16}
            recipe.sampling = replace(recipe.sampling, **size)
        return recipe


def policy(
    scale: Scale,
    family_name: str,
    *,
    trainable: bool = False,
    with_vae: bool = False,
    changes: Changes = _NONE,
) -> PipelinePolicy:
    """Return a policy with LoRA as `load_policy` does, but with random weights."""
    family, recipe = load_family(family_name), scale.recipe(family_name)
    for key, value in changes.items():
        section, name = key.split(".")
        setattr(getattr(recipe, section), name, value)
    build = _wan if family_name == "wan" else _cogvideox
    transformer, vae, scheduler = build(scale, with_vae)
    if vae is not None:
        _cast(vae.requires_grad_(False), family.vae_dtype or scale.dtype)
    pipeline = family.pipeline_class(
        tokenizer=None, text_encoder=None, vae=vae, transformer=transformer, scheduler=scheduler
    )
    pipeline.set_progress_bar_config(disable=True)
    _cast(transformer, scale.dtype)
    float32_layers = float32_linears(transformer)
    if trainable:
        transformer.enable_gradient_checkpointing()
    trained = train_adapters(
        transformer, recipe.policy.lora, seed=0, trainable=trainable, initial=None
    )
    transformer.to(scale.device)  # peft makes adapters on the CPU
    autocast = trainable and scale.dtype != torch.float32
    if autocast:
        prepare_for_autocast(trained, float32_layers, scale.device.type)
    use_backend(transformer, recipe.policy.attention_backend)
    compile_blocks(family, transformer, recipe.policy.compile)
    return PipelinePolicy(
        family,
        pipeline,
        trained,
        recipe.sampling,
        dtype=scale.dtype,
        is_lora=True,
        autocast=autocast,
    )


def dpo_step(scale: Scale, family: str, videos: int, changes: Changes = _NONE) -> Work:
    """Return an optimizer step on one pair at one time, with `videos` per forward."""
    made = policy(scale, family, trainable=True, changes=changes)
    recipe = scale.recipe(family)
    objective = FlowDPO(timesteps_per_pair=1)
    method = FromCandidates(made, objective, 0, recipe.video_pixels, videos)
    engine = LocalEngine(made.trainable_module(), recipe.optimizer)
    pair = _pair(made, recipe)

    def work() -> None:
        (update,), _ = method.items(0, [pair])
        gradient_step(engine, method.passes(update.items), recipe.optimizer, 0)

    return work


def solver_steps(scale: Scale, family: str, changes: Changes = _NONE) -> Work:
    """Return a few solver steps of one video, with guidance."""
    made, recipe = policy(scale, family, changes=changes), scale.recipe(family)
    embeds = [_embeds(made, recipe)]
    return torch.no_grad()(partial(made.sample_partly, embeds, embeds, [0], [NUM_STEPS], NUM_STEPS))


def decode(scale: Scale, family: str) -> Work:
    """Return the decoding of one video."""
    made, recipe = policy(scale, family, with_vae=True), scale.recipe(family)
    return partial(made.decode, _latents(made, recipe)[None].to(scale.device))


def video_reward(scale: Scale) -> Work:
    """Return VideoReward's forward for a clip of 5 s, at 2 frames per second."""
    from transformers import Qwen2VLConfig

    from videorl.rewards.video_reward.network import VideoRewardNetwork
    from videorl.rewards.video_reward.qwen_video import cut, resized_hw

    config = Qwen2VLConfig.from_dict(scale.config(real.VIDEO_REWARD, "video_reward"))
    network = _built(scale, lambda: VideoRewardNetwork(config))
    height, width = resized_hw(480, 832, max_pixels=200_704)
    frames = 4 if scale.is_tiny else 10
    patches = cut(torch.randint(0, 256, (frames, 3, height, width), dtype=torch.uint8))
    video = [real.VIDEO_REWARD["video_token_id"]] * patches.num_tokens
    tokens_BL = torch.tensor([[1] * _TEXT_TOKENS + video + [1] * 20])

    def work() -> Tensor:
        hidden_BLD = network(tokens_BL, network.video_features([patches]))
        return network.rewards(hidden_BLD[0, -3:], (0, 1, 2)).cpu()

    return torch.inference_mode()(work)


def video_score(scale: Scale) -> Work:
    """Return VideoScore's forward for 16 frames of 480 x 832 pixels."""
    from transformers import Idefics2Config

    from videorl.rewards.video_score.inputs import ClipInputs
    from videorl.rewards.video_score.network import VideoScoreNetwork

    config: Any = Idefics2Config.from_dict(scale.config(real.VIDEO_SCORE, "video_score"))
    network = _built(scale, lambda: VideoScoreNetwork(config))
    num_frames, height, width = (2, 56, 56) if scale.is_tiny else (16, 480, 832)
    image = [real.VIDEO_SCORE["image_token_id"]] * config.perceiver_config.resampler_n_latents
    tokens = [1] * _TEXT_TOKENS + [2, *image, 2] * num_frames
    clip = ClipInputs(tokens, torch.randn(num_frames, 3, height, width))
    return torch.inference_mode()(lambda: network([clip]).cpu())


def vision_reward(scale: Scale) -> Work:
    """Return VisionReward's answers to 29 questions about a clip of 5 s."""
    from videorl.rewards.vision_reward.cogvlm2_video import CogVLM2Video

    config = scale.config(real.VISION_REWARD, "vision_reward")
    network = _built(scale, lambda: CogVLM2Video(config))
    num_frames, num_questions = (2, 3) if scale.is_tiny else (6, 29)
    pixels_FCHW = torch.randn(num_frames, 3, 224, 224, device=scale.device)
    questions = [[1] * 60] * num_questions

    def work() -> Tensor:
        frames_FLD = network.encode_frames(pixels_FCHW)
        prefix = network.prefix(frames_FLD, 0, [[1]] * num_frames)
        return network.answer_logits(prefix, questions).cpu()

    return torch.inference_mode()(work)


def _wan(scale: Scale, with_vae: bool) -> tuple[Any, Any, Any]:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    with scale.device:
        transformer = WanTransformer3DModel(**scale.config(real.WAN["transformer"], "wan"))
        vae = AutoencoderKLWan(**scale.config(real.WAN["vae"], "wan_vae")) if with_vae else None
    return transformer, vae, UniPCMultistepScheduler(**real.WAN["scheduler"])


def _cogvideox(scale: Scale, with_vae: bool) -> tuple[Any, Any, Any]:
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
    from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler

    with scale.device:
        transformer = CogVideoXTransformer3DModel(
            **scale.config(real.COGVIDEOX["transformer"], "cogvideox")
        )
        config = scale.config(real.COGVIDEOX["vae"], "cogvideox_vae")
        vae = AutoencoderKLCogVideoX(**config) if with_vae else None
    return transformer, vae, CogVideoXDDIMScheduler(**real.COGVIDEOX["scheduler"])


def _cast(model: Any, dtype: torch.dtype) -> None:
    """Cast weights as diffusers does where it reads them: some modules stay in float32."""
    kept = set(type(model)._keep_in_fp32_modules or ())
    for name, parameter in model.named_parameters():
        if not kept & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)


def _built(scale: Scale, build: Callable[[], Any]) -> Any:
    """Build a reward model in its type on its device, so that it is never there in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(scale.dtype)
    try:
        with scale.device:
            return build().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def _embeds(made: PipelinePolicy, recipe: Recipe) -> Embedding:
    family = load_family(recipe.policy.family)
    zeros = family.example_text(made.trainable_module(), recipe.sampling.max_sequence_length)
    return zeros.map(torch.randn_like)


def _latents(made: PipelinePolicy, recipe: Recipe) -> Tensor:
    sampling, config = recipe.sampling, made.trainable_module().config
    shape = ((sampling.num_frames - 1) // 4 + 1, sampling.height // 8, sampling.width // 8)
    return torch.randn(config.in_channels, *shape)  # pyright: ignore


def _pair(made: PipelinePolicy, recipe: Recipe) -> PreferencePair:
    prompt, version = Prompt(0, ""), WeightVersion(0, "")
    chosen, rejected = (
        ScoredCandidate(
            Candidate(0, prompt, index, index, version, _latents(made, recipe), None),
            Score({}, 1.0 - index),
        )
        for index in (0, 1)
    )
    return PreferencePair(prompt, _embeds(made, recipe), chosen, rejected, margin=1.0)
