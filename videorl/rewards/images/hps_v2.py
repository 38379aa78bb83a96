"""HPSv2 and v2.1 (arXiv 2306.09341): an OpenCLIP ViT-H-14 trained on human rankings.

The tensors have the names of OpenCLIP, and are loaded into the `CLIPModel` of transformers.
"""

from __future__ import annotations

import difflib
import html
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videorl.errors import CheckpointError, ConfigError
from videorl.rewards.checkpoints import (
    check_tensors,
    empty_parameters,
    find_folder,
    load_strictly,
    read_tensors,
)
from videorl.rewards.images.clip_pixels import float_pixels, tensor_pixels
from videorl.rewards.images.clip_preference import (
    BASE_FILES,
    CLIP_H,
    ClipPreference,
    ClipPrompts,
    read_config,
    read_tokenizer,
)
from videorl.rewards.per_frame import ImageScorer, PerFrameReward
from videorl.rewards.placement import placement

FILES = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}
OPEN_CLIP_TOKENS = ("<start_of_text>", "<end_of_text>")
"""CLIP's two special tokens as OpenCLIP's tokenizer spells them."""
_OPEN_CLIP_NAMES = (
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("visual_projection.weight", "visual.proj"),
    ("text_model.embeddings.token_embedding.", "token_embedding."),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.", "ln_final."),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("text_projection.weight", "text_projection"),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.out_proj.", ".attn.out_proj."),
    *((f".self_attn.{letter}_proj.", ".attn.in_proj_") for letter in "qkv"),
)
_TRANSPOSED = ("visual.proj", "text_projection")


def load_hps_v2(
    path: str,
    *,
    version: str = "v2.1",
    base: str = CLIP_H,
    antialias: bool = True,
    device: str | None = None,
    dtype: str = "float32",
    **frames: Any,
) -> PerFrameReward:
    """Load HPSv2 from its published layout.

    The score of a frame is the cosine, as in the authors' `hpsv2.score`; their tables show it
    times 100. Scores of the two versions cannot be compared.

    Args:
        path: The `.pt` file, or a folder or hub id with it.
        version: `v2.0` or `v2.1`: which file of a folder to read.
        base: Folder or hub id of a transformers CLIP-H, of which the configuration and the
            tokenizer are read.
        antialias: Whether to antialias when shrinking, as the authors' code does with torchvision
            0.17 or later. It did not with the versions of the time when the model was made.
        device: Where the model runs; None = the GPU if there is one.
        dtype: Type of weights and arithmetic; the checkpoint stores float16.
        frames: `num_frames` and `batch_frames` of `PerFrameReward`.

    Raises:
        CheckpointError: Files or tensors are missing, unexpected, damaged or of a wrong shape.
        ConfigError: An option has an impossible value.
    """
    if version not in FILES:
        near = difflib.get_close_matches(version, FILES, n=1, cutoff=0.0)
        raise ConfigError(f"version of hps_v2 is {version!r}; did you mean {near[0]!r}?")
    where, kind = placement("an image reward", device, dtype)
    file = Path(path) if Path(path).is_file() else find_folder(path, [FILES[version]])
    if file.is_dir():
        file = file / FILES[version]
    base_folder = find_folder(base, BASE_FILES)
    config = read_config(base_folder)
    network = load_network(file, config, kind).to(where)
    side_px = config.vision_config.image_size
    pixels = partial(tensor_pixels, side_px=side_px, antialias=antialias)
    floats = partial(float_pixels, side_px=side_px, antialias=antialias)
    tokenizer = read_tokenizer(base_folder)
    prompts = ClipPrompts(tokenizer, network, clean=unescaped, reserved=OPEN_CLIP_TOKENS)
    scorer = ImageScorer("preference", network, pixels, floats, prompts, where)
    return PerFrameReward(scorer, **frames)


def load_network(file: Path, config: Any, dtype: torch.dtype) -> ClipPreference:
    """Build the network and fill it from an OpenCLIP training checkpoint.

    Raises:
        CheckpointError: The file is missing or damaged, or a tensor is missing, unexpected or of
            another shape; the error has the tensor's name in the checkpoint.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} is missing from the checkpoint")
    stored = read_tensors(file, entry="state_dict")
    with empty_parameters():
        network = ClipPreference(config, is_scaled=False)
    check_tensors(open_clip_shapes(network.clip), stored, file)
    own = {name: _value(stored, name) for name in network.clip.state_dict()}
    load_strictly(network.clip, own, source=file, dtype=dtype)
    return network.requires_grad_(False).eval()


def open_clip_name(name: str) -> str:
    """Return OpenCLIP's name of a `CLIPModel` tensor; queries, keys and values share a tensor."""
    for own, other in _OPEN_CLIP_NAMES:
        name = name.replace(own, other)
    return name


def open_clip_shapes(clip: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes that a `CLIPModel`'s tensors have in an OpenCLIP checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    for own, tensor in clip.state_dict().items():
        name, shape = open_clip_name(own), tuple(tensor.shape)
        if ".in_proj_" in name:
            shape = (3 * shape[0], *shape[1:])
        shapes[name] = shape[::-1] if name in _TRANSPOSED else shape
    return shapes


def unescaped(prompt: str) -> str:
    """Replace HTML entities, twice, as OpenCLIP's tokenizer does."""
    return html.unescape(html.unescape(prompt)).strip()


def _value(stored: Mapping[str, Tensor], own: str) -> Tensor:
    name = open_clip_name(own)
    tensor = stored[name]
    if ".in_proj_" in name:
        part = own.rpartition("_proj.")[0][-1]
        return tensor.chunk(3)["qkv".index(part)]
    return tensor.T if name in _TRANSPOSED else tensor
