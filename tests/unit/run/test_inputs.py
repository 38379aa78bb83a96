"""What a run rests on is known by content: other content is refused, other places are not."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from videorl.config import Recipe
from videorl.data.video_io import write_mp4
from videorl.errors import RunFolderError
from videorl.guidance.recipe import load_latent_reward_recipe
from videorl.recipes.reading import load_recipe
from videorl.reward_training.recipes import load_reward_recipe
from videorl.run.folder import open_run
from videorl.run.inputs import FILE, check_unchanged, inputs_of
from videorl.types import Video

POLICY = Path(__file__).parents[3] / "videorl/worlds/moving_shapes_wan"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with one input of each kind that an online run has."""
    (tmp_path / "prompts.txt").write_text("a red ball\na blue ball\n")
    (tmp_path / "held_out.jsonl").write_text('{"prompt": "a green ball", "id": "g"}\n')
    shutil.copytree(POLICY, tmp_path / "policy")
    (tmp_path / "adapter").mkdir()
    weights = {"transformer.to_q.lora_A.weight": torch.zeros(2, 2)}
    save_file(weights, tmp_path / "adapter/pytorch_lora_weights.safetensors")
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward/model.pth").write_bytes(b"weights" * 1000)
    (tmp_path / "weights.json").write_text("[1, 2]")
    return tmp_path


def recipe(place: Path, run_dir: Path, *overrides: str) -> Recipe:
    settings = {
        "run_dir": run_dir,
        "policy.path": place / "policy",
        "policy.lora.initial": place / "adapter",
        "prompts.source": place / "prompts.txt",
        "evaluation.source": place / "held_out.jsonl",
        "rewards": f"[{{name: video_reward, path: {place / 'reward'}}}]",
        "rewards.0.options.weights": place / "weights.json",
    }
    named = [f"{key}={value}" for key, value in settings.items()]
    return load_recipe("moving_shapes", [*named, *overrides])


def start(place: Path, run_dir: Path, *overrides: str) -> None:
    with open_run(recipe(place, run_dir, *overrides)):
        pass


def one_weight_differs(place: Path) -> None:
    file = place / "policy/transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, file)


CHANGES = {
    "policy.path": one_weight_differs,
    "policy.lora.initial": lambda place: save_file(
        {"transformer.to_q.lora_A.weight": torch.ones(2, 2)},
        place / "adapter/pytorch_lora_weights.safetensors",
    ),
    "prompts.source": lambda place: (place / "prompts.txt").write_text("a red ball\nno ball\n"),
    "evaluation.source": lambda place: (place / "held_out.jsonl").write_text(
        '{"prompt": "a green ball", "id": "h"}\n'
    ),
    "rewards.0.path": lambda place: (place / "reward/model.pth").write_bytes(b"others!" * 1000),
    "rewards.0.options.weights": lambda place: (place / "weights.json").write_text("[2, 1]"),
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_run_whose_inputs_have_other_content_is_refused_until_that_is_wanted(
    key: str, place: Path
) -> None:
    run = place / "run"
    start(place, run)
    noted = (run / FILE).read_text()
    CHANGES[key](place)
    with pytest.raises(RunFolderError) as refused:
        start(place, run)
    said = str(refused.value)
    assert f"{key}={place}" in said and "holds something else than on 20" in said
    assert "Put back what was there" in said and f"remove {run / FILE}" in said
    assert said.count("holds something else") == 1, "nothing else has changed"
    assert (run / FILE).read_text() == noted
    (run / FILE).unlink()
    start(place, run)


def test_the_file_that_changed_is_named(place: Path) -> None:
    start(place, place / "run")
    one_weight_differs(place)
    (place / "policy/vae/more.json").write_text("{}")
    (place / "policy/README.md").write_text("what this is")
    wanted = r"transformer/diffusion_pytorch_model.safetensors differs, vae/more.json is new\."
    with pytest.raises(RunFolderError, match=wanted):
        start(place, place / "run")


def test_a_weight_that_changed_under_the_same_size_and_time_is_seen(place: Path) -> None:
    file = place / "policy/transformer/diffusion_pytorch_model.safetensors"
    before = file.stat()
    start(place, place / "run")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    with pytest.raises(RunFolderError, match=r"diffusion_pytorch_model.safetensors differs"):
        start(place, place / "run")


def test_touched_copied_moved_and_rewritten_inputs_are_the_same(
    place: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    start(place, place / "run")
    for path in place.rglob("*"):
        os.utime(path, (1, 1))
    start(place, place / "run")
    other = tmp_path_factory.mktemp("machine") / "models"
    shutil.copytree(place, other)
    (other / "policy/README.md").write_text("what this is")
    (other / "prompts.txt").write_bytes(b"\xef\xbb\xbfa red ball\r\na blue ball\r\n")
    start(other, other / "run")
    start(other, place / "run")


def test_another_place_with_other_content_is_another_setting(place: Path) -> None:
    start(place, place / "run")
    other = place / "other.txt"
    other.write_text("no ball\n")
    with pytest.raises(RunFolderError, match=r"other settings \(prompts.source: "):
        start(place, place / "run", f"prompts.source={other}")


def test_a_run_folder_of_an_older_version_goes_on_and_is_noted(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start(place, place / "run")
    assert not caplog.text
    (place / "run" / FILE).unlink()
    CHANGES["prompts.source"](place)
    start(place, place / "run")
    assert f"has no {FILE}: from now on its inputs must stay" in caplog.text
    assert set(json.loads((place / "run" / FILE).read_text())["inputs"]) == set(CHANGES)


def test_what_is_not_here_is_noted_when_it_is(place: Path) -> None:
    shutil.move(place / "reward", place / "elsewhere")
    start(place, place / "run")
    assert "rewards.0.path" not in json.loads((place / "run" / FILE).read_text())["inputs"]
    shutil.move(place / "elsewhere", place / "reward")
    start(place, place / "run")
    CHANGES["rewards.0.path"](place)
    with pytest.raises(RunFolderError, match=r"rewards.0.path"):
        start(place, place / "run")


def test_a_finished_run_needs_its_inputs_no_more(place: Path) -> None:
    start(place, place / "run", "num_steps=3")
    (place / "run/summary.json").write_text('{"num_steps": 3}')
    CHANGES["policy.path"](place)
    start(place, place / "run", "num_steps=3")
    with pytest.raises(RunFolderError, match=r"policy.path"):
        start(place, place / "run", "num_steps=4")


def test_a_damaged_record_says_what_to_do(place: Path) -> None:
    start(place, place / "run")
    (place / "run" / FILE).write_text('{"format": 1, "inputs": {"policy.path": 3}}')
    with pytest.raises(RunFolderError, match=r"inputs.json is damaged .*; remove it to go on"):
        start(place, place / "run")


def video(level: int) -> Video:
    return Video(np.full((5, 16, 16, 3), level, np.uint8), fps=8.0)


def pairs_of_videos(folder: Path) -> Path:
    folder.mkdir()
    names = ("a.mp4", "b.mp4")
    for level, name in enumerate(names):
        write_mp4(folder / name, video(100 * level))
    row = {"prompt": "a ball", "chosen_video": names[0], "rejected_video": names[1]}
    pq.write_table(pa.Table.from_pylist([row]), folder / "pairs.parquet")
    return folder


@pytest.mark.parametrize("what", ["table", "video"])
def test_stored_pairs_are_known_by_their_table_and_their_videos(what: str, place: Path) -> None:
    archive = pairs_of_videos(place / "pairs")
    offline = ("objective.name=flow_dpo", "prompts.source=gone.txt", f"offline.archive={archive}")
    start(place, place / "run", *offline)
    archive.rename(place / "moved")
    elsewhere = (*offline[:2], f"offline.archive={place / 'moved'}")
    start(place, place / "run", *elsewhere)
    if what == "table":
        table = pq.read_table(place / "moved/pairs.parquet")
        rewritten = table.set_column(0, "prompt", pa.array(["a cube"]))
        pq.write_table(rewritten, place / "moved/pairs.parquet")
        said = r"offline.archive=.*: pairs.parquet differs\."
    else:
        write_mp4(place / "moved/b.mp4", video(50))
        said = r"offline.archive \(videos\)=.*: b.mp4 differs\."
    with pytest.raises(RunFolderError, match=said):
        start(place, place / "run", *elsewhere)


def test_videos_that_were_encoded_may_be_gone(place: Path) -> None:
    archive = pairs_of_videos(place / "pairs")
    offline = ("objective.name=flow_dpo", f"offline.archive={archive}")
    start(place, place / "run", *offline)
    (archive / "a.mp4").unlink()
    start(place, place / "run", *offline)


def test_the_archive_of_a_run_is_known_by_what_pairs_are_read_from(place: Path) -> None:
    archive = place / "archive"
    for name in ("pairs", "candidates", "scores"):
        (archive / name).mkdir(parents=True)
        (archive / name / "step-000000.parquet").write_bytes(b"table")
    offline = ("objective.name=flow_dpo", f"offline.archive={archive}")
    start(place, place / "run", *offline)
    (archive / "scores/step-000001.parquet").write_bytes(b"table")
    start(place, place / "run", *offline)
    (archive / "pairs/step-000001.parquet").write_bytes(b"table")
    with pytest.raises(RunFolderError, match=r"pairs/step-000001.parquet is new"):
        start(place, place / "run", *offline)


def test_trainings_of_reward_models_know_their_base_and_labels(place: Path) -> None:
    (place / "train.csv").write_text("labels")
    overrides = [f"model.base={place / 'reward'}", f"labels.train={place / 'train.csv'}"]
    made = load_reward_recipe("video_reward", [*overrides, f"run_dir={place / 'run'}"])
    assert set(inputs_of(made)) == {"model.base", "labels.train"}
    with open_run(made):
        pass
    (place / "train.csv").write_text("others")
    with pytest.raises(RunFolderError, match=r"labels.train=.*train.csv holds"), open_run(made):
        pass
    latent = load_latent_reward_recipe("moving_shapes", [f"labels.train={place / 'train.csv'}"])
    assert set(inputs_of(latent)) == {"policy.path", "labels.train"}


@pytest.mark.parametrize("key", CHANGES)
def test_a_run_is_not_evaluated_on_top_of_another_policy(
    key: str, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start(place, place / "run")
    check_unchanged(place / "run", recipe(place, place / "run"))
    assert not caplog.text
    CHANGES[key](place)
    if key.startswith("policy."):
        with pytest.raises(RunFolderError, match=rf"on top of what has changed since: {key}"):
            check_unchanged(place / "run", recipe(place, place / "run"))
    else:
        check_unchanged(place / "run", recipe(place, place / "run"))
        assert f"{key}={place}" in caplog.text and "both policies are judged by" in caplog.text


def test_own_code_may_change_and_that_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(place))
    (place / "own_parts.py").write_text("def sharp(video):\n    return {}\n")
    own = "metrics.unseen=['own_parts:sharp']"
    start(place, place / "run", own)
    start(place, place / "run", own)
    assert not caplog.text
    (place / "own_parts.py").write_text("def sharp(video):\n    return {'edges': 1.0}\n")
    start(place, place / "run", own)
    said = (
        r"metrics.unseen.0 \(code\)=own_parts:sharp holds .*own_parts.py differs: the run goes on"
    )
    assert re.search(said, caplog.text)
