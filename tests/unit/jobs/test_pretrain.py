"""The job that makes the shipped checkpoint, at one step of everything."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import WanPipeline

from jobs.workshop.pretrain import main
from videorl.errors import CheckpointError

ONE_STEP = ["--vae-steps", "1", "--vae-batch", "1", "--clips", "1", "--policy-steps", "1"]


def test_one_step_of_everything_writes_a_checkpoint_and_a_second_run_keeps_it(
    tmp_path: Path,
) -> None:
    out = tmp_path / "tiny"
    command = ["all", "--out", str(out), "--policy-batch", "2", *ONE_STEP]
    assert main(command) == 0
    vae = WanPipeline.from_pretrained(str(out)).vae
    assert list(vae.config["latents_std"]) != [1.0] * 12
    weights = (out / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()
    # Everything is done already: the second run only writes the same checkpoint again.
    assert main(command) == 0
    again = (out / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert again == weights


def test_a_policy_without_a_vae_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="run the vae stage first"):
        main(["policy", "--out", str(tmp_path / "none")])


def test_measuring_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a diffusers checkpoint"):
        main(["measure", "--out", str(tmp_path)])
