"""`videorl sample --lora`: what is wrong with an adapter is one line, not a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jobs import command, sample
from jobs.exit_codes import ExitCode
from tests.families.wan_i2v import PICTURE
from tests.tiny import save_tiny_wan
from videorl.errors import ConfigError

A, B = torch.ones(4, 32), torch.ones(32, 4)


def test_an_adapter_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_wan(tmp_path / "wan")
    files = {
        "partial": ({"lora_unet_blocks_0_self_attn_q.lora_down.weight": A}, "lacks its matrix B"),
        "kohya": (
            {
                "lora_unet_blocks_0_self_attn_qkv.lora_down.weight": A,
                "lora_unet_blocks_0_self_attn_qkv.lora_up.weight": B,
            },
            "blocks_0_self_attn_qkv",
        ),
        "dora": ({"diffusion_model.blocks.0.self_attn.q.dora_scale": A}, "DoRA"),
    }
    settings = [f"policy.path={tmp_path / 'wan'}", "sampling.num_frames=5"]
    settings += ["sampling.height=16", "sampling.width=16"]
    for name, (tensors, reason) in files.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        lora = ["--lora", str(tmp_path / f"{name}.safetensors")]
        monkeypatch.setattr("sys.argv", ["sample", "a red circle", *lora, "--set", *settings])
        assert command.run(sample.main) == ExitCode.REFUSED
        said = capsys.readouterr().err
        assert "error: " in said
        assert reason in said
        assert "Traceback" not in said


def test_a_picture_is_given_with_the_text(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"policy.path={tiny_checkpoints['wan_i2v']}", "sampling.num_frames=5"]
    settings += ["sampling.height=16", "sampling.width=16", "sampling.num_inference_steps=2"]
    given = ["a red circle", "--recipe", "wan_2_1_i2v_14b_480p", "--out", str(tmp_path / "out")]
    with pytest.raises(ConfigError, match=r"1 of 1 prompts have no image.*; texts take --image"):
        sample.main([*given, "--set", *settings])
    assert sample.main([*given, "--image", str(PICTURE), "--set", *settings]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out/000-00.mp4'}  a red circle\n"
