"""Adapters at random: peft's configurations, layers of any trainer, damaged files."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.adapters import (
    ORIGINAL,
    TARGETS,
    WRITERS,
    assert_same_effect,
    everything,
    matrices,
    merged,
    policy,
    read_once,
    save_peft,
)
from videorl.errors import VideorlError
from videorl.policies.adapter_files import open_adapter
from videorl.policies.adapter_layouts import read_layers


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["wan"]


def rarely(*values: Any, usual: Any = False) -> st.SearchStrategy[Any]:
    """Draw mostly `usual`: most of these values are refused, whatever else is drawn."""
    return st.sampled_from([*[usual] * 8, *values])


OWN = st.fixed_dictionaries(
    {},
    optional={
        "r": st.integers(1, 6),
        "lora_alpha": st.integers(1, 40),
        "use_rslora": st.booleans(),
        "use_dora": rarely(True),
        "lora_bias": rarely(True),
        "bias": rarely("all", "lora_only", usual="none"),
        "fan_in_fan_out": st.booleans(),
        "lora_dropout": st.sampled_from([0.0, 0.3]),
        "rank_pattern": st.dictionaries(
            st.sampled_from(["to_q", "attn1.to_k", "blocks.0.ffn.net.2", "^blocks.0.attn2.to_v"]),
            st.integers(1, 6),
        ),
        "alpha_pattern": st.dictionaries(
            st.sampled_from(["to_v", r"attn\d.to_q", "ffn.net.0.proj"]), st.integers(1, 40)
        ),
        "target_modules": st.sampled_from(
            [TARGETS, ["to_q", "to_v"], r".*ffn.*(proj|net\.2)", "all-linear", ["proj_out"]]
        ),
        "exclude_modules": st.sampled_from([None, ["to_k"], r".*attn2.*"]),
        "modules_to_save": rarely(["proj_out"], usual=None),
        "layers_to_transform": st.sampled_from([None, [0]]),
        "init_lora_weights": rarely("gaussian", "orthogonal", "pissa", "olora", usual=True),
    },
)
"""peft's configuration space, as far as it leaves the shape of a network alone."""


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(config=OWN)
def test_any_configuration_of_peft_keeps_its_effect_or_is_refused(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        expected = save_peft(checkpoint, folder / "peft", **config)
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError):
        event("peft itself refuses it")
        return
    tensors = load_file(folder / "peft/adapter_model.safetensors")
    ranks = [tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name]
    try:
        made = policy(
            checkpoint, folder / "peft", rank=max(ranks), alpha=3, target_modules=everything()
        )
    except VideorlError as error:
        odd = ("use_dora", "lora_bias", "modules_to_save")
        changed = config.get("init_lora_weights") in ("pissa", "olora")
        assert any(map(config.get, odd)) or changed or config.get("bias", "none") != "none", error
        event("refused")
        return
    event("loaded")
    assert_same_effect(made, checkpoint, expected, folder / "export")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_layers_ranks_and_alphas_of_any_trainer(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    write = data.draw(st.sampled_from([*WRITERS.values()]))
    old_names = data.draw(st.lists(st.sampled_from([*ORIGINAL]), min_size=1, unique=True))
    made, scales, alphas = {}, {}, {}
    for old in old_names:
        rank = data.draw(st.integers(1, 5))
        made[old] = matrices(checkpoint, rank)[old]
        (down, _) = write({old: made[old]})
        if data.draw(st.booleans()):
            alpha = data.draw(st.floats(0.25, 64, width=16))
            dtype = data.draw(st.sampled_from([torch.float32, torch.float16]))
            shape = data.draw(st.sampled_from([(), (1,)]))
            layer = re.sub(r"\.lora[_.].*", "", down)
            alphas[f"{layer}.alpha"] = torch.full(shape, alpha, dtype=dtype)
            scales[old] = alpha / rank
    save_file(write(made) | alphas, folder / "style.safetensors")
    rank = max(a.shape[0] for a, _ in made.values())
    found = policy(checkpoint, folder, rank=rank, alpha=7, target_modules=everything())
    assert_same_effect(found, checkpoint, merged(checkpoint, made, scales), folder / "export")


HEADERS: list[dict[str, str] | None] = [
    None,
    {"lora_adapter_metadata": '{"transformer.r": 4, "transformer.lora_alpha": 8}'},
    {"lora_adapter_metadata": "[1]"},
    {"lora_adapter_metadata": '{"transformer.r": null}'},
    {"ss_network_alpha": "4"},
]


@cache
def some_matrices(checkpoint: Path) -> dict[str, tuple[Tensor, Tensor]]:
    names = ("blocks.0.self_attn.q", "blocks.0.ffn.2", "head.head")
    return {name: both for name, both in matrices(checkpoint).items() if name in names}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_file_at_random_is_read_or_refused_but_never_a_traceback(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "style.safetensors"
    write = data.draw(st.sampled_from([*WRITERS.values()]))
    tensors: dict[str, Tensor] = write(some_matrices(checkpoint))
    for _ in range(data.draw(st.integers(0, 3))):
        name = data.draw(st.sampled_from(sorted(tensors)))
        tensor, words = tensors.pop(name), name.split(".")
        match data.draw(st.sampled_from(["drop", "word", "shape", "type", "prefix"])):
            case "word":
                place = data.draw(st.integers(0, len(words) - 1))
                words[place] = data.draw(st.text("ab0._", max_size=4))
                tensors[".".join(words)] = tensor
            case "shape":
                shape = data.draw(st.lists(st.integers(0, 5), max_size=3))
                tensors[name] = torch.ones(shape)
            case "type":
                types = [torch.int8, torch.bool, torch.float8_e4m3fn, torch.complex64]
                tensors[name] = tensor.to(data.draw(st.sampled_from(types)))
            case "prefix":
                tensors[f"transformer.{name}"] = tensor
            case _:
                pass
        if not tensors:
            break
    save_file(tensors, path, data.draw(st.sampled_from(HEADERS)))
    if data.draw(st.booleans()):
        content = path.read_bytes()
        place = data.draw(st.integers(0, len(content) - 1))
        cut = data.draw(st.booleans())
        path.write_bytes(
            content[:place] if cut else content[:place] + b"\xff" + content[place + 1 :]
        )
    layers = [name for name, _ in read_once(checkpoint).named_modules()]
    rename: Any = WanPipeline.lora_state_dict
    try:
        found = read_layers(open_adapter(str(path)), layers, rename)
    except VideorlError:
        return
    assert set(found) <= set(layers)
