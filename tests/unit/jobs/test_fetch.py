"""`videorl fetch` brings what a node needs, and only that."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobs.fetch import main
from tests.hub_server import serve
from videorl.errors import ConfigError
from videorl.policies.checkpoints import PARTS, locate


def test_the_default_recipe_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["moving_shapes"]) == 0
    assert "nothing to fetch" in capsys.readouterr().out


def test_what_is_fetched_is_all_that_is_needed_offline(
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(tiny_checkpoints["wan"], tmp_path / "wan")
    (folder / "transformer/diffusion_pytorch_model.bin").write_bytes(b"x" * 1000)
    rewards = "rewards=[{name: pick_score, path: a/pick, options: {base: a/clip}}]"
    settings = ["moving_shapes", "policy.path=a/wan", rewards, "selection={rule: best_vs_worst}"]
    with serve(monkeypatch, tmp_path / "cache") as hub:
        commit = hub.add_folder("a/wan", folder)
        hub.add("a/pick", {"config.json": "{}", "model.safetensors": "x" * 2000, "big.bin": "x"})
        hub.add("a/clip", {"tokenizer.json": "{}", "model.safetensors": "x" * 5000})
        assert main(settings) == 0
        first = capsys.readouterr().out
        assert "rewards.0.path: a/pick@" in first
        assert "0 bytes here, 2.002 kB to download" in first
        assert "rewards.0.options.base: a/clip@" in first
        assert "0 bytes here, 2 bytes to download" in first
        assert f"policy.path=a/wan@{commit}" in first.splitlines()[-1]
        asked = list(hub.asked)
        assert not [name for name in asked if name.endswith(".bin")]
        assert "a/clip/model.safetensors" not in asked
        assert main(settings) == 0
        assert "2.002 kB here, 0 bytes to download" in capsys.readouterr().out
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert locate(f"a/wan@{commit}", PARTS, "WanPipeline").name == commit
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE=1 forbids downloads"):
        main(settings)
