"""VBench on tiny random networks, against computations that share no code with ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, ViTConfig, ViTModel

from tests.clip_models import save_clip, spread
from tests.video_files import moving_pattern
from videorl.data.video_io import write_mp4
from videorl.errors import CheckpointError, ConfigError, VideoError
from videorl.measures.shapes import View
from videorl.measures.vbench_networks import load_dimension, load_dino
from videorl.measures.vbench_pixels import clip_pixels, dino_pixels
from videorl.types import Video
from videorl.videos.opening import open_frames

SIDE_PX = 32


def view(folder: Path, frames: int = 5) -> tuple[View, np.ndarray]:
    """Return a clip, and its decoded frames."""
    path = folder / "clip.mp4"
    write_mp4(path, Video(moving_pattern(frames, 40, 64), 8.0))
    found = open_frames(path)
    return View(found), found.read(range(frames))


def save_dino(folder: Path) -> Path:
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE_PX,
        patch_size=8,
        hidden_act="gelu",
        qkv_bias=True,
    )
    model: Any = spread(ViTModel(config, add_pooling_layer=False), 1)
    model.save_pretrained(folder)
    return folder


def dino_by_hand(folder: Path, pixels_B3HW: Tensor) -> Tensor:
    """A vision transformer from its tensors alone; pictures need not be square."""
    from safetensors.torch import load_file

    w = load_file(folder / "model.safetensors")

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    place = "embeddings.patch_embeddings.projection"
    grid = F.conv2d(pixels_B3HW, w[f"{place}.weight"], w[f"{place}.bias"], stride=8)
    positions, (rows, columns) = w["embeddings.position_embeddings"], grid.shape[2:]
    squares = positions[:, 1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    factors = ((rows + 0.1) / 4, (columns + 0.1) / 4)  # as DINO's own code
    squares = F.interpolate(squares, scale_factor=factors, mode="bicubic", align_corners=False)
    assert squares.shape[2:] == (rows, columns)
    tokens = grid.flatten(2).transpose(1, 2) + squares.flatten(2).transpose(1, 2)
    first = (w["embeddings.cls_token"] + positions[:, :1]).expand(len(tokens), -1, -1)
    x = torch.cat([first, tokens], 1)
    layers = sorted({name.split(".attention")[0] for name in w if ".attention" in name})
    assert len(layers) == 2
    names = {part: _one(w, layers[0], part) for part in ("query", "key", "value")}
    for layer in layers:
        y = norm(x, f"{layer}.layernorm_before")
        q, k, v = (
            linear(y, f"{layer}.{names[part]}").unflatten(-1, (2, 8)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1) @ v
        output = _one(w, layer, "attention.output.dense")
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"{layer}.{output}")
        hidden = linear(norm(x, f"{layer}.layernorm_after"), f"{layer}.intermediate.dense")
        x = x + linear(F.gelu(hidden), f"{layer}.output.dense")
    return norm(x, "layernorm")[:, 0]


def _one(w: dict[str, Tensor], layer: str, part: str) -> str:
    """Return the name below a layer of the linear map that ends in `part`."""
    ends = f"{part}.weight"
    names = [name for name in w if name.startswith(f"{layer}.") and name.endswith(ends)]
    return min(names, key=len).removeprefix(f"{layer}.").removesuffix(".weight")


def consistency(features: Tensor) -> float:
    """As the package's loop: every frame against the one before it, and the first."""
    total = 0.0
    for i in range(1, len(features)):
        before = max(0.0, F.cosine_similarity(features[i - 1], features[i], dim=0).item())
        first = max(0.0, F.cosine_similarity(features[0], features[i], dim=0).item())
        total += (before + first) / 2
    return total / (len(features) - 1)


def test_subject_consistency(tmp_path: Path) -> None:
    place = save_dino(tmp_path / "dino")
    clip, frames = view(tmp_path)
    found = load_dimension("subject consistency", {"dino": str(place)}, "cpu").of(clip)
    pixels = dino_pixels(frames, SIDE_PX)
    assert pixels.shape == (5, 3, 32, int(32 * 64 / 40))  # not cut: DINO takes any shape
    by_hand = dino_by_hand(place, pixels)
    with torch.no_grad():
        assert torch.allclose(load_dino(str(place), "cpu").features(pixels), by_hand, atol=1e-4)
    expected = consistency(by_hand)
    assert expected < 0.9995  # random networks hardly tell frames apart
    assert found[0] == pytest.approx(expected, abs=1e-6)


def test_background_consistency(tmp_path: Path) -> None:
    model: CLIPModel = save_clip(tmp_path / "clip")
    clip, frames = view(tmp_path)
    found = load_dimension("background consistency", {"clip_b": str(tmp_path / "clip")}, "cpu")
    with torch.no_grad():
        hidden = model.vision_model(pixel_values=clip_pixels(frames, 28)).pooler_output
        expected = consistency(hidden @ model.visual_projection.weight.T)
    assert expected < 0.9999
    assert found.of(clip)[0] == pytest.approx(expected, abs=1e-5)


def test_aesthetic_quality(tmp_path: Path) -> None:
    model: CLIPModel = save_clip(tmp_path / "clip")
    assert model.config.projection_dim is not None
    head = spread(nn.Linear(model.config.projection_dim, 1), 3)
    torch.save(head.state_dict(), tmp_path / "head.pth")
    clip, frames = view(tmp_path)
    places = {"clip_l": str(tmp_path / "clip"), "aesthetic_head": str(tmp_path / "head.pth")}
    found = load_dimension("aesthetic quality", places, "cpu").of(clip)
    with torch.no_grad():
        hidden = model.vision_model(pixel_values=clip_pixels(frames, 28)).pooler_output
        features = hidden @ model.visual_projection.weight.T
        scores = head(features / features.norm(dim=-1, keepdim=True))
    assert found[0] == pytest.approx(scores.mean().item() / 10.0, abs=1e-6)


def test_pixels_by_hand() -> None:
    frames = np.arange(2 * 4 * 3 * 3, dtype=np.uint8).reshape(2, 4, 3, 3)
    same = clip_pixels(frames[:, :3], 3)  # nothing to resize: bytes, scaled and shifted
    red = frames[0, 0, 0, 0] / 255.0
    assert same[0, 0, 0, 0].item() == pytest.approx((red - 0.48145466) / 0.26862954, abs=1e-6)
    cut = clip_pixels(frames, 3)  # a margin of 1: half of it, ties to even, is 0
    assert torch.equal(cut, same)
    flat = np.full((1, 8, 8, 3), 100, np.uint8)
    flat[:, ::2] = 101  # without antialiasing the mean of two rows, which VBench does not round
    found = dino_pixels(flat, 4)[0, 0].mul(0.229).add(0.485).mul(255)
    assert found.flatten().tolist() == pytest.approx([100.5] * 16, abs=1e-4)
    edge = np.zeros((1, 8, 8, 3), np.uint8)
    edge[:, :, 4:] = 255  # bicubic interpolation overshoots, and VBench does not clamp
    assert clip_pixels(edge, 6)[0, 0].mul(0.26862954).add(0.48145466).max() > 1.01


def test_what_is_absent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    save_clip(tmp_path / "clip")
    with pytest.raises(CheckpointError, match=r"emb_reader/sa_0_4_vit_l_14_linear\.pth is not"):
        load_dimension("aesthetic quality", {"clip_l": str(tmp_path / "clip")}, "cpu")
    with pytest.raises(CheckpointError, match="no_such"):
        load_dimension("subject consistency", {"dino": str(tmp_path / "no_such")}, "cpu")
    place = save_dino(tmp_path / "dino")
    still, _ = view(tmp_path, frames=1)
    with pytest.raises(VideoError, match="two frames"):
        load_dimension("subject consistency", {"dino": str(place)}, "cpu").of(still)


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    """Before a clip is opened: file, what was got, and what was wanted."""
    clip = tmp_path / "clip"
    wide: Any = save_clip(clip).config.projection_dim
    head = tmp_path / "head.pth"
    places = {"clip_l": str(clip), "aesthetic_head": str(head)}
    for tensors, said in (
        (nn.Linear(wide + 3, 1).state_dict(), rf"'weight' has shape \[1, {wide + 3}\], expected"),
        (nn.Linear(wide, 2).state_dict(), rf"'weight' has shape \[2, {wide}\], expected"),
        ({"weight": torch.tensor(1.0)}, r"missing 'bias'; 'weight' has shape \[\], expected"),
        ({"layers.0.weight": torch.ones(1, wide)}, "missing 'bias', 'weight'; unexpected"),
    ):
        torch.save(tensors, head)
        with pytest.raises(CheckpointError, match=rf"head\.pth .*{said}.* the {wide} features of"):
            load_dimension("aesthetic quality", places, "cpu")
    change(clip / "config.json", "vision_config", image_size=56)
    with pytest.raises(CheckpointError, match=r"position_embedding.weight' has shape"):
        load_dimension("background consistency", {"clip_b": str(clip)}, "cpu")
    change(clip / "config.json", "vision_config", image_size=28, num_attention_heads=7)
    with pytest.raises(CheckpointError, match=r"config.json cannot be used(?s:.*)32"):
        load_dimension("background consistency", {"clip_b": str(clip)}, "cpu")

    dino = save_dino(tmp_path / "dino")
    change(dino / "config.json", intermediate_size=40)
    with pytest.raises(CheckpointError, match=r"dino.*\b32\b.*\b40\b"):
        load_dimension("subject consistency", {"dino": str(dino)}, "cpu")
    change(dino / "config.json", intermediate_size=32, image_size=[32, 64])
    with pytest.raises(CheckpointError, match="dino"):
        load_dimension("subject consistency", {"dino": str(dino)}, "cpu")


def change(file: Path, *section: str, **values: object) -> None:
    """Change settings of a configuration, in a section of it if one is named."""
    found = json.loads(file.read_text())
    (found[section[0]] if section else found).update(values)
    file.write_text(json.dumps(found))


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    place = str(save_dino(tmp_path / "dino"))
    with pytest.raises(ConfigError, match="--device: banana cannot be used here"):
        load_dimension("subject consistency", {"dino": place}, "banana")
