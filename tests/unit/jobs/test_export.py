"""`videorl export` finds the adapter of a run, and says why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from jobs import export
from tests.adapters import comfy, matrices, old_diffusers
from videorl.errors import CheckpointError, ConfigError, RunFolderError


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
