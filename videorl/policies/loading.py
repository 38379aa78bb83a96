"""Read the parts of a checkpoint that one process needs, and check that they fit the recipe."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from videorl.config import PolicyConfig, SamplingConfig
from videorl.errors import CheckpointError, ConfigError
from videorl.policies.adapter_files import open_adapter
from videorl.policies.adapter_layouts import LayerAdapter, read_layers
from videorl.policies.calls import call_options, read_scheduler
from videorl.policies.checkpoints import (
    PARTS,
    check,
    locate,
    read_json,
    weight_files,
    weights_variant,
)
from videorl.policies.devices import Devices, compute_type, own_devices
from videorl.policies.family import CHECKPOINTED_ABOVE, Family
from videorl.policies.full import train_everything
from videorl.policies.lora import train_adapters
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.policies.precision import float32_linears, prepare_for_autocast
from videorl.policies.texts import check_negative_prompt
from videorl.policies.trained import TrainedWeights
from videorl.protocols import Role

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
    dtype = _compute_dtype(config.dtype, device, trainable=trainable)
    pipeline_name = family.pipeline_class.__name__
    folder = locate(config.path, parts, pipeline_name)
    index = check(folder, pipeline_name, parts)
    scheduler = None
    if "transformer" in parts:  # what is refused here, is before weights are read
        scheduler = read_scheduler(folder, index, sampling)
        call_options(family.pipeline_class, sampling)
        _mention_float16(config.path, folder, dtype)
    pipeline = _read_parts(family, folder, index, parts, dtype, scheduler)
    autocast = trainable and dtype != torch.float32
    trained = None
    if "transformer" in parts:
        family.check_size(pipeline, sampling)
        family.process(pipeline.scheduler)  # refuses what cannot be trained, before it is
        float32_layers = float32_linears(pipeline.transformer)
        trained = _prepare_transformer(
            family,
            pipeline.transformer,
            config,
            seed=seed,
            trainable=trainable,
            keep_base="base" in roles,
        )
        pipeline.transformer.to(device)
        if config.lora.rank == 0:
            _place_frozen(trained, roles, config.frozen_device, device)
        if autocast:
            prepare_for_autocast(trained, float32_layers, device.type)
    if "text_encoder" in parts:
        check_negative_prompt(family, pipeline, sampling)
    for part in parts - {"transformer"}:
        getattr(pipeline, part).requires_grad_(False).to(device)
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


def _mention_float16(path: str, folder: Path, dtype: torch.dtype) -> None:
    """Say that a model computes in another half precision than that it was published in."""
    with safe_open(weight_files(folder / "transformer")[0], "pt") as tensors:
        is_float16 = all(tensors.get_slice(n).get_dtype() == "F16" for n in tensors.keys())  # noqa: SIM118
    if is_float16 and dtype == torch.bfloat16:
        logger.warning(
            "policy.path: %s was published in float16, but computes in bfloat16, to which its "
            "weights are rounded: float16 loses small gradients, and learner and generators must "
            "compute alike. policy.dtype=float32 keeps every bit, with twice the memory",
            path,
        )


def _read_parts(
    family: Family,
    folder: Path,
    index: dict[str, Any],
    parts: frozenset[str],
    dtype: torch.dtype,
    scheduler: Any,
) -> Any:
    """Return the stock pipeline around `parts`; the others are None."""
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    options = family.pipeline_options(folder, index)
    dtypes = {"vae": family.vae_dtype or dtype}
    loaded: dict[str, Any] = {**dict.fromkeys(("tokenizer", *PARTS)), "scheduler": scheduler}
    for part in parts:
        model_class = family.model_classes[part]
        loaded[part] = _read_model(model_class, folder / part, dtypes.get(part, dtype))
    if "text_encoder" in parts:
        loaded["tokenizer"] = AutoTokenizer.from_pretrained(
            folder / "tokenizer", trust_remote_code=False
        )
    pipeline = family.pipeline_class(**loaded, **options)
    pipeline.set_progress_bar_config(disable=True)
    if parts & {"transformer", "vae"}:
        # The pipeline takes these from its VAE; a process without one samples at the same size.
        strides = family.strides(read_json(folder / "vae/config.json"))
        pipeline.vae_scale_factor_temporal, pipeline.vae_scale_factor_spatial = strides
    return pipeline


def _read_model(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Read one model, refusing weights that leave a parameter at random.

    Raises:
        CheckpointError: The weights do not fill the model that `config.json` describes.
    """
    try:
        model, report = model_class.from_pretrained(
            folder, output_loading_info=True, dtype=dtype, variant=weights_variant(folder)
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} does not open as a {model_class.__name__}: {error}"
        ) from error
    if absent := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise CheckpointError(
            f"{folder}: the weights lack {len(absent)} tensors of the {model_class.__name__} that "
            f"its config.json describes, first: {', '.join(absent[:3])}; save or download it again"
        )
    return model


def _prepare_transformer(
    family: Family,
    transformer: Any,
    config: PolicyConfig,
    *,
    seed: int,
    trainable: bool,
    keep_base: bool,
) -> TrainedWeights:
    """Make adapters or all weights the trained ones, on the CPU.

    There all weights are copied and upcast, so that no device ever holds two in float32.
    """
    if trainable and _is_checkpointed(family, transformer, config.gradient_checkpointing):
        transformer.enable_gradient_checkpointing()  # not reentrant, so that adapters learn
    if config.lora.rank == 0:
        return train_everything(transformer, trainable=trainable, keep_base=keep_base)
    source = config.lora.initial
    initial = None if source is None else _read_adapter(family, transformer, source)
    return train_adapters(transformer, config.lora, seed=seed, trainable=trainable, initial=initial)


def _place_frozen(
    trained: TrainedWeights, roles: frozenset[Role], where: str, device: torch.device
) -> None:
    """Bring frozen copies of the model to the device, or have it fetch their blocks one by one."""
    for role in roles - {"policy"}:
        with trained.using(role) as module:
            if where == "auto":
                module.to(device)
                continue
            model: Any = module
            model.enable_group_offload(device, offload_type="block_level", num_blocks_per_group=1)


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
