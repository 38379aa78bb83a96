"""What adapters reach is said, and what they could reach where a name is wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.tiny import tiny_policy, tiny_sampling
from videorl.errors import CheckpointError, ConfigError
from videorl.policies import load_policy
from videorl.policies.coverage import nearest

LEARNER = frozenset({"transformer"})


def test_the_share_that_is_adapted_is_logged_where_it_is_trained(
    tiny_checkpoints: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_policy(tiny_checkpoints["wan"])
    config.lora.target_modules = ["attn1.to_q", "ffn.net.2"]
    with caplog.at_level(logging.INFO, "videorl.policies"):
        policy = load_policy(config, tiny_sampling(), parts=LEARNER)
        assert not caplog.messages
        policy = load_policy(config, tiny_sampling(), parts=LEARNER, trainable=True)
    (said,) = caplog.messages
    numbers = sum(each.numel() for each in policy.weights().values())
    assert said.startswith("LoRA adapts 2 of 10 linear layers in each of 1 blocks, ")
    assert f"{numbers / 1e6:.3g} M parameters, " in said
    assert said.endswith("% of the transformer")


def test_near_names_are_said(tiny_checkpoints: dict[str, Path]) -> None:
    config = tiny_policy(tiny_checkpoints["wan"])
    config.lora.target_modules = ["to_q", "ff.net.2"]
    with pytest.raises(ConfigError, match=r"ff\.net\.2 matches no layer, near are ffn\.net\.2"):
        load_policy(config, tiny_sampling(), parts=LEARNER)


def test_names_hold_for_every_block() -> None:
    layers = [f"blocks.{number}.attn.to_out.0" for number in range(3)] + ["proj_out"]
    assert nearest("attn.to_out", layers)[0] == "attn.to_out.0"
    assert set(nearest("out_proj", layers)) == {"proj_out", "to_out.0", "attn.to_out.0"}


def test_an_adapter_of_another_model_is_refused(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Its layers have names that this model has not."""
    other = tiny_policy(tiny_checkpoints["cogvideox"], "cogvideox")
    load_policy(other, tiny_sampling("cogvideox"), parts=LEARNER).export(tmp_path)
    config = tiny_policy(tiny_checkpoints["wan"], initial=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"policy\.lora\.initial.*transformer_blocks\.0"):
        load_policy(config, tiny_sampling(), parts=LEARNER)
