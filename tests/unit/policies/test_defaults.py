"""What a recipe leaves out is as published for its model; tiny checkpoints keep plain defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from videorl.config import Recipe
from videorl.policies.defaults import FamilyDefaults
from videorl.policies.wan import Wan
from videorl.recipes.explained import Kind, explained
from videorl.recipes.fingerprint import differences
from videorl.recipes.reading import load_recipe, to_yaml
from videorl.settings.model import LoraConfig, SamplingConfig

A14B = "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
WAN, TI2V = "Wan-AI/Wan2.1-T2V-14B-Diffusers", "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
COGVIDEOX, COGVIDEOX_15 = "THUDM/CogVideoX-5b", "THUDM/CogVideoX1.5-5B"


def starter(path: str | Path, *overrides: str, **sections: Any) -> Recipe:
    """Return a recipe that says what no family can know, and what is given."""
    policy = {"path": str(path), **sections.pop("policy", {})}
    if "ogvideox" in str(path).lower():
        policy["family"] = "cogvideox"
    base = {
        "name": "starter",
        "prompts": {"source": "moving_shapes"},
        "rewards": [{"name": "moving_shapes"}],
    }
    return load_recipe({**base, "policy": policy, **sections}, overrides)


def size(recipe: Recipe) -> tuple[float, ...]:
    sampling = recipe.sampling
    return sampling.num_frames, sampling.height, sampling.width, sampling.fps


def local(folder: Path, *, num_bytes: int, **files: object) -> Path:
    """Write the JSON files of a checkpoint, and a transformer of so many zeros."""
    (folder / "transformer").mkdir(parents=True)
    with (folder / "transformer/model.safetensors").open("wb") as file:
        file.truncate(num_bytes)
    for name, content in files.items():
        (folder / f"{name.replace('__', '/')}.json").write_text(json.dumps(content))
    return folder


def test_sizes_are_the_published_ones() -> None:
    assert size(starter(WAN)) == (81, 480, 832, 16)
    assert size(starter(TI2V)) == (121, 704, 1280, 24)
    assert size(starter(COGVIDEOX)) == (49, 480, 720, 8)
    assert size(starter(COGVIDEOX_15)) == (81, 768, 1360, 16)


def test_only_the_model_published_in_float16_samples_in_it(tmp_path: Path) -> None:
    assert starter("THUDM/CogVideoX-2b").sampling.half_precision == "float16"
    chosen = starter("THUDM/CogVideoX-2b", "sampling.half_precision=bfloat16")
    assert chosen.sampling.half_precision == "bfloat16"
    for name in (WAN, COGVIDEOX, COGVIDEOX_15):
        assert starter(name).sampling.half_precision == "bfloat16", name
    positions = {"use_rotary_positional_embeddings": False}
    folder = local(tmp_path / "cogvideox", num_bytes=2 * 10**9, transformer__config=positions)
    assert starter(folder).sampling.half_precision == "float16"


def test_guidance_and_layers_are_the_family_s() -> None:
    wan, cogvideox = starter(WAN), starter(COGVIDEOX)
    assert wan.sampling.negative_prompt.startswith("色调艳丽\N{FULLWIDTH COMMA}过曝")
    assert wan.policy.lora == LoraConfig()
    assert (cogvideox.sampling.guidance_scale, cogvideox.sampling.negative_prompt) == (6.0, "")
    assert cogvideox.sampling.max_sequence_length == 226
    shipped = load_recipe("cogvideox_2b")
    assert cogvideox.policy.lora.target_modules == shipped.policy.lora.target_modules


@pytest.mark.parametrize(
    ("path", "overrides", "shift"),
    [
        (WAN, (), 3.0),
        (WAN, ("sampling.height=720", "sampling.width=1280"), 5.0),
        (WAN, ("sampling.height=1280", "sampling.width=720"), 5.0),
        (WAN, ("sampling.height=240", "sampling.width=416"), None),
        (WAN, ("sampling.flow_shift=8",), 8.0),
        (WAN, ("sampling.flow_shift=null",), None),
        (TI2V, (), None),
        (TI2V, ("sampling.height=480", "sampling.width=832"), None),
        (COGVIDEOX, (), None),
    ],
)
def test_the_shift_of_wan_21_follows_the_size(
    path: str, overrides: tuple[str, ...], shift: float | None
) -> None:
    assert starter(path, *overrides).sampling.flow_shift == shift


def test_two_transformers_have_a_guidance_each() -> None:
    family = {"family": "wan_2_2"}
    sampling = starter(A14B, policy=family).sampling
    assert (sampling.guidance_scale, sampling.guidance_scale_2) == (4.0, 3.0)
    assert (sampling.num_inference_steps, sampling.flow_shift) == (40, 12.0)
    assert size(starter(A14B, policy=family)) == (81, 720, 1280, 16)
    stated = starter(A14B, "sampling.guidance_scale=1", policy=family).sampling
    assert stated.guidance_scale_2 is None, "whoever states the first, states both"


def test_what_a_recipe_says_is_kept() -> None:
    made = starter(
        COGVIDEOX,
        "policy.lora.target_modules=[to_q]",
        "sampling={fps: 4}",
        sampling={"num_frames": 17, "negative_prompt": "blurry"},
    )
    assert made.policy.lora.target_modules == ["to_q"]
    assert size(made) == (17, 480, 720, 4)
    assert starter(WAN, "sampling.negative_prompt=").sampling.negative_prompt == ""


def test_a_local_folder_is_known_by_its_files(tmp_path: Path) -> None:
    large = 10**9
    ti2v = local(tmp_path / "a", num_bytes=large, model_index={"expand_timesteps": True})
    assert size(starter(ti2v)) == (121, 704, 1280, 24)
    made = starter(
        local(
            tmp_path / "cogvideox",
            num_bytes=large,
            model_index={"scheduler": ["diffusers", "CogVideoXDPMScheduler"]},
            transformer__config={"patch_size_t": 2},
        )
    )
    assert size(made) == (81, 768, 1360, 16)
    assert made.sampling.dynamic_guidance
    assert not starter(COGVIDEOX).sampling.dynamic_guidance


def test_small_checkpoints_keep_the_plain_defaults(tmp_path: Path) -> None:
    small = local(tmp_path / "cogvideox", num_bytes=10**9 - 1)
    for path in ("moving_shapes_wan", small):
        made = starter(path)
        assert made.sampling == SamplingConfig()
        assert made.policy.lora == LoraConfig()


def test_a_family_of_the_user_s_own_may_have_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"family": "videorl.policies.wan:Wan"}
    assert starter(WAN, policy=own).sampling == SamplingConfig()
    given = FamilyDefaults({"sampling.fps": 30.0})
    monkeypatch.setattr(Wan, "defaults", given, raising=False)
    assert starter(WAN, policy=own).sampling == SamplingConfig(fps=30.0)


def test_recipes_of_older_run_folders_get_nothing() -> None:
    written = yaml.safe_load(to_yaml(starter(WAN, "sampling.negative_prompt=")))
    for key in ("flow_shift", "dynamic_guidance", "long_prompts"):
        del written["sampling"][key]
    made = load_recipe(written)
    assert (made.sampling.flow_shift, made.sampling.negative_prompt) == (None, "")
    # Who goes on with such a run from the recipe it was started with, is told.
    changed = differences(yaml.safe_dump(written), to_yaml(starter(WAN)), Recipe)
    assert [text.split(":")[0] for text in changed] == [
        "sampling.flow_shift",
        "sampling.negative_prompt",
    ]


def test_a_printed_recipe_says_what_is_the_family_s(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        f"name: own\npolicy: {{family: cogvideox, path: {COGVIDEOX}}}\nsampling: {{height: 96}}\n"
        "prompts: {source: moving_shapes}\nrewards: [{name: moving_shapes}]\n"
    )
    lines = explained(Kind(Recipe, load_recipe), path, ["sampling.fps=4"]).splitlines()
    found = {line.split(":")[0].strip(): line.partition("  # ")[2] for line in lines}
    assert found["width"] == "family cogvideox"
    assert found["height"] == str(path)
    assert found["fps"] == "override"
    assert found["batch_size"] == "default"
    assert "    - ff.net.0.proj".ljust(56) + "  # family cogvideox" in lines
