"""Preference pairs of video files: the table, its errors, and learning from them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.small_runs import small_recipe
from tests.video_pairs import PROMPTS, save_table, save_video_pairs
from videorl.config import Recipe
from videorl.data.pair_encoding import PairEncoding
from videorl.data.preference_videos import has_videos, read_video_pairs
from videorl.data.preferences import read_preferences
from videorl.data.video_io import read_video, write_mp4
from videorl.errors import ArchiveError
from videorl.learning.stored_pairs import encode_archive
from videorl.one_process import train_alone
from videorl.policies import load_policy
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import read_metrics
from videorl.types import Video


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return save_video_pairs(tmp_path / "archive")


@pytest.fixture
def recipe(archive: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Recipe:
    made = small_recipe("moving_shapes_dpo", tiny_checkpoints, tmp_path / "run")
    made.offline.archive = str(archive)
    return made


def test_videos_are_encoded_once_and_learned_from(recipe: Recipe, archive: Path) -> None:
    with open_run(recipe) as folder:
        assert train_alone(recipe, folder, lambda: False)
        losses = [row["learn/loss"] for row in read_metrics(folder.metrics)]
        assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
        assert len(losses) == 2
        (file,) = folder.latents.iterdir()
        made = file.stat().st_mtime_ns
        (archive / "0.mp4").unlink()
        encode_archive(recipe, folder)
    assert file.stat().st_mtime_ns == made
    found = read_preferences(folder.latents)
    assert list(found.prompts) == PROMPTS
    policy = vae_of(recipe)
    chosen, rejected = found.latents(1)
    assert torch.equal(chosen, policy.encode_video(read_video(archive / "1.mp4")))
    assert torch.equal(rejected, policy.encode_video(read_video(archive / "2.mp4")))


def test_archives_of_latents_are_told_apart(archive: Path, tmp_path: Path) -> None:
    assert has_videos(archive)
    assert has_videos(archive / "pairs.parquet")
    assert not has_videos(tmp_path / "absent")
    (tmp_path / "run/pairs").mkdir(parents=True)
    assert not has_videos(tmp_path / "run"), "our own archive"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rejected_video": []}, "has no column 'rejected_video'; needed are prompt, chosen_"),
        ({"prompt": [1, 2, 3]}, "column 'prompt' must be string, got int64"),
        ({"chosen_video": ["0.mp4", "../x.mp4", "2.mp4"]}, r"pair 1 names a video outside of"),
        ({"chosen_video": ["0.mp4", "/etc/passwd", "2.mp4"]}, r"pair 1 names a video outside of"),
        ({"chosen_video": ["9.mp4"] * 3}, "no pair that can be used: pair 0 names '9.mp4', but"),
    ],
)
def test_unusable_tables_are_refused_before_anything_is_decoded(
    archive: Path, changes: dict[str, list[object]], expected: str
) -> None:
    with pytest.raises(ArchiveError, match=expected):
        read_video_pairs(save_table(archive, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"prompt": ["a", None, "c"]}, "pair 1 left out: has no prompt"),
        ({"chosen_video": ["0.mp4", None, "2.mp4"]}, "pair 1 left out: has no chosen_video"),
        ({"chosen_video": ["0.mp4", "9.mp4", "2.mp4"]}, "pair 1 left out: names '9.mp4', but"),
        ({"chosen_video": ["0.mp4", "a\0b", "2.mp4"]}, "which no file can be called"),
        ({"chosen_video": ["0.mp4", "a" * 300, "2.mp4"]}, "pair 1 left out: names 'aaa"),
        (
            {"prompt": pa.array([b"a", b"caf\xe9", b"c"]).view(pa.string())},
            "pair 1 left out: prompt is not UTF-8",
        ),
    ],
)
def test_a_pair_that_cannot_be_used_costs_itself_alone(
    archive: Path, changes: dict[str, Any], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = read_video_pairs(save_table(archive, **changes))
    assert [pair.chosen.name for pair in pairs] == ["0.mp4", "2.mp4"]
    assert expected in caplog.text
    assert "1 of 3 pairs are left out" in caplog.text


@pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary"])
def test_columns_may_be_any_text_of_arrow(archive: Path, kind: str) -> None:
    def column(*values: str) -> Any:
        made = pa.array(values)
        return made.dictionary_encode() if kind == "dictionary" else made.cast(kind)

    expected = read_video_pairs(archive)
    names = [["0.mp4", "1.mp4", "2.mp4"], ["1.mp4", "2.mp4", "0.mp4"]]
    changes = dict(
        zip(["chosen_video", "rejected_video"], (column(*n) for n in names), strict=True)
    )
    assert read_video_pairs(save_table(archive, prompt=column(*PROMPTS), **changes)) == expected
    assert has_videos(archive)


def test_videos_of_another_size_or_damaged_are_named(
    recipe: Recipe, archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path / "other")
    write_mp4(archive / "1.mp4", Video(np.zeros((5, 32, 32, 3), np.uint8), 8.0))
    encode_archive(recipe, folder)
    assert list(read_preferences(folder.latents).prompts) == PROMPTS[2:]
    assert "1.mp4, the rejected video of" in caplog.text
    assert "has 5 frames of 32×32" in caplog.text and "asks for 9 of 32×32" in caplog.text
    assert "2 of 3 pairs are left out" in caplog.text
    (archive / "0.mp4").write_bytes((archive / "2.mp4").read_bytes()[:500])
    folder = RunFolder(tmp_path / "another")
    with pytest.raises(ArchiveError, match=r"none of 3 pairs can be used: .*0\.mp4, the chosen"):
        encode_archive(recipe, folder)
    assert not folder.latents.exists()


def vae_of(recipe: Recipe) -> Any:
    return load_policy(recipe.policy, recipe.sampling, parts=frozenset({"vae"}))


def test_an_encoding_that_was_stopped_goes_on_and_gives_the_same(
    recipe: Recipe, archive: Path, tmp_path: Path
) -> None:
    pairs, policy = read_video_pairs(archive), vae_of(recipe)
    whole = PairEncoding(pairs, tmp_path / "whole")
    for part in whole.missing():
        part.write(policy.encode_video)
    whole.finish()
    first = PairEncoding(pairs, tmp_path / "parts", pairs_of_a_part=2).missing()
    assert [len(part.pairs) for part in first] == [2, 1]
    first[1].write(policy.encode_video)
    with pytest.raises(KeyboardInterrupt):
        first[0].write(Mock(side_effect=KeyboardInterrupt))
    again = PairEncoding(pairs, tmp_path / "parts", pairs_of_a_part=2)
    assert again.missing() == first[:1], "the other is there"
    again.missing()[0].write(policy.encode_video)
    again.finish()
    found, expected = (read_preferences(tmp_path / name) for name in ("parts", "whole"))
    assert list(found.prompts) == list(expected.prompts) == PROMPTS
    for index in range(len(PROMPTS)):
        for one, other in zip(found.latents(index), expected.latents(index), strict=True):
            assert torch.equal(one, other)


def test_parts_of_other_pairs_are_not_taken_for_these(
    recipe: Recipe, archive: Path, tmp_path: Path
) -> None:
    pairs, policy = read_video_pairs(archive), vae_of(recipe)
    PairEncoding(pairs[:2], tmp_path / "parts").missing()[0].write(policy.encode_video)
    encoding = PairEncoding(pairs, tmp_path / "parts")
    assert len(encoding.missing()[0].pairs) == 3
