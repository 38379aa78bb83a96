"""Bad input of every family is refused: what was found, what is supported, what to do.

Whatever the names and configurations of files tell is refused before weights are read: in these
folders there are none, or they are not touched.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.tiny import TINY, encode, tiny_policy, tiny_sampling
from videorl.data.prompt_rows import PromptRow
from videorl.data.prompts import problem_of_images
from videorl.embedding import Embedding
from videorl.errors import CheckpointError, ConfigError, PromptError
from videorl.planning.models import read_configs
from videorl.planning.shadow import build_shadow
from videorl.policies import FAMILIES, load_family, load_policy, takes_images
from videorl.policies.checkpoints import PARTS, models
from videorl.recipes.reading import RECIPES, load_recipe

LEARNER = frozenset({"transformer"})
EVERY = sorted(FAMILIES)


def index_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "model_index.json").read_text())


def emptied(checkpoint: Path, folder: Path) -> Path:
    """Return a copy of a checkpoint with all but its weights."""
    ignored = shutil.ignore_patterns("*.safetensors")
    return Path(shutil.copytree(checkpoint, folder, ignore=ignored))


def refuse(family: str, folder: Path, **sampling: object) -> None:
    load_policy(tiny_policy(folder, family), tiny_sampling(family, **sampling), parts=PARTS)


@pytest.mark.parametrize("family", EVERY)
def test_a_checkpoint_of_any_other_family(
    family: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    for other in FAMILIES:
        if other == family:
            continue
        folder = emptied(tiny_checkpoints[other], tmp_path / other)
        with pytest.raises(ConfigError, match=rf"set policy\.family={other}$"):
            refuse(family, folder)


@pytest.mark.parametrize("family", EVERY)
def test_a_missing_part(family: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoints[family]
    parts = [path.name for path in checkpoint.iterdir() if path.is_dir()]
    assert {*models(index_of(checkpoint), PARTS)} <= {*parts}
    for number, part in enumerate(parts):
        if part == "vocoder":  # makes sound audible, which LTX-2 learns without hearing
            continue
        folder = Path(shutil.copytree(checkpoint, tmp_path / str(number)))
        shutil.rmtree(folder / part)
        with pytest.raises(CheckpointError, match=rf"{number}(/{part}/| has no {part}, which)"):
            refuse(family, folder)


@pytest.mark.parametrize("family", EVERY)
def test_a_size_or_length_that_the_vae_cannot_hold(
    family: str, tiny_checkpoints: dict[str, Path]
) -> None:
    # Open-Sora's VAE pads, so that any length and any size of a pixel of latents has its latents.
    pixels = 1 if family == "open_sora" else 17
    for name in ("height", "width"):
        with pytest.raises(ConfigError, match=rf"sampling\.{name} .*got .*{pixels}"):
            refuse(family, tiny_checkpoints[family], **{name: pixels})
    if family != "open_sora":
        with pytest.raises(ConfigError, match=r"sampling\.num_frames .*got 4"):
            refuse(family, tiny_checkpoints[family], num_frames=4)


PUBLISHED = {
    (recipe := load_recipe(str(file), [])).policy.family: recipe
    for file in sorted(RECIPES.glob("*.yaml"))
}
"""A shipped recipe of each family."""


@pytest.mark.parametrize("family", [name for name in EVERY if name != "open_sora"])
def test_a_size_of_a_published_model_is_refused_by_its_configuration(family: str) -> None:
    """As plans and the start of a run read it: not a byte of weights has come."""
    recipe = replace(PUBLISHED[family])
    configs = read_configs(recipe.policy.path)
    few = dict.fromkeys(load_family(family).num_blocks(configs.parts["transformer"]), 1)
    for name, value in (("height", 17), ("num_frames", 4)):
        recipe.sampling = replace(PUBLISHED[family].sampling, **{name: value})
        with pytest.raises(ConfigError, match=rf"sampling\.{name} .*got {value}"):
            build_shadow(recipe, configs, LEARNER, dtype=torch.bfloat16, blocks=few)


@pytest.mark.parametrize("family", EVERY)
def test_an_adapter_for_other_modules(
    family: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    matrices = {"lora_A": torch.ones(4, 8), "lora_B": torch.ones(8, 4)}
    for place in ("transformer.rooms.0.attention.to_q", "diffusion_model.double_rooms.0.img_qkv"):
        tensors = {f"{place}.{name}.weight": tensor for name, tensor in matrices.items()}
        save_file(tensors, tmp_path / "adapter.safetensors")
        config = tiny_policy(
            tiny_checkpoints[family], family, initial=str(tmp_path / "adapter.safetensors")
        )
        config.experts = "high" if family == "wan_2_2" else "both"
        with pytest.raises(
            CheckpointError, match=r"policy\.lora\.initial: .*(layer|kind of model)"
        ):
            load_policy(config, tiny_sampling(family), parts=LEARNER)


def small(kind: str) -> Tensor:
    """Return a tensor as files in fewer bits hold it."""
    return torch.zeros(4, 4, dtype={"fp8": torch.float8_e4m3fn, "int4": torch.uint8}[kind])


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("kind", ["fp8", "int4", "quantization_config", "gguf"])
def test_weights_in_fewer_bits(
    family: str, kind: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoints[family]
    for part in models(index_of(checkpoint), PARTS):
        folder = Path(shutil.copytree(checkpoint, tmp_path / part))
        weights = [file for file in (folder / part).iterdir() if file.suffix == ".safetensors"]
        if kind in ("fp8", "int4"):
            save_file({"x": small(kind)}, weights[0])
        elif kind == "gguf":
            for file in weights:
                file.rename(file.with_suffix(".gguf"))
        else:
            config = json.loads((folder / part / "config.json").read_text())
            config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
            (folder / part / "config.json").write_text(json.dumps(config))
        said = r"cannot be aligned: supported are weights in float32, bfloat16 or float16"
        with pytest.raises(CheckpointError, match=rf"{part}.*{said}"):
            refuse(family, folder)


@pytest.mark.parametrize("family", EVERY)
def test_prompts_without_the_image_that_they_need_or_with_one_in_vain(
    family: str, tiny_checkpoints: dict[str, Path]
) -> None:
    picture = TINY["wan_i2v"].image
    given, wrong = ("", picture) if takes_images(family) else (picture, "")
    said = problem_of_images([PromptRow("red", image=given)], family)
    assert said and ("have no image" in said or "have an image" in said) and family in said
    assert problem_of_images([PromptRow("red", image=wrong)], family) is None
    if takes_images(family):
        policy = load_policy(
            tiny_policy(tiny_checkpoints[family], family), tiny_sampling(family), parts=PARTS
        )
        embeds = encode(policy, ["red"])[0]
        text = Embedding({"prompt_embeds": embeds["prompt_embeds"]})
        with pytest.raises(PromptError, match="needs a prompt with an image, got a text alone"):
            policy.sample(text, text, [0])


@pytest.mark.parametrize(
    ("family", "prompt", "said"),
    [
        # Of HunyuanVideo a CLIP reads the prompt too, of 1.5 an encoder of the words in quotes.
        ("hunyuan_video", "a " * 80, r"but the CLIP text encoder reads 77: shorten it"),
        ("hunyuan_video_1_5", f'a "{"x" * 300}"', r"encoder of quoted words reads 16"),
    ],
)
def test_a_text_longer_than_the_second_encoder_takes(
    family: str, prompt: str, said: str, tiny_checkpoints: dict[str, Path]
) -> None:
    config = tiny_policy(tiny_checkpoints[family], family)
    sampling = tiny_sampling(family, max_sequence_length=400)
    policy = load_policy(config, sampling, parts=frozenset({"text_encoder"}))
    with pytest.raises(PromptError, match=said):
        policy.encode([prompt])
