"""Full fine-tuning with policy and reference shared out over two ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.full_ranks import recipe_of, two_steps
from tests.tiny import save_tiny_wan
from videorl.learning.build import build_learner
from videorl.learning.engines.local import LocalEngine
from videorl.learning.engines.slices import cut, read_slices
from videorl.policies import FAMILIES

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.slow
def test_shards_give_the_gradient_of_whole_models_and_can_be_saved_restored_and_exported(
    tmp_path: Path,
) -> None:
    save_tiny_wan(tmp_path / "wan")
    program = (sys.executable, "-m", "tests.full_ranks")
    ranks = [
        subprocess.Popen(
            [*program, str(rank), "2", str(tmp_path)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    recipe = recipe_of(tmp_path / "wan", tmp_path / "one")
    learner, policy = build_learner(
        recipe, tmp_path / "one", lambda module: LocalEngine(module, recipe.optimizer)
    )
    learner.start()
    outputs = two_steps(learner)
    learner.export(tmp_path / "one/export")
    said = [rank.communicate(timeout=600)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], [err[-2000:] for err in said]

    found = json.loads((tmp_path / "found.json").read_text())
    for name in ("learn/loss", "optimizer/grad_norm"):
        expected = [output.metrics[name] for output in outputs]
        assert [one[name] for one in found["metrics"]] == pytest.approx(expected, rel=1e-5)
    # After one step AdamW's first moment is a tenth of the gradient.
    rate, saved = recipe.optimizer.learning_rate, "checkpoints/step-000001"
    expected = load_file(tmp_path / f"one/{saved}/optimizer.safetensors")
    slices = {name: cut(torch.zeros_like(tensor)) for name, tensor in expected.items()}
    read_slices(tmp_path / f"ranks/{saved}/optimizer", slices)
    for name in (name for name in expected if name.startswith("exp_avg/")):
        own = slices[name].as_subclass(torch.Tensor).view_as(expected[name])
        torch.testing.assert_close(own, expected[name], rtol=1e-4, atol=1e-8, msg=name)
    # AdamW takes the sign of gradients that are nothing but rounding; copies are in bfloat16.
    same_tensors(tmp_path, f"{saved}/reference.safetensors", rtol=1e-2, atol=2 * rate)
    weights = "export/transformer/diffusion_pytorch_model.safetensors"
    same_tensors(tmp_path, weights, rtol=1e-6, atol=4 * rate)
    assert found["restored"] == found["digests"]
    whole = sum(parameter.numel() for parameter in policy.live("policy"))
    for held, num_tensors in found["share"].values():
        assert whole / 2 <= held <= whole / 2 + num_tensors


@pytest.mark.slow
def test_every_family_learns_in_shards_as_it_does_whole(tmp_path: Path) -> None:
    """Tables of scales, held in float32 and read as they are published, are shards too."""
    program = [sys.executable, "-m", "tests.family_shards", str(tmp_path)]
    done = subprocess.run(program, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found.keys() == FAMILIES.keys()
    for family, (whole, shards) in found.items():
        assert whole[1] > 1, family
        assert shards == pytest.approx(whole, rel=1e-3), family


def same_tensors(folder: Path, file: str, *, rtol: float, atol: float) -> None:
    """Compare the tensors of two files."""
    found, expected = (load_file(folder / run / file) for run in ("ranks", "one"))
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=rtol, atol=atol, msg=name)
