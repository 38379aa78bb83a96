"""Settings of a recipe reach the stock pipeline and its solver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_dpm_cogvideox import CogVideoXDPMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from tests.tiny import tiny_policy, tiny_sampling
from videorl.errors import ConfigError
from videorl.policies import load_policy
from videorl.policies.calls import read_scheduler
from videorl.policies.checkpoints import PARTS

PROMPT = "a red circle moves left"
TRANSFORMER = frozenset({"transformer"})


def sampled(folder: Path, family: str, **sampling: Any) -> Tensor:
    config = tiny_policy(folder, family)
    policy = load_policy(config, tiny_sampling(**sampling), parts=PARTS)
    prompt, negative = policy.encode([PROMPT, ""])
    return policy.sample(prompt, negative, [11])


def stock(pipeline: Any, **options: object) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=PROMPT,
        height=16,
        width=16,
        num_frames=5,
        num_inference_steps=3,
        guidance_scale=3.0,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(11),
        output_type="latent",
        return_dict=False,
        **options,
    )[0]


def test_a_shift_replaces_that_of_the_checkpoint(tiny_checkpoints: dict[str, Path]) -> None:
    folder = tiny_checkpoints["wan"]
    pipeline = WanPipeline.from_pretrained(folder)
    own = stock(pipeline)
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, shift=8.0)
    expected = stock(pipeline)
    assert not torch.equal(own, expected)
    assert torch.equal(sampled(folder, "wan", flow_shift=8.0), expected)
    assert torch.equal(sampled(folder, "wan"), own)


@pytest.mark.parametrize("has_flow_sigmas", [True, False])
def test_the_shift_of_unipc_is_that_of_its_flow_sigmas(
    tmp_path: Path, *, has_flow_sigmas: bool
) -> None:
    """As Wan's checkpoints on the hub name it."""
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=has_flow_sigmas, flow_shift=3.0
    ).save_pretrained(tmp_path / "scheduler")
    index = {"scheduler": ["diffusers", "UniPCMultistepScheduler"]}
    assert read_scheduler(tmp_path, index, tiny_sampling()).config.flow_shift == 3.0
    if has_flow_sigmas:
        made = read_scheduler(tmp_path, index, tiny_sampling(flow_shift=5.0))
        assert made.config.flow_shift == 5.0
        return
    with pytest.raises(ConfigError, match=r"UniPCMultistepScheduler has no fixed shift.*got 5"):
        read_scheduler(tmp_path, index, tiny_sampling(flow_shift=5.0))


def test_guidance_changes_from_step_to_step(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    pipeline = CogVideoXPipeline.from_pretrained(tiny_checkpoints["cogvideox"])
    pipeline.scheduler = CogVideoXDPMScheduler.from_config(pipeline.scheduler.config)
    pipeline.save_pretrained(tmp_path)
    expected = stock(pipeline, use_dynamic_cfg=True).transpose(1, 2)
    assert torch.equal(sampled(tmp_path, "cogvideox", dynamic_guidance=True), expected)
    assert not torch.equal(sampled(tmp_path, "cogvideox"), expected)


@pytest.mark.parametrize(
    ("family", "setting", "message"),
    [
        ("wan", {"dynamic_guidance": True}, "dynamic_guidance must be false.*WanPipeline"),
        ("wan", {"modality_scale": 3.0}, "modality_scale must be 1.0 .* only LTX-2 .* got 3.0"),
        ("wan", {"stg_blocks": [1]}, r"stg_blocks must be \[\] .* only LTX-2"),
        ("cogvideox", {"flow_shift": 3.0}, "flow_shift must be null.*CogVideoXDDIMScheduler"),
    ],
)
def test_what_a_pipeline_has_not_is_refused(
    tiny_checkpoints: dict[str, Path], family: str, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_policy(
            tiny_policy(tiny_checkpoints[family], family),
            tiny_sampling(**setting),
            parts=TRANSFORMER,
        )


def test_weights_that_were_published_in_float16_are_mentioned(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As those of CogVideoX-2B are."""
    DiffusionPipeline.from_pretrained(
        tiny_checkpoints["cogvideox"], dtype=torch.float16
    ).save_pretrained(tmp_path)
    config = tiny_policy(tmp_path, "cogvideox")
    for config.dtype in ("float32", "float16"):
        load_policy(config, tiny_sampling(), parts=TRANSFORMER)
    assert not caplog.records
    config.dtype = "bfloat16"
    load_policy(config, tiny_sampling(), parts=TRANSFORMER, trainable=True)
    assert "was published in float16, but samples in bfloat16" in caplog.text
    assert "sampling.half_precision=float16" in caplog.text
    caplog.clear()
    load_policy(config, tiny_sampling(half_precision="float16"), parts=TRANSFORMER)
    assert not caplog.records
