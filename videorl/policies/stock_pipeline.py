"""The stock pipeline of a checkpoint, around the parts that one process needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from videorl.errors import CheckpointError
from videorl.policies.checkpoints import (
    PARTS,
    components,
    kind,
    models,
    read_json,
    weights_variant,
)
from videorl.policies.family import Family

IMAGE_ENCODER_DTYPE = torch.float32
"""As diffusers advises for Wan's, the only one so far."""


def read_parts(
    family: Family,
    folder: Path,
    index: dict[str, Any],
    parts: frozenset[str],
    dtype: torch.dtype,
    scheduler: Any,
) -> Any:
    """Return the stock pipeline around `parts`; the others are None."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    options = family.pipeline_options(folder, index)
    dtypes = {"vae": family.vae_dtype or dtype, "image_encoder": IMAGE_ENCODER_DTYPE}
    loaded: dict[str, Any] = dict.fromkeys(("tokenizer", *components(index, PARTS)))
    for name in models(index, parts):
        model_class = family.model_classes[name]
        loaded[name] = _read_model(model_class, folder / name, dtypes.get(name, dtype))
    if "text_encoder" in parts:
        loaded |= _preprocessors(folder, [name for name in loaded if loaded[name] is None])
    if "transformer" in parts and "guider" in loaded:
        loaded["guider"] = _guider(folder, index)
    loaded["scheduler"] = scheduler
    pipeline = family.pipeline_class(**loaded, **options)
    pipeline.set_progress_bar_config(disable=True)
    if parts & {"transformer", "vae"}:
        # The pipeline takes these from its VAE; a process without one samples at the same size.
        set_strides(pipeline, *family.strides(read_json(folder / "vae/config.json")))
    return pipeline


def set_strides(pipeline: Any, temporal: int, spatial: int) -> None:
    """Tell a pipeline its VAE's strides, under the name that each pipeline has for them."""
    pipeline.vae_scale_factor_temporal, pipeline.vae_scale_factor_spatial = temporal, spatial
    for name in ("compression_ratio", "scale_factor"):  # LTX-Video, Mochi
        setattr(pipeline, f"vae_temporal_{name}", temporal)
        setattr(pipeline, f"vae_spatial_{name}", spatial)


def _guider(folder: Path, index: Mapping[str, Any]) -> Any:
    """Return what guides by the negative prompt, where that is a part (HunyuanVideo 1.5)."""
    import diffusers

    return getattr(diffusers, index["guider"][1]).from_pretrained(folder, subfolder="guider")


def _preprocessors(folder: Path, names: Collection[str]) -> dict[str, Any]:
    """Return the tokenizers and the image processor among the components `names`."""
    from transformers import AutoImageProcessor, AutoTokenizer

    kinds = {"tokenizer": AutoTokenizer, "image_processor": AutoImageProcessor}
    return {
        name: kinds[kind(name)].from_pretrained(folder / name, trust_remote_code=False)
        for name in names
        if kind(name) in kinds
    }


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
