"""What a folder or repository of a video model holds, told by the names of its files alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

FAMILY_OF = {"WanPipeline": "wan", "CogVideoXPipeline": "cogvideox"}
"""Class in `model_index.json` -> the built-in family that reads it."""
_STEMS = ("diffusion_pytorch_model", "model")
_VARIANT = re.compile(r"\.(fp16|bf16)(?=[.-])")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_ORIGINAL: tuple[tuple[str, str, str], ...] = (
    (
        r"Wan2\.\d_VAE\.pth|models_t5_umt5.*\.pth",
        "Wan in its original layout",
        "the repository with -Diffusers at the end, such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    ),
    (
        r"hunyuan-?video.*/|mp_rank_00_model_states\.pt",
        "HunyuanVideo in its original layout",
        "a supported model: HunyuanVideo is none, in any layout",
    ),
    (
        r"\d+/mp_rank_00_model_states\.pt|transformer/latest",
        "CogVideoX in its original (SAT) layout",
        "the diffusers repository, such as THUDM/CogVideoX-2b",
    ),
    (r"ltx.?video.*\.safetensors", "LTX-Video", "a supported model: LTX-Video is none"),
    (r"dit\.safetensors|mochi.*\.safetensors", "Mochi", "a supported model: Mochi is none"),
    (
        r"Open_Sora.*\.safetensors|hunyuan_vae\.safetensors",
        "Open-Sora",
        "a supported model: Open-Sora is none",
    ),
    (
        r"pytorch_lora_weights\.safetensors|adapter_model\.safetensors",
        "an adapter, no whole model",
        "its base model, and the adapter as policy.lora.initial",
    ),
)
"""Pattern of names that only this layout has -> what it is, what to give instead."""
_CLASSES = {"WanModel": 0, "STDiT3": 5, "STDiT2": 5, "STDiT": 5, "MMDiT": 5}
"""Class or type in a `config.json` at the top -> row of `_ORIGINAL`."""


def variant_of(names: Collection[str]) -> str | None:
    """Return which safetensors of a model's folder to read: `""`, or the variant that there is.

    Args:
        names: Of the files in the folder. Weights that are there twice are read in full.

    Returns:
        `""` for those of the plain name, `fp16` or `bf16` where there are only such; None without
        safetensors weights.
    """
    if any(f"{stem}.safetensors{end}" in names for stem in _STEMS for end in ("", ".index.json")):
        return ""
    for variant in ("bf16", "fp16"):
        ends = (f".{variant}.safetensors", f".safetensors.index.{variant}.json")
        if any(f"{stem}{end}" in names for stem in _STEMS for end in ends):
            return variant
    return None


def files_of_part(names: Collection[str], part: str) -> list[str]:
    """Return the files of a model's folder that are read: one variant, and no pickles."""
    inside = [name for name in names if name.startswith(f"{part}/")]
    variant = variant_of({name.removeprefix(f"{part}/") for name in inside})
    return [
        name
        for name in inside
        if not name.endswith((*_PICKLES, ".msgpack", ".h5", ".onnx", ".bin.index.json"))
        and ("safetensors" not in name or _variant(name) == variant)
    ]


def problem_of_weights(place: str, names: Collection[str]) -> str | None:
    """Return what is wrong with the weights in a model's folder; None if they can be read.

    Args:
        place: The folder, for the message.
        names: Of the files in it.
    """
    if variant_of(names) is not None:
        return None
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        return (
            f"{place} holds its weights only as pickles ({_listed(pickles)}), which may run code "
            "and are not read: give a repository or revision with safetensors, or convert it once, "
            "DiffusionPipeline.from_pretrained(PATH).save_pretrained(NEW, safe_serialization=True)"
        )
    if others := sorted(name for name in names if name.endswith(".safetensors")):
        return (
            f"{place} holds weights only as {_listed(others)}, which diffusers does not open by "
            "itself: it wants diffusion_pytorch_model.safetensors (or model.safetensors), or with "
            "fp16 or bf16 before the ending"
        )
    return None


def problem_of_layout(place: str, names: Collection[str], config: Mapping[str, Any]) -> str:
    """Return what a place without `model_index.json` holds, and what to give instead.

    Args:
        place: Folder or hub id, for the message.
        names: Of its files, relative to it.
        config: Content of the `config.json` at its top; empty without.
    """
    told = {config.get(key) for key in ("_class_name", "model_type")}
    row = next((_ORIGINAL[_CLASSES[name]] for name in told if name in _CLASSES), None)
    row = row or next((row for row in _ORIGINAL if any(_has(row[0], name) for name in names)), None)
    if row is not None:
        return f"{place} holds {row[1]}, but a folder in diffusers format is needed: give {row[2]}"
    top = sorted({name.split("/")[0] for name in names})
    return (
        f"{place} holds {_listed(top) or 'nothing'} but no model_index.json, so no pipeline in "
        "diffusers format: give one, such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    )


def problem_of_index(place: str, index: Mapping[str, Any], pipeline: str) -> str | None:
    """Return why a pipeline's `model_index.json` is not one of the wanted class; None if it is."""
    found = index.get("_class_name")
    if found == pipeline:
        second = index.get("transformer_2") or [None]
        if second[0] or index.get("boundary_ratio") is not None:
            return (
                f"{place} has two transformers (Wan 2.2 A14B); training only one of them would "
                "silently give wrong results, so use Wan 2.1 or Wan 2.2 TI2V-5B"
            )
        return None
    said = f"{place} holds a {found}, but policy.family needs a {pipeline}"
    if family := FAMILY_OF.get(str(found)):
        return f"{said}: set policy.family={family}"
    return (
        f"{said}; built in are {' and '.join(FAMILY_OF)}, and docs/extending.md says how to add a "
        "family of your own"
    )


def _has(pattern: str, name: str) -> bool:
    return re.match(rf"(.*/)?({pattern})", name, re.IGNORECASE) is not None


def _variant(name: str) -> str:
    match = _VARIANT.search(name)
    return match[1] if match else ""


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:5]) + (", …" if len(shown) > 5 else "")
