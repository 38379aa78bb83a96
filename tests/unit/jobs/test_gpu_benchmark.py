"""The benchmark of real sizes: a trial at tiny ones, and what it must not need."""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.bench import gpu, real_configs
from jobs.bench.real_models import Scale, dpo_step, policy
from tests.unit.test_house import ROOT, arrows, modules
from videorl.policies import attention
from videorl.rewards.checkpoints import empty_parameters
from videorl.rewards.vision_reward.cogvlm2_video import CogVLM2Video


def test_a_trial_measures_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--tiny", "--out", str(tmp_path / "gpu.json")]) == 0
    found, printed = json.loads((tmp_path / "gpu.json").read_text()), capsys.readouterr().out
    assert (found["failed"], found["skipped"]) == ({}, [])
    assert len(found["rows"]) == 21
    for row in found["rows"]:
        assert row["seconds"] > 0 and row["teraflops"] > 0 and row["name"] in printed
        share = row["teraflops"] / row["seconds"] / found["matrix_teraflops_per_s"]
        assert row["share"] == pytest.approx(share)
    by_name = {row["name"]: row for row in found["rows"]}
    for family in gpu.FAMILIES.values():
        one, both = (
            next(r for name, r in by_name.items() if name.startswith(family) and how in name)
            for how in ("one video at a time", "both videos")
        )
        assert one["teraflops"] > both["teraflops"], "one more forward of the policy"
    steps = {name.split()[0]: value for name, value in found["seconds_per_video"].items()}
    few = next(r["seconds"] for n, r in by_name.items() if n.startswith("Wan") and "few" in n)
    assert steps["Wan-1.3B"] > few / 3 * 30


def test_half_precision_trains_float32_adapters_on_frozen_weights() -> None:
    scale = Scale(True, torch.device("cpu"), torch.bfloat16)
    made = policy(scale, "wan", trainable=True)
    dtypes = {parameter.dtype for parameter in made.trainable_module().parameters()}
    trained = {p.dtype for p in made.trainable_module().parameters() if p.requires_grad}
    assert (dtypes, trained) == ({torch.bfloat16, torch.float32}, {torch.float32})
    dpo_step(scale, "wan", 1)()


def test_what_no_time_is_left_for_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    scale = Scale(True, torch.device("cpu"), torch.bfloat16)
    found = gpu.measure_all(scale, time.monotonic() - 1)
    assert found["rows"] == [] and len(found["skipped"]) == 21
    assert "no time was left for: Wan-1.3B" in capsys.readouterr().out


def test_what_does_not_fit_is_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> Any:
        raise torch.OutOfMemoryError("Tried to allocate 20 GiB")

    monkeypatch.setattr(gpu, "measurements", lambda _: {"full": full, "fine": lambda: lambda: 0})
    scale = Scale(True, torch.device("cpu"), torch.bfloat16)
    found = gpu.measure_all(scale, time.monotonic() + 60)
    assert found["failed"] == {"full": "OutOfMemoryError: Tried to allocate 20 GiB"}
    assert [row["name"] for row in found["rows"]] == ["fine"]


def test_it_imports_neither_ray_nor_deepspeed_nor_what_needs_them() -> None:
    uses: dict[str, set[str]] = {}
    for arrow in arrows(ROOT):
        if arrow.runs:
            uses.setdefault(arrow.source, set()).add(arrow.target)
    reached, known = set[str](), modules(ROOT)
    waiting = ["jobs.bench.gpu"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += uses.get(name, ())
    assert "videorl.policies.pipeline_policy" in reached
    assert not [name for name in reached if name.startswith("actors")]
    for name in reached & known.keys():
        for node in ast.parse(known[name].read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {n.partition(".")[0] for n in names} & {"ray", "deepspeed"}, name


def test_the_configurations_are_those_of_the_published_models() -> None:
    from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
    from transformers import Idefics2Config, Qwen2VLConfig

    from videorl.rewards.video_reward.network import VideoRewardNetwork
    from videorl.rewards.video_score.network import VideoScoreNetwork

    with torch.device("meta"):
        score = VideoScoreNetwork(Idefics2Config.from_dict(real_configs.VIDEO_SCORE))
        reward = VideoRewardNetwork(Qwen2VLConfig.from_dict(real_configs.VIDEO_REWARD))
        wan = WanTransformer3DModel(**real_configs.WAN["transformer"])
        cogvideox = CogVideoXTransformer3DModel(**real_configs.COGVIDEOX["transformer"])
    with empty_parameters():
        vision = CogVLM2Video(real_configs.VISION_REWARD)

    def size(model: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    assert (size(score), size(vision)) == (8_271_704_309, 12_507_530_496)
    wanted = (2_208_987_136, 1_418_996_800, 1_693_783_872)
    assert (size(reward), size(wan), size(cogvideox)) == wanted


def test_what_only_a_gpu_is_asked_for_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way through `main` on a GPU; the card answers, and what it computes is a stand-in."""
    name = "CogVideoX-2B 49x480x720 DPO, one video at a time"
    asked: list[str] = []

    def noted(call: str, answer: Any = None) -> None:
        monkeypatch.setattr(torch.cuda, call, lambda: asked.append(call) or answer)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    noted("get_device_name", "a card")
    for call in ("empty_cache", "synchronize", "reset_peak_memory_stats"):
        noted(call)
    noted("max_memory_allocated", 8 * gpu.GIB)
    monkeypatch.setattr(gpu, "FAMILIES", {"cogvideox": "CogVideoX-2B"})
    monkeypatch.setattr(gpu, "matrix_rate", lambda device, size: float(size))

    def work() -> None:
        asked.append("work")
        torch.mm(torch.ones(64, 64), torch.ones(64, 64))

    monkeypatch.setattr(gpu, "measurements", lambda scale: {name: lambda: work})
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 0
    assert asked[-8:] == [
        *("get_device_name", "empty_cache", "work", "synchronize", "reset_peak_memory_stats"),
        *("work", "synchronize", "max_memory_allocated"),
    ]
    found, printed = json.loads((tmp_path / "gpu.json").read_text()), capsys.readouterr().out
    assert found["device"] == "a card" and found["matrix_teraflops_per_s"] == 8192
    (row,) = found["rows"]
    assert row["peak_gib"] == 8 and row["teraflops"] == 2 * 64**3 / 1e12
    planned = found["planned_gib"]
    assert 5 < planned[name] < planned["CogVideoX-2B 49x480x720 DPO, both videos"] < 25
    assert f"{name}: {8 / planned[name]:.2f} of the {planned[name]:.1f} GiB of the plan" in printed


def test_kernels_that_are_installed_are_measured_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "installed", lambda: ["flash", "native", "_native_cudnn"])
    found = gpu.measurements(Scale(False, torch.device("cuda"), torch.bfloat16))
    name = "Wan-1.3B 81x480x832"
    assert {
        f"{name}, a few solver steps, compiled",
        f"{name}, a few solver steps, flash",
        f"{name} DPO, both videos, _native_cudnn",
        f"{name}, a few solver steps, merged LoRA",
        f"{name}, a few solver steps, merged, one batch, compiled",
    } <= found.keys()
    assert not [title for title in found if title.endswith(", native")]
    changes = found[f"{name}, a few solver steps, compiled"].args[-1]  # pyright: ignore
    assert changes == {"policy.compile": "inductor"}
