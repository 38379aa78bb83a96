"""`videorl fetch` brings what a node needs, and only that."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobs.fetch import main
from tests.hub_server import serve
from videorl.errors import ConfigError
from videorl.files.hub import HubId, resolved
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
    for name in (f"a/wan@{commit}", "a/wan"):
        assert locate(name, PARTS, "WanPipeline").name == commit
        assert resolved(HubId("a/wan"), "policy.path").revision == commit
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE=1 forbids downloads"):
        main(settings)


def test_bases_of_reward_trainings_and_what_no_recipe_names(
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serve(monkeypatch, tmp_path / "cache") as hub:
        hub.add("q/base", {"config.json": "{}", "model.safetensors": "x" * 3000})
        hub.add_folder("a/wan", tiny_checkpoints["wan"])
        hub.add("a/pick", {"config.json": "{}", "model.safetensors": "x" * 2000})
        hub.add("a/clip", {"tokenizer.json": "{}"})
        labels = ["labels.train=a.csv", "labels.held_out=b.csv"]
        assert main(["video_reward", "model.base=q/base", *labels]) == 0
        assert f"model.base=q/base@{hub.commit('q/base')}" in capsys.readouterr().out
        assert "q/base/model.safetensors" in hub.asked, "training reads the weights too"
        assert main(["moving_shapes", "--for", "train_latent_reward", "policy.path=a/wan"]) == 0
        assert f"policy.path=a/wan@{hub.commit('a/wan')}" in capsys.readouterr().out
        hub.asked.clear()
        named = ["--policy", "a/wan", "--reward", "pick_score=a/pick"]
        assert main([*named, "rewards.0.options.base=a/clip"]) == 0
        said = capsys.readouterr().out.splitlines()[-1]
        for key, name in (("--policy", "a/wan"), ("rewards.0.path", "a/pick")):
            assert f"{key}={name}@{hub.commit(name)}" in said
        assert f"rewards.0.options.base=a/clip@{hub.commit('a/clip')}" in said
        assert "a/wan/transformer/diffusion_pytorch_model.safetensors" not in hub.asked, "is here"
        assert main(["--policy", str(tiny_checkpoints["wan"])]) == 0
        assert "nothing to fetch" in capsys.readouterr().out
    for words, message in (([], "give a recipe, --policy"), (["--policy", "x y"], "--policy must")):
        with pytest.raises(ConfigError, match=message):
            main(words)
