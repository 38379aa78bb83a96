"""Broken checkpoint folders are named before anything is loaded from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.hub_server import Hub, serve
from tests.tiny import tiny_policy, tiny_sampling
from videorl.errors import CheckpointError, ConfigError
from videorl.policies import FAMILIES, load_policy
from videorl.policies.checkpoints import PARTS, SHIPPED, check, locate, weight_files

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoints["wan"], tmp_path / "wan"))


def test_a_whole_folder_passes(folder: Path) -> None:
    assert locate(str(folder), PARTS) == folder
    assert check(folder, "WanPipeline", PARTS)["_class_name"] == "WanPipeline"


def test_a_missing_folder_is_an_error_that_says_what_may_be_given(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no folder.*moving_shapes_wan"):
        locate(str(tmp_path / "nowhere"), PARTS)


def test_the_shipped_checkpoint_is_found_by_its_bare_name(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setitem(SHIPPED, "moving_shapes_wan", folder)
    assert locate("moving_shapes_wan", PARTS) == folder


def test_an_unreachable_hub_id_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"policy\.path: nobody/nothing is neither a"):
        locate("nobody/nothing", PARTS)


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "vae/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
        "text_encoder/model.safetensors",
        WEIGHTS,
    ],
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.").split("/")[-1]) as raised:
        load_policy(tiny_policy(folder), tiny_sampling(), parts=PARTS)
    assert str(folder / name.split("/")[0]) in str(raised.value)


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_file_cut_short_is_named(folder: Path, kept: int) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:kept])
    with pytest.raises(CheckpointError, match=r"transformer/diffusion.*not a whole safetensors"):
        check(folder, "WanPipeline", PARTS)


def test_only_the_parts_asked_for_must_be_there(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")
    (folder / WEIGHTS).unlink()
    policy = load_policy(tiny_policy(folder), tiny_sampling(), parts=frozenset({"vae"}))
    assert len(policy.decode(torch.zeros(1, 12, 3, 4, 4))) == 1


def test_every_shard_of_an_index_must_be_there(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors, folder / "transformer/a.safetensors")
    (folder / WEIGHTS).unlink()
    index = {"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    files = weight_files(folder / "transformer")
    assert [file.name for file in files] == ["a.safetensors", "b.safetensors"]
    with pytest.raises(CheckpointError, match=r"b\.safetensors is missing"):
        check(folder, "WanPipeline", PARTS)


def test_weights_that_leave_a_parameter_at_random_are_refused(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["proj_out.weight"]
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lack 1 tensors.*proj_out\.weight"):
        load_policy(tiny_policy(folder), tiny_sampling(), parts=PARTS)


def test_a_config_of_another_size_is_refused(folder: Path) -> None:
    file = folder / "transformer/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ffn_dim": 77}))
    with pytest.raises(CheckpointError, match="transformer"):
        load_policy(tiny_policy(folder), tiny_sampling(), parts=PARTS)


def test_invalid_json_is_named(folder: Path) -> None:
    (folder / "transformer/config.json").write_text('{"half')
    with pytest.raises(CheckpointError, match=r"transformer/config\.json is not valid JSON"):
        check(folder, "WanPipeline", PARTS)


def test_another_pipeline_class_is_refused(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": "WanImageToVideoPipeline"}')
    with pytest.raises(ConfigError, match="holds a WanImageToVideoPipeline"):
        check(folder, "WanPipeline", PARTS)


def test_an_unknown_family_or_part_is_refused(folder: Path) -> None:
    config = tiny_policy(folder)
    with pytest.raises(ConfigError, match=r"parts must be some of .* got \['head'\]"):
        load_policy(config, tiny_sampling(), parts=frozenset({"head"}))
    config.family = "won"
    with pytest.raises(ConfigError, match=f"{', '.join(FAMILIES)}, or module:attribute, got won"):
        load_policy(config, tiny_sampling(), parts=PARTS)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve(monkeypatch, tmp_path / "cache") as server:
        yield server


def test_only_what_is_needed_comes_from_the_hub(hub: Hub, folder: Path) -> None:
    for name in ("transformer/diffusion_pytorch_model.bin", "transformer/x.fp16.safetensors"):
        (folder / name).write_bytes(b"")
    (folder / "README.md").write_text("")
    old = hub.add_folder("a/wan", folder, "v1")
    shutil.rmtree(folder / "transformer")
    hub.add_folder("a/wan", folder)
    here = locate("a/wan@v1", frozenset({"transformer"}), "WanPipeline")
    assert here.name == old
    check(here, "WanPipeline", frozenset({"transformer"}))
    found = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert found == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        "vae/config.json",
        WEIGHTS,
    }


ORIGINAL_WAN = {"config.json": '{"_class_name": "WanModel"}', "Wan2.1_VAE.pth": "x"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (ORIGINAL_WAN, r"Wan in its original layout.*-Diffusers at the end"),
        ({"hunyuan-video-t2v-720p/transformers/x.pt": "x"}, "HunyuanVideo in its original"),
        ({"ltx-video-2b-v0.9.safetensors": "x"}, "LTX-Video in its.*such as Lightricks/LTX-Video"),
        ({"ltx-2-19b-dev.safetensors": "x"}, "LTX-2 in its original.*such as Lightricks/LTX-2"),
        ({"dit.safetensors": "x", "vae.safetensors": "x"}, "Mochi in.*genmo/mochi-1-preview"),
        (
            {"config.json": '{"model_type": "STDiT3"}', "model.safetensors": "x"},
            r"a part of Open-Sora 1\.2 as it is published.*made of its parts",
        ),
        ({"hunyuan-video-t2v-720p-Q4_K_M.gguf": "x"}, "only as GGUF files.*float32, bfloat16 or"),
        ({"ltx-video_fp8_e4m3fn.safetensors": "x"}, "only as quantised weights"),
        ({"pytorch_lora_weights.safetensors": "x"}, "an adapter.*as policy.lora.initial"),
        ({"notes.txt": "x"}, r"holds notes.txt but no model_index.json"),
        (
            {"model_index.json": '{"_class_name": "AllegroPipeline"}'},
            r"a AllegroPipeline, .*built in are wan \(WanPipeline\), .*extending.md",
        ),
        ({"model_index.json": '{"_class_name": "LTX2Pipeline"}'}, "set policy.family=ltx_2"),
        (
            {"model_index.json": '{"_class_name": "WanPipeline"}', "vae/config.json": "{}"},
            "has no transformer, which a WanPipeline needs; it holds vae: give a whole",
        ),
        (
            {
                "model_index.json": '{"_class_name": "WanPipeline"}',
                "transformer/model-Q8_0.gguf": "x",
                "transformer/config.json": "{}",
                "scheduler/scheduler_config.json": "{}",
                "vae/config.json": "{}",
            },
            "transformer holds its weights only as GGUF files",
        ),
        (
            {
                "model_index.json": '{"_class_name": "WanPipeline"}',
                "scheduler/scheduler_config.json": "{}",
                "vae/config.json": "{}",
                "transformer/config.json": json.dumps(
                    {"quantization_config": {"quant_method": "bitsandbytes"}}
                ),
            },
            "transformer is quantised: .*quantization_config of bitsandbytes.* as it was published",
        ),
        (
            {"model_index.json": '{"_class_name": "CogVideoXPipeline"}'},
            "set policy.family=cogvideox",
        ),
        (
            {
                "model_index.json": json.dumps(
                    {
                        "_class_name": "WanPipeline",
                        "transformer_2": ["diffusers", "WanTransformer3DModel"],
                        "boundary_ratio": 0.875,
                    }
                )
            },
            "two transformers",
        ),
        (
            {
                "model_index.json": '{"_class_name": "WanPipeline"}',
                "transformer/diffusion_pytorch_model.bin": "x",
            },
            r"transformer holds its weights only as pickles .*safe_serialization=True",
        ),
    ],
)
def test_what_cannot_be_aligned_is_refused_before_its_weights_come(
    hub: Hub, tmp_path: Path, files: dict[str, str], said: str
) -> None:
    hub.add("a/b", files)
    for name, text in files.items():
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_text(text)
    parts = frozenset({"transformer"})
    with pytest.raises((CheckpointError, ConfigError), match=f"policy.path: a/b.*{said}") as error:
        locate("a/b", parts, "WanPipeline")
    assert {Path(name).name for name in hub.asked} <= {"config.json", "model_index.json"}
    if "pickles" not in said:
        with pytest.raises((CheckpointError, ConfigError), match=f"local.*{said}"):
            check(tmp_path / "local", "WanPipeline", parts)
    assert "half-written" not in str(error.value)


def test_weights_in_eight_bits_are_refused(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """By the header of a file alone, of which a real hub sends nothing else."""
    whole = load_file(folder / WEIGHTS)
    tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in whole.items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    hub.add_folder("a/small", folder)
    said = "tensors of F8_E4M3, which cannot be aligned: supported are weights in float32"
    with pytest.raises(CheckpointError, match=said):
        locate("a/small", PARTS, "WanPipeline")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    with pytest.raises(CheckpointError, match=said):
        check(folder, "WanPipeline", PARTS)


def test_a_variant_is_read_where_there_is_nothing_else(folder: Path) -> None:
    for part, stem in (("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")):
        file = folder / part / f"{stem}.safetensors"
        file.rename(folder / part / f"{stem}.fp16.safetensors")
    load_policy(tiny_policy(folder), tiny_sampling(), parts=PARTS)  # which wants every parameter
    (folder / "transformer/diffusion_pytorch_model.fp16.safetensors").rename(
        folder / "transformer/other.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"only as other.safetensors, which diffusers does"):
        check(folder, "WanPipeline", PARTS)


def test_pickles_alone_are_named_in_a_folder_too(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "transformer/diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="only as pickles") as raised:
        check(folder, "WanPipeline", PARTS)
    assert "half-written" not in str(raised.value)
