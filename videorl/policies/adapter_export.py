"""Write the policy's adapter for stock diffusers, and prove that it has the policy's effect there.

What a run learned is worth nothing where its file means something else to the library that opens
it, and the run's own evaluation cannot notice, since it samples from the live weights. So the file
is loaded by the stock pipeline before the run may call itself finished.

This fits wherever the policy was trained: the model that the pipeline gets has no weights of its
own, it is built on the meta device and holds the very tensors of the trained model's base. On top
come two small adapters and one call at the recipe's own size without gradients, which needs less
than a step of training does.
"""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videorl.config import SamplingConfig
from videorl.errors import CheckpointError
from videorl.policies.adapter_files import FILES, LOADING
from videorl.policies.experts import FIRST
from videorl.policies.family import Family
from videorl.policies.idle import Turns
from videorl.policies.images import example

_TOLERANCE = 0.01
"""How far the file's effect may be from the policy's, as a part of it."""
_ROUNDING = 1e-6
"""The same as a part of the latents: the effect of a hardly trained adapter is all rounding."""
_SEED = 0


def export_adapter(
    family: Family,
    pipeline: Any,
    weights: Mapping[str, Mapping[str, Tensor]],
    directory: Path,
    sampling: SamplingConfig,
    turns: Turns | None = None,
) -> None:
    """Write the policy's adapter so that stock diffusers opens it, and check that it does.

    A model with two transformers has a file for each. All appear only once each was checked.

    Args:
        family: Of the policy.
        pipeline: Its pipeline; the transformer has the adapter, with whole (gathered) parameters.
        weights: The adapter's tensors by name, of each transformer that has one.
        directory: Where to write.
        sampling: The size of the videos.
        turns: Of two transformers, if the idle one waits in host memory.

    Raises:
        CheckpointError: Stock diffusers does not open the file, or does not compute with it what
            the policy computes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".unchecked-") as folder:
        written = Path(folder)
        for name, own in weights.items():
            if turns is not None:
                turns.take(name)
            _save(family, getattr(pipeline, name), own, written / FILES[name])
            with _only(pipeline, name):
                _check(family, pipeline, name, own, written / FILES[name], sampling)
        for path in written.iterdir():
            os.replace(path, directory / path.name)


def _save(family: Family, model: Any, weights: Mapping[str, Tensor], file: Path) -> None:
    adapter = model.peft_config["policy"]
    family.pipeline_class.save_lora_weights(
        file.parent,
        weight_name=file.name,
        transformer_lora_layers=dict(weights),
        transformer_lora_adapter_metadata={
            "r": adapter.r,
            "lora_alpha": adapter.lora_alpha,
            "target_modules": sorted(adapter.target_modules),
        },
    )


@torch.no_grad()
def _check(
    family: Family,
    pipeline: Any,
    name: str,
    weights: Mapping[str, Tensor],
    file: Path,
    sampling: SamplingConfig,
) -> None:
    """Compare a video of one step by the file in stock diffusers with the policy's.

    The policy is computed as generators compute it, with what is published, so that both are equal
    bit for bit in every type; two calls tell how far a device repeats itself.
    """
    live, options = getattr(pipeline, name), LOADING.get(name, {})
    with _stock_pipeline(pipeline, name) as stock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        model = getattr(stock, name)
        base = _one_step(family, stock, sampling)
        _add_policy(model, live.peft_config["policy"], weights)
        policy, again = (_one_step(family, stock, sampling) for _ in range(2))
        model.disable_lora()
        try:
            stock.load_lora_weights(
                str(file.parent), weight_name=file.name, adapter_name="exported", **options
            )
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"stock diffusers does not open {_FAILED} ({error})") from error
        model.enable_lora()
        model.set_adapter("exported")
        found = _one_step(family, stock, sampling)
    effect, difference = float((policy - base).norm()), float((found - policy).norm())
    noise = 2 * float((again - policy).norm()) + _ROUNDING * float(base.norm())
    if not difference <= _TOLERANCE * effect + noise:
        raise CheckpointError(
            f"stock diffusers computes other videos with {_FAILED}: they differ from the policy's "
            f"by {difference:.3g}, while all that was learned changes them by {effect:.3g}"
        )


_FAILED = (
    "the adapter that was to be exported. It is not kept; the run's checkpoints are whole, and the "
    "same command tries again"
)


@contextmanager
def _stock_pipeline(pipeline: Any, name: str) -> Iterator[Any]:
    """Give the pipeline a stock transformer on the same base for the length of a `with`."""
    live = getattr(pipeline, name)
    setattr(pipeline, name, _without_adapters(live))
    try:
        yield pipeline
    finally:
        setattr(pipeline, name, live)


@contextmanager
def _only(pipeline: Any, name: str) -> Iterator[None]:
    """Let one transformer of a pipeline compute at all times for the length of a `with`."""
    boundary = pipeline.config.get("boundary_ratio")
    if boundary is not None:
        pipeline.register_to_config(boundary_ratio=0.0 if name == FIRST else 2.0)
    try:
        yield
    finally:
        if boundary is not None:
            pipeline.register_to_config(boundary_ratio=boundary)


def _without_adapters(model: Any) -> Any:
    """Return a new model of the same class that shares the tensors of the base of `model`."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        stock = type(model).from_config(model.config)
    base = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }
    stock.load_state_dict(base, assign=True)
    modules = {name.replace(".base_layer", ""): module for name, module in model.named_modules()}
    for name, module in stock.named_modules():
        # Tables that no checkpoint holds, such as positions: they too lie on the right device.
        module._buffers.update(modules[name]._buffers)
    return stock.requires_grad_(False).eval()


def _add_policy(model: Any, config: Any, weights: Mapping[str, Tensor]) -> None:
    with torch.random.fork_rng(devices=[]):
        model.add_adapter(copy.deepcopy(config), "policy")
    for name, tensor in weights.items():
        layer, part, _ = name.rsplit(".", 2)
        getattr(model.get_submodule(layer), part)["policy"].weight.copy_(tensor)


def _one_step(family: Family, pipeline: Any, sampling: SamplingConfig) -> Tensor:
    """Return the latents of one step of the stock pipeline, or of as many as it needs."""
    model, generator = pipeline.transformer, torch.Generator().manual_seed(_SEED)
    steps = getattr(family, "fewest_steps", 1)
    zeros = example(family, pipeline, sampling)
    embedding = zeros.map(lambda each: torch.randn(each.shape, generator=generator))
    arguments = {
        **family.text_arguments([embedding], sampling, model.dtype, model.device),
        "generator": torch.Generator().manual_seed(_SEED),
        **family.call_options(replace(sampling, num_inference_steps=steps, guidance_scale=1.0)),
        "output_type": "latent",
        "return_dict": False,
    }
    return family.call(pipeline, arguments)[0].float()
