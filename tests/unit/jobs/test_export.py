"""`videorl export` finds the adapter of a run, and says why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs import export
from tests.adapters import TARGETS, comfy, matrices, old_diffusers
from tests.tiny import tiny_policy, tiny_sampling
from videorl.errors import CheckpointError, ConfigError, RunFolderError
from videorl.policies import load_policy
from videorl.policies.adapter_files import open_adapter
from videorl.weights import digest


def test_a_run_is_exported_by_its_folder_or_its_adapter(
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = matrices(tiny_checkpoints["wan"])
    file = tmp_path / "first/aligned/pytorch_lora_weights.safetensors"
    file.parent.mkdir(parents=True)
    (tmp_path / "first/config.yaml").write_text("")
    save_file(old_diffusers(made), file)
    monkeypatch.chdir(tmp_path)
    for source, out in {
        "first": "first.comfyui.safetensors",
        "first/aligned": "first.comfyui.safetensors",
        str(file): "pytorch_lora_weights.comfyui.safetensors",
    }.items():
        assert export.main([source, "--format", "comfyui"]) == 0
        assert capsys.readouterr().out == f"{out}: 14 layers, rank 4, alpha 4\n"
        assert load_file(out).keys() == comfy(made).keys()
        Path(out).unlink()
    for _ in range(2):  # an older file is replaced
        assert export.main(["first", "--format", "kohya", "--out", "new/a.safetensors"]) == 0
    assert [path.name for path in Path("new").iterdir()] == ["a.safetensors"]


def test_two_experts_are_two_files_which_are_read_again(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_policy(tiny_checkpoints["wan_2_2"], "wan_2_2")
    config.lora.target_modules = TARGETS
    parts = frozenset({"transformer"})
    policy = load_policy(config, tiny_sampling("wan_2_2"), parts=parts)
    draw = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(one.shape, generator=draw) for name, one in policy.weights().items()
    }
    policy.load_weights(weights)
    policy.export(tmp_path / "aligned")
    for layout in ("comfyui", "kohya", "diffusers"):
        out = tmp_path / layout / "style.safetensors"
        assert export.main([str(tmp_path / "aligned"), "--format", layout, "--out", str(out)]) == 0
        names = [path.name for path in sorted(out.parent.iterdir())]
        assert names == ["style_high_noise.safetensors", "style_low_noise.safetensors"]
        config.lora.initial = str(out.parent)
        again = load_policy(config, tiny_sampling("wan_2_2"), parts=parts)
        assert digest(again.weights()) == digest(policy.weights())
    assert capsys.readouterr().out.count("10 layers, rank 4, alpha 8") == 6
    with pytest.raises(CheckpointError, match=r"two transformers.*policy\.family=wan_2_2"):
        open_adapter(str(tmp_path / "aligned"))


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    for folder in ("stopped", "full/aligned/transformer", "empty/aligned", "folder.safetensors"):
        (tmp_path / folder).mkdir(parents=True)
    for run in ("stopped", "full", "empty"):
        (tmp_path / run / "config.yaml").write_text("")
    for source, error, reason in (
        ("nowhere", ConfigError, "there is no run or adapter .*nowhere: give"),
        ("stopped", RunFolderError, "stopped has no aligned/: runs that align .* at their end"),
        ("stopped/aligned", ConfigError, "there is no run or adapter"),
        ("full", CheckpointError, r"full/aligned holds all weights .*policy.lora.rank=0.*not a"),
        ("empty", CheckpointError, "empty/aligned holds no file"),
    ):
        with pytest.raises(error, match=reason):
            given = [str(tmp_path / source), "--format", "kohya"]
            export.main([*given, "--out", str(tmp_path / "out.safetensors")])
    given = [str(tmp_path / "empty"), "--format", "kohya", "--out"]
    for out, reason in (("a.pt", "end in .safetensors"), ("folder.safetensors", "a folder")):
        with pytest.raises(ConfigError, match=f"--out must .*{reason}"):
            export.main([*given, str(tmp_path / out)])
    with pytest.raises(SystemExit):
        export.main([str(tmp_path), "--format", "ckpt"])
