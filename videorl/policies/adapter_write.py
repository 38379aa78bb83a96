"""Write a trained adapter in the layout of another program, as a file of safetensors.

| layout | matrices of the layer `blocks.0.attn1.to_q` of diffusers | strength |
|---|---|---|
| comfyui | `diffusion_model.blocks.0.self_attn.q.lora_A.weight`, `lora_B` | `.alpha`, unless 1 |
| kohya | `lora_unet_blocks_0_self_attn_q.lora_down.weight`, `lora_up` | `.alpha` |
| diffusers | `transformer.blocks.0.attn1.to_q.lora_A.weight`, `lora_B` | in the file's header |

Those are of Wan; of other models see `adapter_originals`. A file is read again, and every layer
compared, before it gets its name.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from videorl.errors import CheckpointError, ConfigError
from videorl.policies import load_family
from videorl.policies.adapter_files import AdapterFile, open_adapter
from videorl.policies.adapter_layouts import LayerAdapter, read_layers
from videorl.policies.adapter_names import FORMATS, wan_layers
from videorl.policies.adapter_originals import is_wan, original_layers


def write_adapter(source: Path, out: Path, layout: str) -> dict[str, LayerAdapter]:
    """Write the adapter of `source` to `out`, whole or not at all; an older `out` is replaced.

    Matrices keep their values and type, layers their rank and strength.

    Args:
        source: An adapter in any layout that is read: a file, or a folder with one.
        out: The file to write; its folder must exist.
        layout: One of `FORMATS`; which models each is for, `adapter_originals` says.

    Returns:
        The adapter of each layer, by the layer's name in diffusers.

    Raises:
        CheckpointError: The adapter cannot be read, is of a model that the layout is not for, or
            cannot be written.
        ConfigError: There is no such layout, or `out` is the adapter itself.
    """
    if layout not in FORMATS:
        raise ConfigError(f"an adapter's format must be one of {', '.join(FORMATS)}, got {layout}")
    file = open_adapter(str(source))
    if out.exists() and out.samefile(file.path):
        raise ConfigError(f"--out: {out} is the adapter itself; give another file")
    layers = _layers(file)
    matrices = {tensor.dtype for name, tensor in file.tensors.items() if ".lora" in name}
    dtype = matrices.pop() if len(matrices) == 1 else torch.float32
    written = layers if layout == "diffusers" else original_layers(layers, layout)
    tensors = dict(_named(written, layout, dtype))
    header = {"format": "pt", **(_header(layers) if layout == "diffusers" else {})}
    unchecked = out.with_name(f".unchecked-{out.name}")
    try:
        save_file(tensors, unchecked, header)
        if layout == "diffusers" or is_wan(layers):  # read as users' files of this layout are
            _check(_layers(open_adapter(str(unchecked))), layers)
        else:
            kept = read_layers(open_adapter(str(unchecked)), written, dict)
            _check(kept, {name: _rounded(layer, dtype) for name, layer in written.items()})
        os.replace(unchecked, out)
    except SafetensorError as error:
        raise CheckpointError(f"{out} cannot be written ({error})") from error
    finally:
        unchecked.unlink(missing_ok=True)
    return layers


def _layers(file: AdapterFile) -> dict[str, LayerAdapter]:
    """Return the adapter of each layer: of Wan, or by the names that diffusers gave them."""
    blocks = {int(n) for name in file.tensors for n in re.findall(r"blocks[._](\d+)[._]", name)}
    named = (re.match(r"transformer\.(.+?)\.lora[._]", name) for name in file.tensors)
    own = {match[1] for match in named if match}
    rename = load_family("wan").pipeline_class.lora_state_dict
    try:
        return read_layers(file, wan_layers(blocks) | own, rename)
    except CheckpointError as error:
        raise CheckpointError(
            f"{file.path} cannot be exported as an adapter of Wan, nor has it diffusers' layout: "
            f"{error}"
        ) from error


def _named(
    layers: Mapping[str, LayerAdapter], layout: str, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and tensors of a file."""
    down, up = ("lora_down", "lora_up") if layout == "kohya" else ("lora_A", "lora_B")
    for layer, adapter in layers.items():
        place = _place(layer, layout)
        yield f"{place}.{down}.weight", adapter.a.to(dtype).contiguous()
        yield f"{place}.{up}.weight", adapter.b.to(dtype).contiguous()
        if layout == "kohya" or (layout == "comfyui" and adapter.scale != 1):
            yield f"{place}.alpha", torch.tensor(adapter.scale * adapter.rank)


def _place(layer: str, layout: str) -> str:
    if layout == "diffusers":
        return f"transformer.{layer}"
    if layout == "comfyui":
        return f"diffusion_model.{layer}"
    return f"lora_unet_{layer.replace('.', '_')}"


def _rounded(layer: LayerAdapter, dtype: torch.dtype) -> LayerAdapter:
    return replace(layer, a=layer.a.to(dtype).float(), b=layer.b.to(dtype).float())


def _header(layers: Mapping[str, LayerAdapter]) -> dict[str, str]:
    """Return peft's configuration of the adapter as diffusers keeps it in a file."""
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY

    ranks = {layer: adapter.rank for layer, adapter in layers.items()}
    alphas = {layer: adapter.scale * adapter.rank for layer, adapter in layers.items()}
    (rank, _), (alpha, _) = (Counter(of.values()).most_common(1)[0] for of in (ranks, alphas))
    config: dict[str, Any] = {
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(layers),
        "rank_pattern": {layer: own for layer, own in ranks.items() if own != rank},
        "alpha_pattern": {layer: own for layer, own in alphas.items() if own != alpha},
    }
    packed = {f"transformer.{name}": value for name, value in config.items()}
    return {LORA_ADAPTER_METADATA_KEY: json.dumps(packed, sort_keys=True)}


def _check(found: Mapping[str, LayerAdapter], layers: Mapping[str, LayerAdapter]) -> None:
    """Refuse a file that was read again where a layer is not what it was."""
    wrong = list(found.keys() ^ layers.keys())
    for layer in found.keys() & layers.keys():
        is_same = torch.equal(found[layer].a, layers[layer].a)
        is_same &= torch.equal(found[layer].b, layers[layer].b)
        if not (is_same and math.isclose(found[layer].scale, layers[layer].scale, rel_tol=1e-6)):
            wrong.append(layer)
    if wrong:
        raise CheckpointError(
            f"the file that was to be exported means something else in {len(wrong)} layers, "
            f"first: {min(wrong)}; it is not kept"
        )
