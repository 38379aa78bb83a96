"""AdamW in one kernel per tensor: chosen on GPUs, the same but for rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.learners import run_steps, tiny_learner, tiny_recipe
from tests.tiny_policy import TinyPolicy
from videorl.config import OptimizerConfig
from videorl.learning.engines import is_fused
from videorl.learning.engines.local import LocalEngine


def test_auto_is_on_on_gpus_alone() -> None:
    config = OptimizerConfig()
    assert [is_fused(config, device) for device in ("cuda", "cpu")] == [True, False]
    config.fused = True
    assert is_fused(config, "cpu")
    config.fused = False
    assert not is_fused(config, "cuda")
    engine = LocalEngine(TinyPolicy().module, OptimizerConfig())
    assert engine._optimizer.defaults["fused"] is None, "PyTorch's own choice, as ever"


def test_it_gives_the_weights_of_the_others_up_to_rounding_and_resumes(tmp_path: Path) -> None:
    runs = {}
    for fused in (False, True):
        learner, policy = tiny_learner(tiny_recipe(fused=fused), tmp_path / str(fused))
        learner.start()
        outputs = run_steps(learner, 0, 2)
        learner.save({}).result()
        outputs += run_steps(learner, 2, 4)
        runs[fused] = outputs, policy.weights()
    for name, tensor in runs[True][1].items():
        torch.testing.assert_close(tensor, runs[False][1][name], rtol=1e-4, atol=1e-5, msg=name)
    for fused, saved in ((True, True), (True, False), (False, True)):
        restored, _ = tiny_learner(tiny_recipe(fused=fused), tmp_path / str(saved))
        restored.start()
        again = run_steps(restored, 2, 4)
        if fused == saved:
            assert [one.version for one in again] == [one.version for one in runs[fused][0][2:]]
        for one, other in zip(again, runs[fused][0][2:], strict=True):
            norms = [output.metrics["optimizer/grad_norm"] for output in (one, other)]
            assert norms[0] == pytest.approx(norms[1], rel=1e-4)
