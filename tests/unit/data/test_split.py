"""Prompts that are taken away from training by a hash."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from videorl.config import Recipe
from videorl.data.prompt_rows import PromptRow
from videorl.data.prompts import check_sources, evaluation_prompts, open_prompts, training_prompts
from videorl.data.split import split
from videorl.errors import ConfigError, PromptError
from videorl.recipes.reading import load_recipe

TEXTS = [f"ball {number}" for number in range(20)]


def recipe(tmp_path: Path, *settings: str) -> Recipe:
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS))
    places = [f"prompts.source={tmp_path / 'prompts.txt'}", f"run_dir={tmp_path / 'run'}"]
    return load_recipe("moving_shapes", [*places, *settings])


def test_the_smallest_hashes_are_held_out() -> None:
    rows = [PromptRow(text) for text in TEXTS]
    by_hash = sorted(TEXTS, key=lambda text: sha256(f"{text}\n".encode()).hexdigest())
    kept, held_out = split(rows, 5)
    assert [row.text for row in held_out] == [text for text in TEXTS if text in by_hash[:5]]
    assert [row.text for row in kept] == [text for text in TEXTS if text in by_hash[5:]]


def test_neither_order_nor_what_is_added_moves_a_prompt_across() -> None:
    rows = [PromptRow(text) for text in TEXTS]
    shuffled = random.Random(3).sample(rows, len(rows))
    assert {row.text for row in split(shuffled, 5)[1]} == {row.text for row in split(rows, 5)[1]}
    more = [*rows, *(PromptRow(f"cube {number}") for number in range(20))]
    held_out = {row.text for row in split(more, 5)[1]}
    assert {text for text in held_out if text in TEXTS} <= {row.text for row in split(rows, 5)[1]}


def test_pictures_of_the_same_name_and_words_are_told_apart_by_their_folder(
    tmp_path: Path,
) -> None:
    """Not by the order of a set, which is another one in the process that goes on with a run."""
    for number in range(12):
        pictures = [tmp_path / folder / f"{number}.png" for folder in ("b", "a")]
        for picture in pictures:
            picture.parent.mkdir(exist_ok=True)
            Image.new("L", (4, 4)).save(picture)
        rows = [PromptRow("turn", image=str(picture)) for picture in pictures]
        assert [row.image for row in split(rows, 1)[1]] == [str(pictures[1])]


def test_what_differs_in_case_alone_goes_to_the_same_side_and_weights_of_0_stay() -> None:
    rows = [PromptRow(text) for text in TEXTS]
    (first, *_) = split(rows, 1)[1]
    twin = PromptRow(f"  {first.text.upper()} ")
    never = PromptRow("never", weight=0)
    kept, held_out = split([*rows, twin, never], 1)
    assert held_out == [first, twin]
    assert never in kept


def test_a_run_trains_on_the_rest(tmp_path: Path) -> None:
    made = recipe(tmp_path, "evaluation.source=split 6", "fixed_prompts.interval=1")
    trained = {row.text for row in training_prompts(made)}
    held_out = {row.text for row in evaluation_prompts(made)}
    assert (len(trained), len(held_out), trained | held_out) == (14, 6, {*TEXTS})
    stream = open_prompts(made)
    assert {stream[index].text for index in range(len(stream))} == trained
    check_sources(made)


def test_taking_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="split 20 would take all of the 20 prompts"):
        check_sources(recipe(tmp_path, "evaluation.source=split 20"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["evaluation.source=split 0"], "split N: N must be >= 1, got 0"),
        (["evaluation.source=split 5", "offline.archive=x"], "must name prompts where the run"),
        (["evaluation.source=split 5", "evaluation.column=text"], "column must not be set with"),
        (["evaluation.interval=-1"], "evaluation.interval must be >= 0"),
        (["evaluation.during_prompts=0"], "evaluation.during_prompts must be >= 1"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        recipe(tmp_path, *settings)
