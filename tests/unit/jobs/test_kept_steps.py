"""Weights of a step whose checkpoint is kept: `videorl export --step`, `videorl sample --step`."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from jobs import export, sample
from tests.unit.evaluation.test_during import go, make
from videorl.errors import CheckpointError, ConfigError
from videorl.evaluation.readings import best, read_readings
from videorl.run.checkpoints import CheckpointFolder


def test_the_best_checkpoint_stays_and_any_that_is_kept_can_be_exported_and_sampled(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    whole = go(make(tiny_checkpoints, tmp_path / "run"))
    top = best(read_readings(whole.root)).step
    kept = CheckpointFolder(whole.root / "checkpoints", keep=2).steps()
    assert kept == sorted({top, 4, 6} - {0})
    run = str(whole.root)
    for step in kept:
        assert export.main([run, "--step", str(step), "--out", str(tmp_path / str(step))]) == 0
    name = "pytorch_lora_weights.safetensors"
    aligned, last, other = (
        load_file(folder / name) for folder in (whole.export, tmp_path / "6", tmp_path / "4")
    )
    assert aligned.keys() == last.keys() == other.keys()
    assert all(aligned[key].equal(last[key]) for key in aligned)
    assert not all(aligned[key].equal(other[key]) for key in aligned)
    out = tmp_path / "style.safetensors"
    command = [run, "--step", "4", "--format", "comfyui", "--out", str(out)]
    assert export.main(command) == 0
    assert out.is_file()
    for step, folder in (("4", "of_4"), ("6", "of_6"), ("6", "again")):
        given = ["a red circle", "--run", run, "--step", step, "--out", str(tmp_path / folder)]
        assert sample.main(given) == 0
    videos = [(tmp_path / one / "000-00.mp4").read_bytes() for one in ("of_4", "of_6", "again")]
    assert videos[0] != videos[1] == videos[2]
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5 in .*, but of: "):
        export.main([run, "--step", "5", "--out", str(tmp_path / "5")])
    with pytest.raises(ConfigError, match="--step is of a run: give --run"):
        sample.main(["a red circle", "--step", "4"])
