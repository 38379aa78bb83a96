"""Ranges, names and contradictions that types cannot express."""

import re

import pytest

from videorl.errors import ConfigError
from videorl.objectives.dpo import FlowDPO
from videorl.policies import FAMILIES
from videorl.recipes.reading import load_recipe
from videorl.recipes.validation import validate


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("num_steps=0", "num_steps must be >= 1, got 0"),
        ("seed=-1", "seed must be >= 0, got -1"),
        (
            "policy.family=sora",
            f"policy.family must be one of {', '.join(FAMILIES)}, or module:attribute, got sora",
        ),
        ("policy.dtype=int8", "policy.dtype must be one of auto, float32"),
        (
            "policy.gradient_checkpointing=always",
            "policy.gradient_checkpointing must be one of auto, True, False, got always",
        ),
        ("policy.lora.rank=-1", "policy.lora.rank must be >= 0, got -1"),
        ("policy.lora.target_modules=[]", "policy.lora.target_modules must name at least one"),
        ("sampling.num_frames=0", "sampling.num_frames must be >= 1, got 0"),
        ("sampling.fps=0", "sampling.fps must be > 0, got 0.0"),
        ("sampling.flow_shift=0", "sampling.flow_shift must be > 0, got 0"),
        (
            "sampling.step_cache=all",
            "sampling.step_cache must be one of none, first_block, taylorseer",
        ),
        ("sampling.step_cache_interval=1", "sampling.step_cache_interval must be >= 2, got 1"),
        ("sampling.step_cache_threshold=0", "sampling.step_cache_threshold must be > 0, got 0"),
        ("sampling.vae_tiling=large", "sampling.vae_tiling must be one of auto, True, False, got"),
        ("sampling.long_prompts=cut", "sampling.long_prompts must be one of skip, truncate, got"),
        (
            "sampling.half_precision=float8",
            "sampling.half_precision must be one of bfloat16, float16, got",
        ),
        ("prompts.candidates_per_prompt=1", "prompts.candidates_per_prompt must be >= 2, got 1"),
        ("prompts.column=", "prompts.column must name a column, got an empty text"),
        ("evaluation.column=", "evaluation.column must name a column, got an empty text"),
        ("rewards=[]", "rewards must list at least one reward model"),
        (
            "rewards=[{name: moving_shapes}, {name: moving_shapes}]",
            "rewards must have one label (default: the name) each, "
            "got moving_shapes, moving_shapes",
        ),
        ("rewards.0.name=taste", "rewards.0.name must be one of"),
        ("rewards.0.weight=0", "rewards must have a weight other than 0"),
        (
            "rewards.0.dimension_weights={motion_quality: 0, visual_quality: 0}",
            "rewards.0.dimension_weights must not all be 0",
        ),
        ("run_dir= ", "run_dir must not be empty"),
        ("rewards.0.weight=.inf", "rewards.0.weight must be finite, got inf"),
        ("rewards.0.dimension_weights.vq=.nan", "rewards.0.dimension_weights.vq must be finite"),
        ("rewards.0.num_workers=0", "rewards.0.num_workers must be >= 1, got 0"),
        (
            "rewards.0={name: moving_shapes, num_workers: 3, max_workers: 2}",
            "rewards.0.max_workers must be 0 or >= rewards.0.num_workers (3), got 2",
        ),
        ("rewards.0.decode_threads=-1", "rewards.0.decode_threads must be >= 0, got -1"),
        ("rewards.0.prefetch=-1", "rewards.0.prefetch must be >= 0, got -1"),
        ("rewards.0.prefetch=1", "rewards.0: decode_threads and prefetch must be 0 for moving_sha"),
        ("learner.num_workers=0", "learner.num_workers must be >= 1, got 0"),
        ("rewards.0.num_gpus=-1", "rewards.0.num_gpus must be >= 0, got -1"),
        ("selection.min_margin=-1", "selection.min_margin must be >= 0, got -1"),
        ("selection.rule=weighted", "selection.weights must be set, as selection.rule is weighted"),
        (
            "selection.rule=single_dimension",
            "selection.dimension must be set, as selection.rule is single_dimension",
        ),
        ("objective.sft_weight=-1", "objective.sft_weight must be >= 0, got -1"),
        ("objective.rejected_scale=0", "objective.rejected_scale must be > 0 and <= 1, got 0"),
        ("objective.rejected_scale=.nan", "objective.rejected_scale must be > 0 and <= 1, got nan"),
        ("objective.importance_clip=2", "objective.importance_clip must be >= 0 and <= 1, got 2"),
        (
            "objective.importance_clip=.nan",
            "objective.importance_clip must be >= 0 and <= 1, got nan",
        ),
        ("objective.importance_steps=0", "objective.importance_steps must be >= 1, got 0"),
        ("objective.beta=0", "objective.beta must be > 0, got 0"),
        ("objective.beta=.nan", "objective.beta must be > 0, got nan"),
        ("objective.beta_schedule=linear", "objective.beta_schedule must be one of constant"),
        ("objective.timesteps_per_pair=0", "objective.timesteps_per_pair must be >= 1, got 0"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate must be > 0, got 0"),
        ("optimizer.betas=[0.9]", "optimizer.betas must be two numbers in [0, 1), got [0.9]"),
        (
            "optimizer.schedule=step",
            "optimizer.schedule must be constant, linear or cosine, got 'step'",
        ),
        (
            "optimizer.schedule=constant",
            "optimizer.decay_steps must be 0 for optimizer.schedule=constant, got 64",
        ),
        (
            "optimizer.warmup_steps=64",
            "optimizer.decay_steps must be > optimizer.warmup_steps (64), as it counts from the "
            "first step, got 64",
        ),
        ("reference.interval=-1", "reference.interval must be >= 0, got -1"),
        ("encoder.num_workers=0", "encoder.num_workers must be >= 1, got 0"),
        ("encoder.worker_timeout_s=0", "encoder.worker_timeout_s must be > 0, got 0"),
        ("learner.worker_timeout_s=0", "learner.worker_timeout_s must be > 0, got 0"),
        ("checkpoint.timeout_s=0", "checkpoint.timeout_s must be > 0, got 0"),
        ("archive.timeout_s=0", "archive.timeout_s must be > 0, got 0"),
        ("archive.every=0", "archive.every must be >= 1, got 0"),
        ("archive.keep_gb=-1", "archive.keep_gb must be >= 0, got -1"),
        ("generators.num_gpus=1.5", "generators.num_gpus must be a whole number, or a share"),
        (
            "generators.resources.sampling=0",
            "generators.resources.sampling must be > 0, got 0",
        ),
        ("encoder.resources.text=-1", "encoder.resources.text must be > 0, got -1"),
        ("rewards.0.resources.scoring=0", "rewards.0.resources.scoring must be > 0, got 0"),
        ("rewards.0.label=encoder", "rewards.0.label must not be encoder"),
        ("rollouts.max_staleness=-1", "rollouts.max_staleness must be >= 0, got -1"),
        ("rollouts.canary_interval=-1", "rollouts.canary_interval must be >= 0, got -1"),
        ("rollouts.canary_tolerance=.nan", "rollouts.canary_tolerance must be >= 0, got nan"),
        ("generators.min_workers=0", "generators.min_workers must be >= 1, got 0"),
        (
            "generators.min_workers=9",
            "generators.max_workers must be >= generators.min_workers (9)",
        ),
        (
            "generators.candidates_per_request=all",
            "generators.candidates_per_request must be auto or >= 0, got 'all'",
        ),
        (
            "generators.candidates_per_request=-1",
            "generators.candidates_per_request must be >= 0, got -1",
        ),
        ("learner.updates_per_round=0", "learner.updates_per_round must be >= 1, got 0"),
        ("learner.loss_over=all", "learner.loss_over must be one of found, planned, got all"),
        ("optimizer.fused=maybe", "optimizer.fused must be one of auto, True, False, got maybe"),
        ("generators.context_parallel=0", "generators.context_parallel must be >= 1, got 0"),
        (
            "generators.context_parallel=2 sampling.step_cache=first_block",
            "sampling.step_cache must be none where processes share videos (context_parallel=2)",
        ),
        (
            "policy.compile=inductor sampling.step_cache=first_block",
            "sampling.step_cache must be none with policy.compile",
        ),
        (
            "policy.lora.rank=0 sampling.merge_lora=true",
            "sampling.merge_lora must be false where policy.lora.rank is 0",
        ),
        (
            "policy.context_parallel=star",
            "policy.context_parallel must be one of ulysses, ring, got star",
        ),
        ("learner.context_parallel=0", "learner.context_parallel must be >= 1, got 0"),
        (
            "learner.context_parallel=2",
            "learner.num_workers must be a multiple of 2 where ranks share videos "
            "(learner.context_parallel=2), got 1",
        ),
        ("learner.zero_stage=4", "learner.zero_stage must be one of 0, 1, 2, 3, got 4"),
        ("checkpoint.interval=-1", "checkpoint.interval must be >= 0, got -1"),
        ("checkpoint.keep=0", "checkpoint.keep must be >= 1, got 0"),
        ("archive.videos=some", "archive.videos must be one of all, pairs, none, got some"),
        ("evaluation.best_of=0", "evaluation.best_of must be >= 1, got 0"),
        ("evaluation.samples=0", "evaluation.samples must be >= 1, got 0"),
        ("evaluation.samples=99", "evaluation.samples must be <= evaluation.best_of ("),
    ],
)
def test_each_rule_names_key_wanted_and_got(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_recipe("moving_shapes", override.split() if override.count("=") > 1 else [override])
    assert str(raised.value).startswith("recipe moving_shapes:\n")
    assert expected in str(raised.value)


def test_adapter_to_start_from_contradicts_full_fine_tuning() -> None:
    with pytest.raises(ConfigError, match=r"policy\.lora\.initial must be left out"):
        load_recipe("moving_shapes", ["policy.lora.rank=0", "policy.lora.initial=there"])


def test_all_problems_are_reported_at_once() -> None:
    recipe = load_recipe("moving_shapes")
    recipe.num_steps, recipe.objective = 0, FlowDPO(beta=-1.0)
    with pytest.raises(ConfigError) as raised:
        validate(recipe)
    assert str(raised.value).splitlines() == [
        "recipe moving_shapes:",
        "num_steps must be >= 1, got 0",
        "objective.beta must be > 0, got -1.0",
    ]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["selection.rule=weighted", "selection.weights={vq: .inf}"],
            "selection.weights.vq must be finite, got inf",
        ),
        (
            ["selection.rule=weighted", "selection.weights={vq: 0}"],
            "selection.weights must not all be 0",
        ),
        (
            ["objective.name=sft", "objective.sft_on=losers"],
            "objective.sft_on must be one of chosen, all, got losers",
        ),
        (
            ["objective.name=flow_rwr", "objective.temperature=0"],
            "objective.temperature must be > 0, got 0",
        ),
        (
            ["objective.name=flow_rwr", "objective.max_weight=0.5"],
            "objective.max_weight must be >= 1, got 0.5",
        ),
        (
            ["policy.family=cogvideox", "objective.beta_schedule=squared_signal"],
            "objective.beta_schedule=squared_signal is derived for rectified flows, but "
            "policy.family=cogvideox predicts noise or v of a diffusion: use constant",
        ),
        (
            ["objective.name=flow_rwr", "selection.rule=dominating"],
            "selection.rule=dominating makes pairs, but objective.name=flow_rwr weighs",
        ),
        (
            [
                "selection.rule=dominating",
                "rewards=[{name: moving_shapes}, {name: video_reward, weight: -1}]",
            ],
            "rewards.1.weight must be >= 0 for selection.rule=dominating, which compares every "
            "dimension of every reward model, got -1",
        ),
        (
            [
                "selection.rule=single_dimension",
                "selection.dimension=motion_quality",
                "rewards=[{name: moving_shapes}, {name: video_reward}]",
            ],
            "selection must rank by model.dimension, as there are several rewards (moving_shapes, "
            "video_reward), got motion_quality",
        ),
        (
            ["objective.name=sft", "offline.archive=x"],
            "offline.archive holds pairs, but objective.name=sft learns from candidates",
        ),
        (
            ["learner.context_parallel=2", "learner.num_workers=2", "learner.max_workers=4"],
            "learner.max_workers must be 0 where ranks share videos",
        ),
        (
            ["learner.context_parallel=2", "learner.num_workers=2", "objective.name=refl"],
            "learner.context_parallel must be 1 for objective.name=refl",
        ),
        (
            ["generators.context_parallel=2", "generators.num_gpus=0.5"],
            "generators.num_gpus must be null, 0 or 1 where processes share videos",
        ),
        (
            ["generators.context_parallel=2", "policy.context_parallel=ring"],
            "policy.attention_backend must be one of _flash_3_hub, _native_cudnn, _native_flash, "
            "flash, flash_hub where processes share videos by policy.context_parallel=ring",
        ),
        (
            ["objective.name=refl"],
            "rewards.0.name must have a gradient for objective.name=refl",
        ),
        (
            ["objective.name=refl", "objective.gradient_steps=7"],
            "with sampling.num_inference_steps=8 and objective.stop_from=0.75 at most 6, got 7",
        ),
        (
            ["objective.name=refl", "objective.stop_from=1"],
            "objective.stop_from must be >= 0 and < 1, got 1",
        ),
        (
            ["objective.name=refl", "objective.decode_tile_px=40"],
            "objective.decode_tile_px must be 0 or a multiple of 32, got 40",
        ),
        (
            ["objective.name=refl", "objective.decode_tile_px=256"],
            "objective.decode_tile_px=256 needs objective.checkpoint_decode=true",
        ),
    ],
)
def test_settings_that_contradict_each_other(overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load_recipe("moving_shapes", overrides)
