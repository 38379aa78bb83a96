"""Prompts that carry a picture, from their file to the archive and back."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.families.wan_i2v import PICTURE
from tests.unit.data.test_archive import best_vs_worst, group, record
from tests.unit.data.test_preferences import PREFERENCES, row, save
from videorl.config import OfflineConfig, Recipe
from videorl.data.archive import Archive, read_table
from videorl.data.preferences import read_preferences
from videorl.data.prompt_files import read_prompts
from videorl.data.prompts import PromptStream, check_sources, problem_of_images
from videorl.embedding import Embedding
from videorl.errors import ArchiveError, ConfigError, PromptError
from videorl.evaluation.record import group_from_json, group_to_json
from videorl.files.images import read_image
from videorl.learning.stored_pairs import PairStream, check_archive
from videorl.run.folder import RunFolder
from videorl.run.inputs import inputs_of
from videorl.types import BLANK, Condition, TextAndImage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.open(PICTURE).save(tmp_path / "images/cat.png")
    (tmp_path / "images/broken.png").write_bytes(b"no picture")
    return tmp_path


def write(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


CAT = {"prompt": "a cat", "image": "images/cat.png"}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_path_is_relative_to_the_file_or_absolute(kind: str, folder: Path) -> None:
    path = folder / f"prompts.{kind}"
    rows = [CAT, {"prompt": "a cat", "image": str(PICTURE)}, {"prompt": "a cat", "image": ""}]
    if kind == "jsonl":
        write(folder, *rows)
    elif kind == "csv":
        path.write_text("prompt,image\n" + "\n".join(",".join(row.values()) for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    found = [row.image for row in read_prompts(path)]
    assert found == [str(folder / "images/cat.png"), str(PICTURE), ""], "three prompts of one text"


def test_a_row_whose_picture_cannot_be_read_is_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing, broken = ({"prompt": "x", "image": f"images/{n}.png"} for n in ("dog", "broken"))
    path = write(folder, CAT, missing, broken, {"prompt": "y", "image": 3})  # pyright: ignore
    with caplog.at_level(logging.WARNING):
        assert len(read_prompts(path)) == 1
    for said in (
        f"line 2: image {folder / 'images/dog.png'} cannot be read: ",
        f"line 3: image {folder / 'images/broken.png'} cannot be read: cannot identify",
        "line 4: image must be the path of a picture, got 3",
    ):
        assert said in caplog.text


def test_the_stream_gives_what_a_policy_encodes(folder: Path) -> None:
    stream = PromptStream(read_prompts(write(folder, CAT)), 0)
    assert stream[3].condition == TextAndImage("a cat", str(folder / "images/cat.png"))
    assert replace(stream[3], image="").condition == "a cat"


def test_policies_refuse_prompts_of_the_other_kind(folder: Path) -> None:
    recipe = Recipe(name="images", num_steps=1)
    recipe.prompts.source, recipe.evaluation.source = str(write(folder, CAT)), ""
    with pytest.raises(ConfigError, match=r"source: 1 of 1 prompts have an image.*'a cat'"):
        check_sources(recipe)
    recipe.policy.family = "wan_i2v"
    check_sources(recipe)
    write(folder, CAT, {"prompt": "a dog"})
    with pytest.raises(ConfigError, match=r"1 of 2 prompts have no image, first: 'a dog'"):
        check_sources(recipe)
    assert problem_of_images([], "wan_i2v") is None


def test_a_run_knows_pictures_by_their_content(folder: Path) -> None:
    recipe = Recipe(name="images", num_steps=1)
    recipe.policy.family = "wan_i2v"
    recipe.prompts.source, recipe.evaluation.source = str(write(folder, CAT)), ""
    before = inputs_of(recipe)["prompts.source"].content.digest
    (folder / "images").rename(folder / "moved")
    write(folder, CAT | {"image": "moved/cat.png"})
    assert inputs_of(recipe)["prompts.source"].content.digest == before
    Image.new("RGB", (8, 8)).save(folder / "moved/cat.png")
    assert inputs_of(recipe)["prompts.source"].content.digest != before


def test_an_archive_keeps_the_picture_for_offline_training(tmp_path: Path) -> None:
    plain = group(0)
    prompt = replace(plain.prompt, image=str(PICTURE))
    candidates = [
        replace(scored, candidate=replace(scored.candidate, prompt=prompt))
        for scored in plain.candidates
    ]
    scored = replace(plain, prompt=prompt, candidates=tuple(candidates))
    archive = Archive(tmp_path / "archive", "none", keep_latents=True)
    archive.write(record(0, [scored], [best_vs_worst(scored)]))
    assert read_table(tmp_path / "archive", "prompts")["image"].to_pylist()[0] == str(PICTURE)
    preferences = read_preferences(tmp_path / "archive")
    assert list(preferences.images) == [str(PICTURE)]
    asked: list[Condition] = []

    def encode(prompt: Condition) -> Embedding:
        asked.append(prompt)
        return Embedding({})

    pair = PairStream(preferences, encode, 0)[0]
    assert asked == [pair.prompt.condition] == [TextAndImage(pair.prompt.text, str(PICTURE))]
    assert group_from_json(group_to_json(scored)).prompt == prompt


def test_stored_pairs_may_have_a_column_of_pictures(folder: Path) -> None:
    schema = PREFERENCES.append(pa.field("image", pa.string()))
    place = folder / "pairs.parquet"
    pairs = (row(1, image="images/cat.png"), row(2, image="images/no.png"))
    found = read_preferences(save(place, *pairs, schema=schema))
    assert (list(found.prompts), list(found.images)) == (
        ["prompt 1"],
        [str(folder / "images/cat.png")],
    )
    recipe = Recipe(name="images", num_steps=1, offline=OfflineConfig(archive=str(place)))
    with pytest.raises(ArchiveError, match="wan needs prompts without an `image`"):
        check_archive(recipe, RunFolder(folder / "run"))
    recipe.policy.family = "wan_i2v"
    check_archive(recipe, RunFolder(folder / "run"))
    save(place, row(1))
    with pytest.raises(ArchiveError, match="wan_i2v needs an `image` with every prompt"):
        check_archive(recipe, RunFolder(folder / "run"))


def test_pictures_are_upright_and_in_colour(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: a quarter turn
    Image.new("L", (6, 4), 50).save(tmp_path / "grey.jpg", exif=turned)
    found = read_image(str(tmp_path / "grey.jpg"), 1, 1)
    assert (found.mode, found.size) == ("RGB", (4, 6))
    assert read_image(BLANK, 32, 16).size == (32, 16)
    with pytest.raises(PromptError, match="cannot be read"):
        read_image(str(tmp_path / "no.png"), 1, 1)
