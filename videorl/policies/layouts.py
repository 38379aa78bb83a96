"""What a folder or repository of a video model holds, told by the names of its files alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from videorl.policies.quantized import problem_of_names

TWO_TRANSFORMERS = " with two transformers"
FAMILY_OF = {
    "WanPipeline": "wan",
    "WanPipeline" + TWO_TRANSFORMERS: "wan_2_2",
    "CogVideoXPipeline": "cogvideox",
    "LTXPipeline": "ltx_video",
    "LTX2Pipeline": "ltx_2",
    "HunyuanVideoPipeline": "hunyuan_video",
    "WanImageToVideoPipeline": "wan_i2v",
    "MochiPipeline": "mochi",
    "OpenSoraPipeline": "open_sora",
    "HunyuanVideo15Pipeline": "hunyuan_video_1_5",
}
"""What `kind_of` says of a `model_index.json` -> the built-in family that reads it."""
_GEMMA = "Gemma3ForConditionalGeneration"
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
        "the diffusers repository, such as hunyuanvideo-community/HunyuanVideo",
    ),
    (
        r"\d+/mp_rank_00_model_states\.pt|transformer/latest",
        "CogVideoX in its original (SAT) layout",
        "the diffusers repository, such as THUDM/CogVideoX-2b",
    ),
    (
        r"ltx.?video.*\.safetensors",
        "LTX-Video in its original layout",
        "the diffusers repository, such as Lightricks/LTX-Video",
    ),
    (
        r"dit\.safetensors|mochi.*\.safetensors",
        "Mochi in its original layout",
        "the diffusers files, such as those of genmo/mochi-1-preview",
    ),
    (
        r"Open_Sora.*\.safetensors|hunyuan_vae\.safetensors",
        "Open-Sora in its original layout",
        "Open-Sora 1.2, as docs/extending.md says",
    ),
    (
        r"pytorch_lora_weights\.safetensors|adapter_model\.safetensors",
        "an adapter, no whole model",
        "its base model, and the adapter as policy.lora.initial",
    ),
    (
        r"(?!)",  # its files are called as any model's: the class tells it
        "a part of Open-Sora 1.2 as it is published",
        "a folder that is made of its parts, as docs/recipe_files.md says",
    ),
    (
        r"ltx-2.*\.safetensors",
        "LTX-2 in its original layout",
        "the diffusers repository, such as Lightricks/LTX-2",
    ),
)
"""Pattern of names that only this layout has -> what it is, what to give instead."""
_CLASSES = {
    "WanModel": 0,
    "STDiT3": 7,
    "VideoAutoencoderPipeline": 7,
    "STDiT2": 5,
    "STDiT": 5,
    "MMDiT": 5,
}
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


def first_weights(part: str, names: Collection[str]) -> list[str]:
    """Return one of the files with weights that are read of a model's folder; [] without any.

    Args:
        part: The folder.
        names: Of the files in it.
    """
    files = files_of_part([f"{part}/{name}" for name in names], part)
    return sorted(file for file in files if file.endswith(".safetensors"))[:1]


def problem_of_weights(place: str, names: Collection[str]) -> str | None:
    """Return what is wrong with the weights in a model's folder; None if they can be read.

    Args:
        place: The folder, for the message.
        names: Of the files in it.
    """
    if variant_of(names) is not None:
        return None
    if problem := problem_of_names(place, names):
        return problem
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
    if row is None and (problem := problem_of_names(place, names)):
        return problem
    row = row or next((row for row in _ORIGINAL if any(_has(row[0], name) for name in names)), None)
    if row is not None:
        return f"{place} holds {row[1]}, but a folder in diffusers format is needed: give {row[2]}"
    top = sorted({name.split("/")[0] for name in names})
    return (
        f"{place} holds {_listed(top) or 'nothing'} but no model_index.json, so no pipeline in "
        "diffusers format: give one, such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    )


def kind_of(index: Mapping[str, Any]) -> str:
    """Return the class of a pipeline by its `model_index.json`, and whether it has two experts."""
    second = index.get("transformer_2") or [None]
    is_double = second[0] or index.get("boundary_ratio") is not None
    return f"{index.get('_class_name')}{TWO_TRANSFORMERS if is_double else ''}"


def problem_of_index(place: str, index: Mapping[str, Any], pipeline: str) -> str | None:
    """Return why a pipeline's `model_index.json` is not of the wanted kind; None if it is."""
    found = kind_of(index)
    if pipeline == "WanImageToVideoPipeline" and found == "WanPipeline":
        # Wan 2.2 TI2V is one model for both, published as this class.
        found = pipeline if index.get("expand_timesteps") else found
    if found == pipeline == "LTX2Pipeline" and (other := _other_gemma(index)):
        return (
            f"{place} has a {other} as its text encoder (LTX-2.5), but policy.family=ltx_2 reads "
            f"LTX-2 and LTX-2.3, which have a {_GEMMA}: give one of these"
        )
    if found == pipeline:
        return None
    said = f"{place} holds a {found}, but policy.family needs a {pipeline}"
    if family := FAMILY_OF.get(found):
        return f"{said}: set policy.family={family}"
    families = ", ".join(f"{family} ({pipeline})" for pipeline, family in FAMILY_OF.items())
    return (
        f"{said}; no family reads a {found}: built in are {families}. Give a model of one of them, "
        "or a family of your own (docs/extending.md)"
    )


def _other_gemma(index: Mapping[str, Any]) -> str | None:
    """Return the class of LTX-2's text encoder if it is not the one that is read."""
    found = (index.get("text_encoder") or [None, _GEMMA])[1]
    return None if found == _GEMMA else str(found)


def _has(pattern: str, name: str) -> bool:
    return re.match(rf"(.*/)?({pattern})", name, re.IGNORECASE) is not None


def _variant(name: str) -> str:
    match = _VARIANT.search(name)
    return match[1] if match else ""


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:5]) + (", …" if len(shown) > 5 else "")
