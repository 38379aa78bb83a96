"""What only Mochi has: reversed times, a negative prompt of no tokens, fixed strides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import MochiPipeline, MochiTransformer3DModel
from torch import Tensor

from tests.tiny import TINY, tiny_policy, tiny_sampling
from videorl.errors import ConfigError
from videorl.planning.published import PUBLISHED
from videorl.policies import load_policy
from videorl.policies.checkpoints import PARTS
from videorl.policies.parallel import check_sharing

PROMPT = "a red circle moves left"
SEEDS = [11, 12]


def load(folder: Path, dtype: str = "float32", **sampling: Any) -> Any:
    config = tiny_policy(folder, "mochi")
    config.dtype = dtype
    return load_policy(config, tiny_sampling("mochi", **sampling), parts=PARTS, seed=3)


@pytest.fixture
def folder(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["mochi"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_empty_negative_prompt_is_that_of_the_stock_pipeline(folder: Path, dtype: str) -> None:
    policy = load(folder, dtype)
    prompt, negative = policy.encode([PROMPT, ""])
    assert negative.num_tokens == 0 < prompt.num_tokens < 16
    stock = MochiPipeline.from_pretrained(folder, torch_dtype=getattr(torch, dtype))
    stock.set_progress_bar_config(disable=True)
    expected = TINY["mochi"].call(stock, tiny_sampling("mochi"), PROMPT, "", SEEDS)
    assert expected.dtype == getattr(torch, dtype), "latents are rounded at every step"
    assert torch.equal(policy.sample(prompt, negative, SEEDS), expected.float())


def test_without_the_pipeline_s_rule_an_empty_prompt_has_its_end_token(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "mochi")
    file = tmp_path / "mochi/model_index.json"
    index = json.loads(file.read_text())
    file.write_text(json.dumps({**index, "force_zeros_for_empty_prompt": False}))
    assert load(tmp_path / "mochi").encode([""])[0].num_tokens == 1


def test_times_are_rounded_as_the_pipeline_rounds_them(folder: Path) -> None:
    policy = load(folder, "bfloat16")
    seen: list[Tensor] = []
    policy.trainable_module().register_forward_pre_hook(
        lambda _, __, given: seen.append(given["timestep"]), with_kwargs=True
    )
    x_t = torch.zeros(1, *TINY["mochi"].latents)
    policy.predict(x_t, torch.tensor([0.0455]), policy.encode([PROMPT]), "policy")
    assert seen[0].tolist() == [956.0], "954.5 is no bfloat16"


def test_what_the_pipeline_cannot_do_is_refused(folder: Path, tmp_path: Path) -> None:
    for changes, said in (
        ({"num_inference_steps": 1}, "num_inference_steps must be 2 or more.* got 1"),
        ({"height": 40}, "multiples of 16 for this model, got 40 and 32"),
        ({"num_frames": 16}, "num_frames must be a multiple of 6 plus 1.* got 16"),
    ):
        with pytest.raises(ConfigError, match=said):
            load(folder, "float32", **changes)
    shutil.copytree(folder, tmp_path / "mochi")
    file = tmp_path / "mochi/scheduler/scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "invert_sigmas": False}))
    with pytest.raises(ConfigError, match="of invert_sigmas=true"):
        load(tmp_path / "mochi")


def test_videos_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match="mochi cannot be shared: MochiTransformer3DModel has no"):
        check_sharing("mochi", {}, tiny_sampling("mochi"), 2, "learner.context_parallel")


def test_the_published_transformer_has_10_billion_parameters() -> None:
    """As by diffusers' `convert_mochi_to_diffusers.py`."""
    config = PUBLISHED["genmo/mochi-1-preview"]["transformer"]
    with torch.device("meta"):
        model: Any = MochiTransformer3DModel.from_config(config)
    assert model.num_parameters() == pytest.approx(10.03e9, rel=0.005)
