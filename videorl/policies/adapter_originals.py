"""Adapters under the layer names of the authors' code, which ComfyUI has, for several models.

| model | known by | what changes |
|---|---|---|
| Wan | `blocks.0.attn1.to_q` and the like | names, see `adapter_names` |
| LTX-Video | `transformer_blocks.0.attn2.to_q` | nothing: its authors took the names of diffusers |
| HunyuanVideo | `single_transformer_blocks.0.proj_mlp` | names; layers that become parts of one |

What is one layer there has one adapter there: the ranks of its parts add up, each in its own rows
(B is block-diagonal), with the same effect. Of the last two the strength is in B, and there is no
alpha, since diffusers' own converters know none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch

from videorl.errors import CheckpointError
from videorl.policies.adapter_layouts import LayerAdapter
from videorl.policies.adapter_names import original_name

Layers = Mapping[str, LayerAdapter]
Written = dict[str, LayerAdapter]


def original_layers(layers: Layers, layout: str) -> Written:
    """Return the adapters of a model's layers by their original names.

    Args:
        layers: By the names that diffusers has for them.
        layout: `comfyui` or `kohya`, named in errors.

    Raises:
        CheckpointError: The model has no such names that diffusers could check, or a part of a
            layer is not adapted.
    """
    if is_wan(layers):
        return _wan(layers)
    for is_known, convert in _MODELS:
        if any(is_known(name) for name in layers):
            if layout == "kohya" and convert is not _wan:
                raise CheckpointError(_refusal(next(iter(layers)), layout))
            return convert(layers)
    raise CheckpointError(_refusal(next(iter(layers)), layout))


def is_wan(layers: Layers) -> bool:
    """Tell whether all layers are of Wan."""
    return all(original_name(layer) for layer in layers)


def _refusal(layer: str, layout: str) -> str:
    return (
        f"{layer} is no linear layer of a model that the layout {layout} is written for: comfyui "
        "is for Wan, LTX-Video and HunyuanVideo, kohya for Wan only. Of others stock diffusers "
        "opens no layout but its own, so none could be checked: use --format diffusers"
    )


def _wan(layers: Layers) -> Written:
    names = {layer: original_name(layer) for layer in layers}
    if unknown := [layer for layer, name in names.items() if name is None]:
        raise CheckpointError(_refusal(unknown[0], "of Wan's names"))
    return {str(names[layer]): adapter for layer, adapter in layers.items()}


def _ltx(layers: Layers) -> Written:
    if unknown := [layer for layer in layers if not _LTX.fullmatch(layer)]:
        raise CheckpointError(_refusal(unknown[0], "comfyui"))
    return {layer: _strong(adapter) for layer, adapter in layers.items()}


def _hunyuan_video(layers: Layers) -> Written:
    found, parts = Written(), dict[str, dict[str, LayerAdapter]]()
    for layer, adapter in layers.items():
        if layer == "proj_out":
            found["final_layer.linear"] = _strong(adapter)
            continue
        place, inner = _hunyuan_place(layer)
        fused = next((name for name, of in _FUSED[place[0]].items() if inner in of), None)
        if fused is not None:
            parts.setdefault(f"{place[1]}.{fused}", {})[inner] = adapter
        elif inner in _RENAMED[place[0]]:
            found[f"{place[1]}.{_RENAMED[place[0]][inner]}"] = _strong(adapter)
        else:
            raise CheckpointError(_refusal(layer, "comfyui"))
    for name, given in parts.items():
        kind = next(kind for kind, (_, new) in _PLACES.items() if name.startswith(new))
        wanted = _FUSED[kind][name.rsplit(".", 1)[1]]
        if absent := [part for part in wanted if part not in given]:
            raise CheckpointError(
                f"{name} is one layer of HunyuanVideo's own code, of which the adapter has only "
                f"{', '.join(given)}, not {', '.join(absent)}: adapt all of them, or use --format "
                "diffusers"
            )
        found[name] = fused_layer([given[part] for part in wanted])
    return found


def fused_layer(parts: Sequence[LayerAdapter]) -> LayerAdapter:
    """Return the adapter of a layer whose rows are those of its parts, one after the other."""
    strong = [_strong(part) for part in parts]
    a = torch.cat([part.a for part in strong])
    return LayerAdapter(a, torch.block_diag(*(part.b for part in strong)), 1.0)


def _strong(adapter: LayerAdapter) -> LayerAdapter:
    """Return the adapter with its strength in B."""
    return LayerAdapter(adapter.a, adapter.b * adapter.scale, 1.0)


def _hunyuan_place(layer: str) -> tuple[tuple[str, str], str]:
    """Return kind and original name of the block of a layer, and the layer's name inside it."""
    for kind, (old, new) in _PLACES.items():
        if match := re.fullmatch(rf"{re.escape(old)}\.(\d+)\.(.+)", layer):
            return (kind, f"{new}.{match[1]}"), match[2]
    raise CheckpointError(_refusal(layer, "comfyui"))


_PLACES = {
    "double": ("transformer_blocks", "double_blocks"),
    "single": ("single_transformer_blocks", "single_blocks"),
    "refiner": (
        "context_embedder.token_refiner.refiner_blocks",
        "txt_in.individual_token_refiner.blocks",
    ),
}
_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
_FUSED: dict[str, dict[str, tuple[str, ...]]] = {
    "double": {
        "img_attn_qkv": _QKV,
        "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    },
    "single": {"linear1": (*_QKV, "proj_mlp")},
    "refiner": {"self_attn_qkv": _QKV},
}
_RENAMED: dict[str, dict[str, str]] = {
    "double": {
        "attn.to_out.0": "img_attn_proj",
        "attn.to_add_out": "txt_attn_proj",
        "ff.net.0.proj": "img_mlp.fc1",
        "ff.net.2": "img_mlp.fc2",
        "ff_context.net.0.proj": "txt_mlp.fc1",
        "ff_context.net.2": "txt_mlp.fc2",
    },
    "single": {"proj_out": "linear2"},
    "refiner": {
        "attn.to_out.0": "self_attn_proj",
        "ff.net.0.proj": "mlp.fc1",
        "ff.net.2": "mlp.fc2",
    },
}
_LTX = re.compile(r"transformer_blocks\.\d+\.(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2))")
_MODELS: Sequence[tuple[Callable[[str], object], Callable[[Layers], Written]]] = (
    (re.compile(r"blocks\.\d+\.(attn\d|ffn)\..+|condition_embedder\..+").fullmatch, _wan),
    (re.compile(r"single_transformer_blocks\.\d+\.(proj_mlp|attn\..+)").fullmatch, _hunyuan_video),
    (re.compile(r"transformer_blocks\.\d+\.attn2\.to_.+").fullmatch, _ltx),
)
