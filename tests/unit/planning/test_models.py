"""Configurations: where they come from, and what is said when they cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from videorl.errors import CheckpointError
from videorl.planning.models import read_configs
from videorl.planning.published import PUBLISHED
from videorl.recipes.reading import load_recipe


def test_without_a_hub_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the hub itself may answer is tried in `tests/unit/files/test_hub.py`."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"policy\.path: nobody/nothing is neither a folder"):
        read_configs("nobody/nothing")


def test_known_models_need_no_hub() -> None:
    for revision in ("", "@main"):
        configs = read_configs(f"Wan-AI/Wan2.1-T2V-14B-Diffusers{revision}")
        assert configs.parts["transformer"]["num_layers"] == 40
    assert set(PUBLISHED) == {name.lower() for name in PUBLISHED}
    path = load_recipe("open_sora_online_vpo").policy.path
    assert read_configs(path).parts["transformer"]["depth"] == 28, "before its folder is made"


def test_configurations_alone_are_enough(tmp_path: Path) -> None:
    known = PUBLISHED["thudm/cogvideox-2b"]
    for key, name in (
        ("index", "model_index.json"),
        ("scheduler", "scheduler/scheduler_config.json"),
        ("transformer", "transformer/config.json"),
        ("vae", "vae/config.json"),
        ("text_encoder", "text_encoder/config.json"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(known[key]))
    configs = read_configs(str(tmp_path))
    assert not configs.is_exact
    assert configs.parts["transformer"] == known["transformer"]


def test_no_such_folder() -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        read_configs("./nowhere")
