"""Open-Sora 1.2 against what the published code computed (folder open_sora of VIDEORL_FIXTURES).

Every case of the layout that lies there is run. Tolerances are those its README gives.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from videorl.errors import ConfigError
from videorl.open_sora.flow import sample, shifted, step_times, time_ratio
from videorl.open_sora.texts import cleaned, with_scores
from videorl.open_sora.transformer import STDiT3
from videorl.open_sora.vae import OpenSoraVAE, latent_frames

ROOT = Path(__file__).parents[3]
FOLDER = Path(os.environ.get("VIDEORL_FIXTURES", ROOT.parent / "shared/fixtures"), "open_sora")
NETWORK_CONFIG = {
    "depth",
    "hidden_size",
    "num_heads",
    "mlp_ratio",
    "patch_size",
    "in_channels",
    "caption_channels",
    "model_max_length",
    "input_sq_size",
}

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="no open_sora in VIDEORL_FIXTURES")


def _cases(pattern: str) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob(pattern))]


def _arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def network() -> STDiT3:
    config = json.loads((FOLDER / "config.json").read_text())
    made = STDiT3(**{name: config[name] for name in NETWORK_CONFIG})
    made.load_state_dict(load_file(FOLDER / "model.safetensors"))
    return made.eval()


@pytest.fixture(scope="module")
def vae() -> OpenSoraVAE:
    folder = FOLDER / "vae"
    config = json.loads((folder / "config.json").read_text())
    spatial = json.loads((folder / "spatial_vae_config.json").read_text())
    temporal = {
        name: value
        for name, value in config["vae_temporal"].items()
        if name not in {"type", "embed_dim", "latent_embed_dim"}
    }
    spatial = {name: value for name, value in spatial.items() if not name.startswith("_")}
    made = OpenSoraVAE(spatial, temporal, config["shift"], config["scale"])
    made.load_state_dict(load_file(folder / "model.safetensors"))
    return made.eval()


def _predict(network: STDiT3, case: dict[str, Tensor], x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return network(
        x,
        t,
        y[:, 0],
        case.get("mask"),
        fps=case["fps"],
        height=case["height"],
        width=case["width"],
        frame_mask=case.get("x_mask"),
    )[0]


@pytest.mark.parametrize("path", _cases("stdit_*.npz"))
def test_the_network_predicts_what_was_published(path: Path, network: STDiT3) -> None:
    case = _arrays(path)
    with torch.no_grad():
        found = _predict(network, case, case["x"], case["timestep"], case["y"])
    torch.testing.assert_close(found, case["output"], atol=5e-5, rtol=0)


@pytest.mark.parametrize("path", _cases("trajectory*.npz"))
def test_a_whole_sample_is_what_was_published(path: Path, network: STDiT3) -> None:
    case = _arrays(path)
    size = [float(case[name][0]) for name in ("height", "width", "num_frames")]
    times = step_times(int(case["steps"]), time_ratio(size[0], size[1], int(size[2])))
    torch.testing.assert_close(times, case["timesteps"][:, 0], atol=1e-3, rtol=0)
    null = network.y_embedder.y_embedding.expand_as(case["y"])
    frames = case.get("frame_mask")

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        keeping = {} if frames is None else {"x_mask": (frames * 1000 >= t[:, None]).repeat(2, 1)}
        both = _predict(
            network,
            case | keeping,
            z.repeat(2, 1, 1, 1, 1),
            t.repeat(2),
            torch.cat([case["y"], null]),
        )
        with_text, without = both.chunk(2, dim=1)[0].chunk(2)
        return without + float(case["guidance_scale"]) * (with_text - without)

    with torch.no_grad():
        found = sample(velocity, case["z0"], times, frames)
    torch.testing.assert_close(found, case["z_final"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_and_gradients_are_those_published(network: STDiT3, checkpointing: bool) -> None:
    case = _arrays(FOLDER / "training.npz")
    share = case["t"].view(-1, 1, 1, 1, 1) / 1000
    torch.testing.assert_close((1 - share) * case["x0"] + share * case["noise"], case["x_t"])
    if checkpointing:
        network.enable_gradient_checkpointing()
    target = case["x0"] - case["noise"]

    def errors(case: dict[str, Tensor], x_t: Tensor) -> Tensor:
        velocity = _predict(network, case, x_t, case["t"], case["y"]).chunk(2, dim=1)[0]
        return (velocity - target).square()

    loss = errors(case, case["x_t"]).flatten(1).mean(1)
    torch.testing.assert_close(loss, case["loss"], atol=5e-5, rtol=0)
    network.zero_grad()
    loss.mean().backward()
    parameters = dict(network.named_parameters())
    for name, wanted in case.items():
        if name.startswith("grad__"):
            found = parameters[name.removeprefix("grad__")].grad
            assert found is not None
            torch.testing.assert_close(found, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)
    frames = case["frame_mask"]
    mixed = torch.where(frames[:, None, :, None, None], case["x_t"], case["x0"])
    each = errors(case | {"x_mask": frames}, mixed).mean((1, 3, 4))
    masked = (each * frames).sum(1) / frames.sum(1)
    torch.testing.assert_close(masked, case["loss_frame_masked"], atol=5e-5, rtol=0)
    network.disable_gradient_checkpointing()


@pytest.mark.parametrize("path", _cases("timesteps*.npz"))
def test_times_are_those_published(path: Path) -> None:
    for name, wanted in _arrays(path).items():
        _, size, steps, kind = name.split("_")
        height, width, frames = map(int, size.split("x"))
        if kind == "fp32":
            found = step_times(int(steps.removeprefix("steps")), time_ratio(height, width, frames))
            torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize("path", _cases("vae/encode_*.npz"))
def test_videos_are_encoded_as_published(path: Path, vae: OpenSoraVAE) -> None:
    case = _arrays(path)
    with torch.no_grad():
        found = vae.encode(case["video"])
    torch.testing.assert_close(found, case["z"], atol=5e-5, rtol=0)
    assert found.shape[2] == latent_frames(case["video"].shape[2])


@pytest.mark.parametrize("path", _cases("vae/decode_*.npz"))
def test_latents_are_decoded_as_published(path: Path, vae: OpenSoraVAE) -> None:
    case = _arrays(path)
    with torch.no_grad():
        found = vae.decode(case["z"], int(case["num_frames"]))
    torch.testing.assert_close(found, case["video"], atol=5e-5, rtol=0)


def test_texts_are_cleaned_as_published() -> None:
    for case in json.loads((FOLDER / "text.json").read_text()):
        if "with_scores" in case:
            scored = with_scores(case["prompt"], case["aes"], case["flow"], case["camera_motion"])
            assert scored == case["with_scores"]
            assert cleaned(scored) == case["text_to_t5"]


def test_the_published_network_has_1_2_billion_numbers_under_973_names() -> None:
    with torch.device("meta"):
        names = STDiT3().state_dict()
    assert len(names) == 973
    assert sum(value.numel() for value in names.values()) == 1_208_872_772


def test_the_published_vae_has_517_names() -> None:
    spatial = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    }
    with torch.device("meta"):
        names = OpenSoraVAE(spatial, {}).state_dict()
    assert len(names) == 517
    assert sum(value.numel() for value in names.values()) == 393_341_015


def test_lengths_for_which_no_times_are_defined_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least 17.*got 16"):
        time_ratio(240, 426, 16)
    assert shifted(torch.tensor(1000.0), 2.0) == 1000
