"""Trained adapters keep their effect in the policy and in its export, or are refused.

What is right is computed by peft's and diffusers' own models, never by ours.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tiny import tiny_policy, tiny_sampling
from videorl.errors import CheckpointError, ConfigError, VideorlError
from videorl.policies import load_policy
from videorl.policies.pipeline_policy import PipelinePolicy

LEARNER = frozenset({"transformer"})
RANK = 4
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
ORIGINAL = {
    **{f"blocks.0.self_attn.{old}": f"blocks.0.attn1.{new}" for old, new in ATTENTION.items()},
    **{f"blocks.0.cross_attn.{old}": f"blocks.0.attn2.{new}" for old, new in ATTENTION.items()},
    "blocks.0.ffn.0": "blocks.0.ffn.net.0.proj",
    "blocks.0.ffn.2": "blocks.0.ffn.net.2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
}
"""Names of Wan's own code -> those of diffusers, written down by hand."""


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["wan"]


@cache
def read_once(checkpoint: Path) -> WanTransformer3DModel:
    return WanTransformer3DModel.from_pretrained(checkpoint / "transformer").eval()


def stock(checkpoint: Path) -> WanTransformer3DModel:
    return copy.deepcopy(read_once(checkpoint))


def inputs() -> dict[str, Any]:
    draw = torch.Generator().manual_seed(3)
    return {
        "hidden_states": torch.randn(2, 12, 3, 4, 4, generator=draw),
        "encoder_hidden_states": torch.randn(2, 16, 16, generator=draw),
        "timestep": torch.tensor([200.0, 700.0]),
    }


@torch.no_grad()
def predicted(model: Any) -> Tensor:
    return model(**inputs(), return_dict=False)[0]


def policy(checkpoint: Path, source: Path | str, **lora: Any) -> PipelinePolicy:
    config = tiny_policy(checkpoint, rank=RANK, initial=str(source))
    config.lora.target_modules = TARGETS
    for name, value in lora.items():
        setattr(config.lora, name, value)
    made = load_policy(config, tiny_sampling(), parts=LEARNER, trainable=True)
    assert isinstance(made, PipelinePolicy)
    return made


def assert_same_effect(
    made: PipelinePolicy, checkpoint: Path, expected: Tensor, folder: Path
) -> None:
    """The policy, its reference, and stock diffusers with its export predict `expected`."""
    given = inputs()
    for role in ("policy", "reference"):
        found = made.predict(
            given["hidden_states"],
            given["timestep"] / 1000,
            list(given["encoder_hidden_states"]),
            role,
        )
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    made.export(folder)
    pipeline: Any = WanPipeline(None, None, None, None, stock(checkpoint))  # pyright: ignore
    pipeline.load_lora_weights(str(folder))
    torch.testing.assert_close(predicted(pipeline.transformer), expected, atol=2e-5, rtol=1e-4)


def randomised(model: Any, seed: int = 5) -> Any:
    """Give every trained tensor of a peft model a value."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter += torch.randn(parameter.shape, generator=draw) * 0.2
    return model


def save_peft(checkpoint: Path, folder: Path, **config: Any) -> Tensor:
    """Write an adapter with peft; return what peft predicts once it has opened it."""
    config = {"r": RANK, "lora_alpha": 8, "target_modules": TARGETS, **config}
    randomised(peft.get_peft_model(stock(checkpoint), peft.LoraConfig(**config))).save_pretrained(
        folder
    )
    return predicted(peft.PeftModel.from_pretrained(stock(checkpoint), str(folder)))


PLAIN: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "alpha above the recipe's": {"lora_alpha": 64},
    "alpha no whole number": {"lora_alpha": 0.5},
    "ranks by layer": {"rank_pattern": {"to_q": 2, "blocks.0.attn2.to_k": 1}},
    "alphas by layer": {"alpha_pattern": {"attn1.to_q": 1, "ffn.*": 32}},
    "patterns and rslora": {
        "rank_pattern": {"to_v": 1},
        "alpha_pattern": {"to_v": 3},
        "use_rslora": True,
    },
    "few layers": {"target_modules": ["to_q"]},
    "all but some": {"target_modules": TARGETS, "exclude_modules": ["blocks.0.attn2.to_q"]},
    "a regular expression": {"target_modules": r".*attn1\.to_[qk]"},
    "some blocks": {"layers_to_transform": [0], "layers_pattern": "blocks"},
    "dropout": {"lora_dropout": 0.5},
    "fan in, fan out": {"fan_in_fan_out": True},
    "drawn as a gaussian": {"init_lora_weights": "gaussian"},
    "biases that were not trained": {"lora_bias": False, "bias": "none"},
}
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, "DoRA"),
    "lora_bias": ({"lora_bias": True}, "trained biases"),
    "modules_to_save": ({"modules_to_save": ["proj_out"]}, "whole layers"),
    "pissa": ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
    "olora": ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
}


@pytest.mark.parametrize("config", PLAIN.values(), ids=PLAIN)
def test_a_peft_folder_keeps_its_effect(
    checkpoint: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    expected = save_peft(checkpoint, tmp_path / "peft", **config)
    assert (expected - predicted(stock(checkpoint))).abs().max() > 1e-3
    made = policy(checkpoint, tmp_path / "peft")
    assert_same_effect(made, checkpoint, expected, tmp_path / "export")


@pytest.mark.parametrize(("config", "reason"), OTHERS.values(), ids=OTHERS)
def test_what_is_not_plain_lora_is_refused(
    checkpoint: Path, tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    save_peft(checkpoint, tmp_path / "peft", **config)
    with pytest.raises(CheckpointError, match=reason):
        policy(checkpoint, tmp_path / "peft")


def test_an_adapter_that_diffusers_wrote_with_rslora_keeps_its_effect(
    checkpoint: Path, tmp_path: Path
) -> None:
    model = stock(checkpoint)
    config = peft.LoraConfig(r=RANK, lora_alpha=8, target_modules=TARGETS, use_rslora=True)
    model.add_adapter(config, "style")
    randomised(model)
    names = {"use_rslora": True, "r": RANK, "lora_alpha": 8, "target_modules": TARGETS}
    layers: dict[str, Any] = peft.get_peft_model_state_dict(model, adapter_name="style")
    WanPipeline.save_lora_weights(
        tmp_path / "style",
        transformer_lora_layers=layers,
        transformer_lora_adapter_metadata=names,
    )
    made = policy(checkpoint, tmp_path / "style")
    assert_same_effect(made, checkpoint, predicted(model), tmp_path / "export")


OWN = st.fixed_dictionaries(
    {},
    optional={
        "r": st.integers(1, 6),
        "lora_alpha": st.integers(1, 40),
        "use_rslora": st.booleans(),
        "use_dora": st.booleans(),
        "lora_bias": st.booleans(),
        "bias": st.sampled_from(["none", "all", "lora_only"]),
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
        "modules_to_save": st.sampled_from([None, None, ["proj_out"]]),
        "layers_to_transform": st.sampled_from([None, [0]]),
        "init_lora_weights": st.sampled_from([True, "gaussian", "pissa", "olora", "orthogonal"]),
    },
)
"""peft's configuration space, as far as it leaves the shape of a network alone."""


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(config=OWN)
def test_any_configuration_of_peft_keeps_its_effect_or_is_refused(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        expected = save_peft(checkpoint, folder / "peft", **config)
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError):
        return  # a configuration that peft itself refuses
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
        return
    assert_same_effect(made, checkpoint, expected, folder / "export")


def everything() -> list[str]:
    linear = ["time_embedder.linear_1", "time_embedder.linear_2", "time_proj", "proj_out"]
    return [*TARGETS, *linear, "text_embedder.linear_1", "text_embedder.linear_2"]


def matrices(checkpoint: Path, rank: int = RANK) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A and B for every layer of `ORIGINAL`, by original name."""
    draw, modules = torch.Generator().manual_seed(7), dict(stock(checkpoint).named_modules())
    made = {}
    for old, new in ORIGINAL.items():
        outputs, inputs = modules[new].weight.shape
        made[old] = tuple(
            torch.randn(shape, generator=draw) * 0.2 for shape in ((rank, inputs), (outputs, rank))
        )
    return made


def merged(
    checkpoint: Path, layers: Mapping[str, tuple[Tensor, Tensor]], scales: Mapping[str, float]
) -> Tensor:
    """Return what the model predicts once the adapters are added to its weights."""
    model = stock(checkpoint)
    modules = dict(model.named_modules())
    with torch.no_grad():
        for old, (a, b) in layers.items():
            modules[ORIGINAL[old]].weight += scales.get(old, 1.0) * b @ a
    return predicted(model)


Write = Callable[[Mapping[str, tuple[Tensor, Tensor]]], dict[str, Tensor]]


def comfy(layers: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return named(layers, lambda old: f"diffusion_model.{old}", "lora_A.weight", "lora_B.weight")


def kohya(layers: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    def flat(old: str) -> str:
        return f"lora_unet_{old.replace('.', '_')}"

    return named(layers, flat, "lora_down.weight", "lora_up.weight")


def diffsynth(layers: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return named(layers, str, "lora_A.default.weight", "lora_B.default.weight")


def old_diffusers(layers: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    def new(old: str) -> str:
        return f"transformer.{ORIGINAL[old]}"

    return named(layers, new, "lora.down.weight", "lora.up.weight")


def named(
    layers: Mapping[str, tuple[Tensor, Tensor]], name: Callable[[str], str], down: str, up: str
) -> dict[str, Tensor]:
    return {
        f"{name(old)}.{part}": tensor.contiguous()
        for old, both in layers.items()
        for part, tensor in zip((down, up), both, strict=True)
    }


WRITERS: dict[str, Write] = {
    "comfy": comfy,
    "kohya": kohya,
    "diffsynth": diffsynth,
    "old diffusers": old_diffusers,
}
SOME = {
    "all": list(ORIGINAL),
    "attention": [old for old in ORIGINAL if "attn" in old],
    "one matrix": ["blocks.0.cross_attn.k"],
    "no block": ["time_embedding.0", "head.head"],
}


@pytest.mark.parametrize("layers", SOME.values(), ids=SOME)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_other_trainers_names_with_any_of_the_layers(
    checkpoint: Path, tmp_path: Path, write: Write, layers: list[str]
) -> None:
    made = {old: both for old, both in matrices(checkpoint).items() if old in layers}
    save_file(write(made), tmp_path / "style.safetensors")
    expected = merged(checkpoint, made, {})
    found = policy(checkpoint, tmp_path / "style.safetensors", target_modules=everything())
    assert_same_effect(found, checkpoint, expected, tmp_path / "export")


@pytest.mark.parametrize("write", [comfy, kohya], ids=["comfy", "kohya"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_alpha_tensors_are_the_scale(
    checkpoint: Path, tmp_path: Path, write: Write, dtype: torch.dtype
) -> None:
    made = {old: both for old, both in matrices(checkpoint).items() if "cross" not in old}
    tensors, scales = write(made), {}
    for alpha, (old, name) in enumerate(zip(made, list(tensors)[::2], strict=True), start=1):
        layer = re.sub(r"\.lora_.*", "", name)
        tensors[f"{layer}.alpha"] = torch.tensor(float(alpha), dtype=dtype)
        scales[old] = alpha / RANK
    save_file(tensors, tmp_path / "style.safetensors")
    expected = merged(checkpoint, made, scales)
    found = policy(checkpoint, tmp_path, target_modules=everything())
    assert_same_effect(found, checkpoint, expected, tmp_path / "export")


def test_a_trainer_s_file_with_peft_s_configuration_beside_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    made = matrices(checkpoint)
    save_file(comfy(made), tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 12}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    expected = merged(checkpoint, made, dict.fromkeys(made, 3.0))
    found = policy(checkpoint, tmp_path, target_modules=everything())
    assert_same_effect(found, checkpoint, expected, tmp_path / "export")


def test_zero_differences_of_norms_are_no_reason_to_refuse(
    checkpoint: Path, tmp_path: Path
) -> None:
    made = matrices(checkpoint)
    zeros = {"diffusion_model.blocks.0.norm3.diff_b": torch.zeros(32)}
    save_file(comfy(made) | zeros, tmp_path / "a.safetensors")
    found = policy(checkpoint, tmp_path, target_modules=everything())
    assert_same_effect(found, checkpoint, merged(checkpoint, made, {}), tmp_path / "export")


Q = "diffusion_model.blocks.0.self_attn.q"
SPOILED: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "no up": ({f"{Q}.lora_B.weight": None}, r"blocks.0.self_attn.q lacks its matrix B \(up\)"),
    "alpha alone": ({f"{Q}x.alpha": torch.ones(())}, "lacks its matrix A .down. and B .up."),
    "nan": ({f"{Q}.lora_A.weight": torch.full((4, 32), torch.nan)}, "holds NaN"),
    "whole numbers": ({f"{Q}.lora_A.weight": torch.ones(4, 32, dtype=torch.int8)}, "torch.int8"),
    "ranks": ({f"{Q}.lora_A.weight": torch.ones(3, 32)}, "no matrices of one rank"),
    "alpha 0": ({f"{Q}.alpha": torch.zeros(())}, "alpha must be one number > 0"),
    "alphas": ({f"{Q}.alpha": torch.ones(2)}, "alpha must be one number > 0"),
    "dora": ({f"{Q}.dora_scale": torch.ones(32)}, "it holds DoRA"),
    "lokr": ({f"{Q}.lokr_w1": torch.ones(2, 2)}, "it holds LoKr"),
    "loha": ({f"{Q}.hada_w1_a": torch.ones(2, 2)}, "it holds LoHa"),
    "norm": ({"diffusion_model.blocks.0.norm3.diff": torch.ones(32)}, "differences of whole"),
    "bias": ({f"{Q}.diff_b": torch.ones(32)}, "differences of whole weights"),
    "text": ({"text_encoder.q_proj.weight": torch.ones(2, 2)}, "adapter of the text encoder"),
    "second expert": (
        {
            "transformer_2.blocks.0.attn1.to_q.lora_A.weight": torch.ones(4, 32),
            "transformer_2.blocks.0.attn1.to_q.lora_B.weight": torch.ones(32, 4),
        },
        "transformer_2.blocks.0.attn1.to_q",
    ),
    "another model": (
        {
            "diffusion_model.double_blocks.3.img_attn.qkv.lora_A.weight": torch.ones(4, 32),
            "diffusion_model.double_blocks.3.img_attn.qkv.lora_B.weight": torch.ones(32, 4),
        },
        "double_blocks.3.img_attn.qkv",
    ),
    "more blocks": (
        {
            "diffusion_model.blocks.7.ffn.0.lora_A.weight": torch.ones(4, 32),
            "diffusion_model.blocks.7.ffn.0.lora_B.weight": torch.ones(32, 4),
        },
        "1 of its 15 layers are not in this transformer.*blocks.7.ffn.0",
    ),
    "two adapters": (
        {
            "diffusion_model.blocks.0.ffn.2.lora_A.default.weight": torch.ones(4, 32),
            "diffusion_model.blocks.0.ffn.2.lora_B.default.weight": torch.ones(32, 4),
        },
        "second adapter of this layer",
    ),
    "wider": (
        {f"{Q}.lora_A.weight": torch.ones(4, 48)},
        r"lora_A of blocks.0.attn1.to_q .* is \[4, 48\], this model needs \[4, 32\]",
    ),
}


@pytest.mark.parametrize(("changes", "reason"), SPOILED.values(), ids=SPOILED)
def test_a_spoiled_file_is_refused_for_its_true_reason(
    checkpoint: Path, tmp_path: Path, changes: dict[str, Tensor | None], reason: str
) -> None:
    tensors = {**comfy(matrices(checkpoint)), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=reason) as caught:
        policy(checkpoint, tmp_path, target_modules=everything())
    assert "policy.lora.initial" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"r": 4}', "lora_alpha in its configuration must be > 0, got None"),
        ('{"r": "4", "lora_alpha": 8}', "r in its configuration must be > 0, got '4'"),
        ('{"r": 8, "lora_alpha": 8}', "matrices have rank 4, its configuration says 8"),
        ('{"r": 4, "lora_alpha": 8, "peft_type": "LOHA"}', "peft_type=LOHA"),
        ('{"r": 4, "lora_alpha": 8, "use_new_trick": true}', "use_new_trick=True"),
        ('{"r": 4, "lora_alpha": 8, "rank_pattern": {"(": 2}}', "a pattern .* is broken"),
        ('{"r": 4, "lora_alpha": 8, "alpha_pattern": 3}', "alpha_pattern must be a table"),
        (None, "no adapter_config.json beside it"),
    ],
)
def test_a_damaged_configuration_is_refused(
    checkpoint: Path, tmp_path: Path, content: str | None, reason: str
) -> None:
    save_peft(checkpoint, tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=reason):
        policy(checkpoint, tmp_path)


def test_what_is_no_adapter_says_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("run/aligned", "full/transformer", "pickles", "empty", "several"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pickles/pytorch_lora_weights.bin").write_bytes(b"x")
    for name in ("first", "second"):
        save_file({"x": torch.ones(1)}, tmp_path / f"several/{name}.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0")
    for source, reason in {
        "run": r"give .*run/aligned",
        "full": "whole transformer",
        "pickles": "only pickles",
        "empty": "no file",
        "several": "2 adapters, first.safetensors, second.safetensors: give the file",
        "cut.safetensors": "not a whole safetensors file",
        "pickles/pytorch_lora_weights.bin": "is a pickle",
        "nowhere": "there is no file or folder",
    }.items():
        with pytest.raises(CheckpointError, match=reason):
            policy(checkpoint, tmp_path / source)


def test_a_layer_outside_of_the_targets_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    save_file(comfy(matrices(checkpoint)), tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=r"target_modules, first: .*; give the target_modules"):
        policy(checkpoint, tmp_path)


def test_hub_ids_without_a_network(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--style"
    (repository / "refs").mkdir(parents=True)
    commit = "0" * 40
    (repository / "refs/main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    made = matrices(checkpoint)
    save_file(comfy(made), snapshot / "own_name.safetensors")
    expected = merged(checkpoint, made, {})
    for source in ("someone/style", "someone/style/own_name.safetensors"):
        found = policy(checkpoint, source, target_modules=everything())
        assert_same_effect(found, checkpoint, expected, tmp_path / "export")
    for source in ("someone/other", "someone/style/absent.safetensors"):
        with pytest.raises(CheckpointError, match=r"readable hub id .*HF_HUB_OFFLINE"):
            policy(checkpoint, source)
    save_file(comfy(made), snapshot / "second.safetensors")
    with pytest.raises(CheckpointError, match=r"2 safetensors files .*own_name.*name one"):
        policy(checkpoint, "someone/style")


def test_an_export_that_means_something_else_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_peft(checkpoint, tmp_path / "peft")
    made = policy(checkpoint, tmp_path / "peft")
    plain = WanPipeline.save_lora_weights

    def weaker(*args: Any, transformer_lora_adapter_metadata: dict[str, Any], **named: Any) -> None:
        changed = {**transformer_lora_adapter_metadata, "lora_alpha": 4}
        plain(*args, transformer_lora_adapter_metadata=changed, **named)

    monkeypatch.setattr(WanPipeline, "save_lora_weights", weaker)
    with pytest.raises(CheckpointError, match="stock diffusers computes other videos"):
        made.export(tmp_path / "export")
    assert list((tmp_path / "export").iterdir()) == []
    live = made.trainable_module()
    assert isinstance(live, WanTransformer3DModel)
    assert set(live.peft_config) == {"policy", "reference"}
    monkeypatch.undo()
    made.export(tmp_path / "export")
    assert [path.name for path in (tmp_path / "export").iterdir()] == [
        "pytorch_lora_weights.safetensors"
    ]
