"""The published files of Open-Sora 1.2, put together (layouts as in VIDEORL_FIXTURES/open_sora)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.workshop.assemble_open_sora import main
from tests.unit.open_sora.test_open_sora import FOLDER, _arrays, _cases
from videorl.config import PolicyConfig, SamplingConfig
from videorl.embedding import plain
from videorl.errors import CheckpointError
from videorl.open_sora.pipeline import OpenSoraPipeline
from videorl.open_sora.published import assemble, vae_config
from videorl.policies import load_policy
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.settings.model import LoraConfig

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="no open_sora in VIDEORL_FIXTURES")


@pytest.fixture(scope="module")
def texts(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return T5 and its tokenizer beside the image VAE's configuration, as PixArt has them."""
    folder = tmp_path_factory.mktemp("texts")
    for name in ("tokenizer", "text_encoder"):
        shutil.copytree(tiny_checkpoints["open_sora"] / name, folder / name)
    (folder / "vae").mkdir()
    shutil.copy(FOLDER / "vae/spatial_vae_config.json", folder / "vae/config.json")
    return folder


@pytest.fixture(scope="module")
def assembled(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("assembled")
    sources = ["--transformer", FOLDER, "--vae", FOLDER / "vae", "--texts", texts]
    assert main([*map(str, sources), "--out", str(out)]) == 0
    return out


def test_weights_arrive_bit_for_bit_and_prompts_get_the_authors_score(assembled: Path) -> None:
    pipeline: Any = OpenSoraPipeline.from_pretrained(assembled)
    for name, source in (("transformer", FOLDER), ("vae", FOLDER / "vae")):
        wanted, found = load_file(source / "model.safetensors"), getattr(pipeline, name)
        assert found.state_dict().keys() == wanted.keys()
        for key, tensor in found.state_dict().items():
            assert torch.equal(tensor, wanted[key]), key
    assert pipeline.full_text("A Dog") == "a dog aesthetic score: 6.5."


@pytest.mark.parametrize("path", _cases("trajectory.npz"))
def test_the_policy_samples_what_was_published(path: Path, assembled: Path) -> None:
    """From text embeddings, noise and sizes of the case: both halves, their masks, all steps."""
    case = _arrays(path)
    height, width, frames, fps = (
        float(case[name][0]) for name in ("height", "width", "num_frames", "fps")
    )
    sampling = SamplingConfig(
        num_frames=int(frames),
        height=int(height),
        width=int(width),
        fps=fps,
        num_inference_steps=int(case["steps"]),
        guidance_scale=float(case["guidance_scale"]),
        max_sequence_length=case["y"].shape[2],
    )
    config = PolicyConfig(
        family="open_sora", path=str(assembled), dtype="float32", lora=LoraConfig(rank=0)
    )
    policy = load_policy(config, sampling, parts=frozenset({"transformer"}))
    assert isinstance(policy, PipelinePolicy)
    pipeline = policy._pipeline
    masks = case["mask"].bool()
    embeds = [plain(y[0, mask]) for y, mask in zip(case["y"], masks, strict=True)]
    arguments = policy._text(embeds)
    none = policy._text([plain(torch.zeros(1, case["y"].shape[3]))] * len(embeds))
    found = pipeline(
        **arguments,
        **{f"negative_{name}": tensor for name, tensor in none.items()},
        **policy._family.call_options(sampling),
        latents=case["z0"],
        output_type="latent",
        return_dict=False,
    )[0]
    torch.testing.assert_close(found, case["z_final"], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        pipeline.scheduler.timesteps, case["timesteps"][:, 0], atol=1e-3, rtol=0
    )


def test_files_of_other_models_are_refused(texts: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(FOLDER, other, copy_function=shutil.copyfile)
    tensors = load_file(other / "model.safetensors")
    del tensors["rope.freqs"]
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensors are missing.*first: rope\.freqs"):
        assemble(other, FOLDER / "vae", texts, tmp_path / "out")
    config = json.loads((FOLDER / "vae/config.json").read_text())
    with pytest.raises(CheckpointError, match=r"micro_frame_size .* must be 17"):
        vae_config({**config, "micro_frame_size": None}, {})
    with pytest.raises(CheckpointError, match=r"cannot be read"):
        assemble(tmp_path, FOLDER / "vae", texts, tmp_path / "out")
    assert not (tmp_path / "out").exists()
