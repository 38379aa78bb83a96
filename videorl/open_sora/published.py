"""The published files of Open-Sora 1.2, put together as a folder that pipelines are read from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videorl.errors import CheckpointError

WEIGHTS = "model.safetensors"
"""Name of the weights in both published repositories."""
AESTHETIC_SCORE = 6.5
"""What the authors' sampling appends to every prompt."""

_FIXED: Mapping[str, Mapping[str, Any]] = {
    "transformer": {"qk_norm": True, "pred_sigma": True, "skip_y_embedder": False},
    "vae": {"micro_frame_size": 17, "cal_loss": False},
}
"""What is built in, and must be so where the published configuration says it."""


def assemble(transformer: Path, vae: Path, texts: Path, out: Path) -> None:
    """Write a folder in the layout of diffusers; weights are copied as they are.

    Args:
        transformer: Folder of OpenSora-STDiT-v3: `config.json` and `model.safetensors`.
        vae: Folder of OpenSora-VAE-v1.2, likewise.
        texts: Folder with `vae/config.json` of the image VAE, whose weights are not read,
            `tokenizer` and `text_encoder`.
        out: The folder, which is made.

    Raises:
        CheckpointError: A file is missing, or the weights are not those of these models.
    """
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    models = {
        "transformer": (transformer, transformer_config(_json(transformer / "config.json"))),
        "vae": (vae, vae_config(_json(vae / "config.json"), _json(texts / "vae/config.json"))),
    }
    for name, (source, config) in models.items():
        _check_names(name, config, source / WEIGHTS)
    for name, (source, config) in models.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        (out / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        shutil.copyfile(source / WEIGHTS, out / name / "diffusion_pytorch_model.safetensors")
    for name in ("tokenizer", "text_encoder"):
        if not (texts / name).is_dir():
            raise CheckpointError(f"{texts / name} is missing: there is no T5 without it")
        shutil.copytree(texts / name, out / name, dirs_exist_ok=True)
    FlowMatchEulerDiscreteScheduler().save_pretrained(out / "scheduler")
    (out / "model_index.json").write_text(json.dumps(_INDEX, indent=2) + "\n")


_INDEX: Mapping[str, Any] = {
    "_class_name": "OpenSoraPipeline",
    "aesthetic_score": AESTHETIC_SCORE,
    "camera_motion": None,
    "motion_score": None,
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "T5Tokenizer"],
    "transformer": ["videorl.open_sora.transformer", "STDiT3"],
    "vae": ["videorl.open_sora.vae", "OpenSoraVAE"],
}


def transformer_config(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of `STDiT3` by that of the published network.

    Raises:
        CheckpointError: It is of another network.
    """
    import inspect

    from videorl.open_sora.transformer import STDiT3

    _check_fixed("transformer", published)
    known = inspect.signature(STDiT3.__init__).parameters
    own = {name: value for name, value in published.items() if name in known}
    return {"_class_name": "STDiT3", **own}


def vae_config(published: Mapping[str, Any], spatial: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of `OpenSoraVAE`.

    Args:
        published: Of the published VAE.
        spatial: Of the image VAE, a diffusers `AutoencoderKL`.

    Raises:
        CheckpointError: It is of another VAE.
    """
    _check_fixed("vae", published)
    temporal = dict(published["vae_temporal"])
    kind = temporal.pop("type", None)
    if kind not in ("VAE_Temporal_SD", "VAE_Temporal"):
        raise CheckpointError(f"vae_temporal.type must be VAE_Temporal_SD, got {kind!r}")
    # The first names the published sizes, and what is loaded from elsewhere; the second spells out
    # its own. Both embeddings have as many channels as the latents.
    unused = {"from_pretrained", "embed_dim", "latent_embed_dim"}
    return {
        "_class_name": "OpenSoraVAE",
        "spatial": {name: value for name, value in spatial.items() if not name.startswith("_")},
        "temporal": {name: value for name, value in temporal.items() if name not in unused},
        "means": list(published["shift"]),
        "deviations": list(published["scale"]),
    }


def _check_fixed(name: str, published: Mapping[str, Any]) -> None:
    for key, wanted in _FIXED[name].items():
        if published.get(key, wanted) != wanted:
            raise CheckpointError(
                f"{key} of the {name}'s config.json must be {wanted} as in Open-Sora 1.2, got "
                f"{published[key]!r}"
            )


def _check_names(name: str, config: Mapping[str, Any], weights: Path) -> None:
    """Refuse weights that lack tensors of a model, or have others."""
    import torch
    from safetensors import SafetensorError, safe_open

    from videorl.open_sora.transformer import STDiT3
    from videorl.open_sora.vae import OpenSoraVAE

    kinds: Mapping[str, Any] = {"transformer": STDiT3, "vae": OpenSoraVAE}
    with torch.device("meta"):
        wanted = kinds[name].from_config(dict(config)).state_dict()
    try:
        with safe_open(weights, "pt") as file:
            names = list(file.keys())
            found = {key: tuple(file.get_slice(key).get_shape()) for key in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights} cannot be read ({error})") from error
    shapes = {key: tuple(tensor.shape) for key, tensor in wanted.items()}
    if odd := sorted(key for key, _ in found.items() ^ shapes.items()):
        raise CheckpointError(
            f"{weights} is not the {name} of Open-Sora 1.2 that config.json describes: {len(odd)} "
            f"tensors are missing, unknown or of another shape, first: {odd[0]}"
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error
