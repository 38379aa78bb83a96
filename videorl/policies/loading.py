"""Read the parts of a checkpoint that one process needs, and check that they fit the recipe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from videorl.config import PolicyConfig, SamplingConfig
from videorl.errors import CheckpointError, ConfigError
from videorl.policies.adapter_files import expert_file, open_adapter
from videorl.policies.adapter_layouts import LayerAdapter, read_layers
from videorl.policies.attention import check_backend, use_backend
from videorl.policies.calls import read_scheduler
from videorl.policies.checkpoints import (
    check,
    locate,
    models,
    read_json,
    weight_files,
)
from videorl.policies.compiling import check_compiler, compile_blocks
from videorl.policies.coverage import coverage
from videorl.policies.devices import Devices, compute_type, own_devices
from videorl.policies.experts import (
    MODELS,
    TRAINED,
    Experts,
    denoiser,
    joined,
    models_of,
    untrained,
)
from videorl.policies.family import CHECKPOINTED_ABOVE, Family, pipeline_kind
from videorl.policies.full import IN_SHARDS, train_everything
from videorl.policies.idle import Turns
from videorl.policies.lora import train_adapters
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.policies.precision import float32_linears, prepare_for_autocast
from videorl.policies.stock_pipeline import read_parts
from videorl.policies.texts import check_negative_prompt
from videorl.policies.trained import TrainedWeights
from videorl.policies.video_codec import put_channels_last, tile_large_frames
from videorl.protocols import Role
from videorl.settings.acceleration import acceleration_problems
from videorl.settings.model import LoraConfig

logger = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_pipeline_policy(
    family: Family,
    config: PolicyConfig,
    sampling: SamplingConfig,
    *,
    parts: frozenset[str],
    device: torch.device | None,
    seed: int,
    roles: frozenset[Role],
) -> PipelinePolicy:
    """Load a policy of `family`; see `videorl.policies.load_policy` for the other arguments.

    Of `roles`, `reference` makes it trainable, and `base` keeps a frozen copy where all weights are
    trained.
    """
    trainable = "reference" in roles
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype, held, sampled = _types(config, sampling, device, trainable=trainable)
    pipeline_name = pipeline_kind(family)
    folder = locate(config.path, parts, pipeline_name)
    index = check(folder, pipeline_name, parts)
    scheduler = None
    if "transformer" in parts:  # what is refused here, is before weights are read
        scheduler = read_scheduler(folder, index, sampling)
        family.call_options(sampling)
        _check_acceleration(config, sampling, folder, device, dtype, trainable=trainable)
        _mention_float16(config.path, folder, sampled)
    pipeline = read_parts(family, folder, index, parts, held, scheduler)
    autocast = trainable and dtype != torch.float32
    trained = None
    if "transformer" in parts:
        family.check_size(pipeline, sampling)
        family.process(pipeline.scheduler)  # refuses what cannot be trained, before it is
        family.prepare(pipeline, sampling)
        model = denoiser(pipeline)
        float32_layers = float32_linears(model)
        trained = _prepare(
            family,
            model,
            config,
            seed=seed,
            trainable=trainable,
            keep_base="base" in roles,
            dtype=dtype,
        )
        trained = _published_in(trained, {held: sampled})
        _place(family, model, config, device)
        if config.lora.rank == 0:
            _place_frozen(trained, roles, config.frozen_device, device)
        if autocast:
            prepare_for_autocast(trained, float32_layers, device.type)
        _use_kernels(family, trained, roles, config)
    if "vae" in parts:
        tile_large_frames(pipeline.vae, sampling)
        if sampling.vae_channels_last:
            put_channels_last(pipeline.vae)
    for name in models(index, parts - {"transformer"}):
        getattr(pipeline, name).requires_grad_(False).to(device)
    if "text_encoder" in parts:
        with torch.no_grad():
            check_negative_prompt(family, pipeline, sampling)
    return PipelinePolicy(
        family,
        pipeline,
        trained,
        sampling,
        dtype=dtype,
        is_lora=config.lora.rank > 0,
        autocast=autocast,
    )


def _compute_dtype(name: str, device: torch.device, *, trainable: bool) -> torch.dtype:
    if name == "auto":
        here = own_devices() if device.type == "cuda" else Devices(on_gpu=False)
        return _DTYPES[compute_type(here)]
    if name not in _DTYPES:
        raise ConfigError(f"policy.dtype must be auto or one of {', '.join(_DTYPES)}, got {name!r}")
    if trainable and name == "float16":
        raise ConfigError(
            "policy.dtype=float16 loses small gradients: train in bfloat16 or float32"
        )
    return _DTYPES[name]


def _check_acceleration(
    config: PolicyConfig,
    sampling: SamplingConfig,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    *,
    trainable: bool,
) -> None:
    """Refuse what cannot make this model faster here, before any weights are read."""
    for problem in acceleration_problems(config, sampling):
        raise ConfigError(problem)
    check_compiler(config.compile)
    head_width = read_json(folder / "transformer/config.json").get("attention_head_dim", 64)
    check_backend(config.attention_backend, device, dtype, head_width, with_gradient=trainable)


def _use_kernels(
    family: Family,
    trained: TrainedWeights,
    roles: frozenset[Role],
    config: PolicyConfig,
) -> None:
    """Choose and compile what computes, in every module that a role has of its own."""
    own = roles if config.lora.rank == 0 else frozenset[Role](["policy"])
    for role in own:
        with trained.using(role) as module:
            for model in models_of(module).values():
                use_backend(model, config.attention_backend)
                compile_blocks(family, model, config.compile)


def _types(
    config: PolicyConfig, sampling: SamplingConfig, device: torch.device, *, trainable: bool
) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
    """Return what this process computes in, what weights are read in, what generators hold."""
    dtype = _compute_dtype(config.dtype, device, trainable=trainable)
    sampled = _DTYPES[sampling.half_precision] if dtype == torch.bfloat16 else dtype
    if not trainable:
        return sampled, sampled, sampled
    # Where all weights are trained, training begins from them as they were published, and not from
    # what bfloat16 leaves of them; frozen ones are held as they compute.
    return dtype, sampled if config.lora.rank == 0 else dtype, sampled


def _published_in(
    trained: TrainedWeights, types: Mapping[torch.dtype, torch.dtype]
) -> TrainedWeights:
    """Let tensors be published in the types in which a generator holds them."""
    dtypes = {name: types.get(dtype, dtype) for name, dtype in trained.dtypes.items()}
    return replace(trained, dtypes=dtypes)


def _mention_float16(path: str, folder: Path, dtype: torch.dtype) -> None:
    """Say that a model samples in another half precision than that it was published in."""
    with safe_open(weight_files(folder / "transformer")[0], "pt") as tensors:
        is_float16 = all(tensors.get_slice(n).get_dtype() == "F16" for n in tensors.keys())  # noqa: SIM118
    if is_float16 and dtype == torch.bfloat16:
        logger.warning(
            "policy.path: %s was published in float16, but samples in bfloat16, to which its "
            "weights are rounded: set sampling.half_precision=float16, or policy.dtype=float32, "
            "which keeps every bit with twice the memory",
            path,
        )


def _prepare(
    family: Family,
    model: Any,
    config: PolicyConfig,
    *,
    seed: int,
    trainable: bool,
    keep_base: bool,
    dtype: torch.dtype,
) -> TrainedWeights:
    """Make the trained weights of a transformer, or of each trained one of two.

    Raises:
        ConfigError: Some experts are to be trained of a model that has one transformer.
    """
    options = {"trainable": trainable, "keep_base": keep_base, "dtype": dtype}
    if not isinstance(model, Experts):
        if config.experts != "both":
            raise ConfigError(
                "policy.experts must be both for a model with one transformer, got "
                f"{config.experts}"
            )
        return _prepare_transformer(family, model, config, seed=seed, **options)
    parts = {name: untrained(part) for name, part in models_of(model).items()}
    for number, name in enumerate(MODELS):
        if name in TRAINED[config.experts]:
            part = getattr(model, name)
            own = replace(config, lora=_of_expert(config, name))
            parts[name] = _prepare_transformer(family, part, own, seed=seed + number, **options)
    return joined(model, parts)


def _of_expert(config: PolicyConfig, name: str) -> LoraConfig:
    """Return the settings of an expert's adapter, which name the file of its own."""
    if config.lora.initial is None:
        return config.lora
    return replace(config.lora, initial=expert_file(config.lora.initial, name, config.experts))


def _prepare_transformer(
    family: Family,
    transformer: Any,
    config: PolicyConfig,
    *,
    seed: int,
    trainable: bool,
    keep_base: bool,
    dtype: torch.dtype,
) -> TrainedWeights:
    """Make adapters or all weights the trained ones, on the CPU.

    There all weights are copied and upcast, so that no device ever holds two in float32.
    """
    if trainable and _is_checkpointed(family, transformer, config.gradient_checkpointing):
        transformer.enable_gradient_checkpointing()  # not reentrant, so that adapters learn
    if config.lora.rank == 0:
        return train_everything(
            transformer, trainable=trainable, keep_base=keep_base, computed_in=dtype
        )
    source = config.lora.initial
    initial = None if source is None else _read_adapter(family, transformer, source)
    trained = train_adapters(
        transformer, config.lora, seed=seed, trainable=trainable, initial=initial
    )
    if trainable:
        adapted = {name.rpartition(".lora_")[0] for name in trained.policy}
        numbers = sum(tensor.numel() for tensor in trained.policy.values())
        logger.info("%s", coverage(transformer, adapted, numbers))
    return trained


def _place(family: Family, model: Any, config: PolicyConfig, device: torch.device) -> None:
    """Bring what predicts to the device; of two transformers perhaps only the one that computes."""
    if isinstance(model, Experts) and config.idle_expert == "cpu":
        model.turns = Turns(family, models_of(model), device)
    elif config.frozen_device != IN_SHARDS:
        model.to(device)


def _place_frozen(
    trained: TrainedWeights, roles: frozenset[Role], where: str, device: torch.device
) -> None:
    """Bring frozen copies of the model to the device, or have it fetch their blocks one by one."""
    with trained.using("policy") as module:
        live = {id(model) for model in models_of(module).values()}
    for role in roles - {"policy"}:
        with trained.using(role) as module:
            if where == "auto":
                module.to(device)
            if where != "cpu":
                continue
            for model in models_of(module).values():
                if id(model) not in live:
                    model.enable_group_offload(
                        device, offload_type="block_level", num_blocks_per_group=1
                    )


def _is_checkpointed(family: Family, transformer: Any, setting: bool | str) -> bool:
    if setting != "auto":
        return bool(setting)
    limit: int = getattr(family, "checkpointed_above", CHECKPOINTED_ABOVE)
    return transformer.num_parameters() > limit


def _read_adapter(family: Family, transformer: Any, source: str) -> dict[str, LayerAdapter]:
    layers = [name for name, _ in transformer.named_modules()]
    try:
        rename = family.pipeline_class.lora_state_dict
        return read_layers(open_adapter(source), layers, rename)
    except CheckpointError as error:
        raise CheckpointError(
            f"policy.lora.initial: {source} does not open as a trained adapter: {error}"
        ) from error
