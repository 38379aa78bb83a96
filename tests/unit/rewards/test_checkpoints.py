"""Checkpoints are read whole and strictly, or refused by name."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from videorl.errors import CheckpointError
from videorl.rewards.checkpoints import (
    empty_parameters,
    find_folder,
    load_strictly,
    read_json,
    read_tensors,
)
from videorl.rewards.video_reward.checkpoint import find_step

LAYER = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.tensor([1.0, 2.0])}


def write_shards(folder: Path) -> None:
    shard_of = {name: f"model-{number}-of-2.safetensors" for number, name in enumerate(LAYER, 1)}
    for name, shard in shard_of.items():
        save_file({name: LAYER[name]}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))


def test_shards_are_read_memory_mapped_into_modules_without_memory(tmp_path: Path) -> None:
    write_shards(tmp_path)
    with empty_parameters():
        layer = nn.Linear(3, 2)
    assert layer.weight.is_meta
    load_strictly(layer, read_tensors(tmp_path), source=tmp_path)
    assert layer(torch.tensor([1.0, 0.0, 1.0])).tolist() == [3.0, 10.0]
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path / "model-1-of-2.safetensors") in maps.read_text()


def test_torch_files_are_read_without_running_code(tmp_path: Path) -> None:
    torch.save(LAYER, tmp_path / "good.pth")
    assert torch.equal(read_tensors(tmp_path / "good.pth")["bias"], LAYER["bias"])
    torch.save({"weight": Path("x")}, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match=r"code\.pth is a pickle that holds pathlib"):
        read_tensors(tmp_path / "code.pth")
    torch.save(LAYER["bias"], tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth does not hold a plain mapping"):
        read_tensors(tmp_path / "other.pth")


def test_an_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    write_shards(tmp_path)
    for shard in ("../model-1-of-2.safetensors", str(tmp_path / "model-1-of-2.safetensors")):
        index = tmp_path / "inside/model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"weight": shard}}))
        with pytest.raises(CheckpointError, match="a shard outside of its folder"):
            read_tensors(tmp_path / "inside")


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    first = tmp_path / "model-1-of-2.safetensors"
    content = first.read_bytes()
    save_file({"another": LAYER["weight"]}, first)
    with pytest.raises(CheckpointError, match=r"-1-of-2\.safetensors lacks the tensor 'weight'"):
        read_tensors(tmp_path)
    first.write_bytes(content[:-4])
    with pytest.raises(CheckpointError, match=r"model-1-of-2\.safetensors cannot be read"):
        read_tensors(tmp_path)
    first.unlink()
    with pytest.raises(CheckpointError, match=r"model-1-of-2\.safetensors is missing.*'weight'"):
        read_tensors(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds none of model\.safetensors\.index\.json"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bias": None}, "missing 'bias'"),
        ({"scale": torch.ones(1)}, "unexpected 'scale'"),
        ({"weight": torch.ones(3, 2)}, r"'weight' has shape \[3, 2\], expected \[2, 3\]"),
    ],
)
def test_tensors_must_fit_exactly(change: dict[str, torch.Tensor | None], reason: str) -> None:
    tensors = {name: tensor for name, tensor in {**LAYER, **change}.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=f"here is not .*{reason}"):
        load_strictly(nn.Linear(3, 2), tensors, source=Path("here"))


def test_settings_must_be_json_objects(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.json is missing"):
        read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(CheckpointError, match=r"half\.json cannot be read"):
        read_json(tmp_path / "half.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"list\.json holds a list"):
        read_json(tmp_path / "list.json")


def test_what_is_neither_folder_nor_reachable_is_refused(tmp_path: Path) -> None:
    assert find_folder(str(tmp_path)) == tmp_path
    with pytest.raises(CheckpointError, match=r"absent is not a folder"):
        find_folder(str(tmp_path / "absent"))


def test_a_pickle_with_other_objects_is_refused_by_their_name(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1), "b": OrderedDict(x=Path("y"))}, tmp_path / "model.pth")
    with pytest.raises(
        CheckpointError, match=r"pickle that holds pathlib\.\w+.*save_file"
    ) as raised:
        read_tensors(tmp_path / "model.pth")
    assert "incomplete" not in str(raised.value)


def test_an_unfinished_checkpoint_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (5, 10, 100, 200):
        (tmp_path / f"checkpoint-{step}").mkdir()
    torch.save({"a": torch.zeros(100)}, tmp_path / "checkpoint-10/model.pth")
    whole = (tmp_path / "checkpoint-10/model.pth").read_bytes()
    (tmp_path / "checkpoint-100/model.pth").write_bytes(whole[:-50])
    assert find_step(tmp_path)[1].name == "checkpoint-10"
    assert "checkpoint-200 has no whole model.pth" in caplog.text
    assert "checkpoint-100 has no whole model.pth" in caplog.text
    (tmp_path / "checkpoint-10/model.pth").unlink()
    assert find_step(tmp_path)[1].name == "checkpoint-200"  # whose own error says what it lacks
