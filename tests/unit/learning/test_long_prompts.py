"""Prompts that the text encoder does not take: left out or cut off, however a policy learns."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakePolicy
from tests.small_runs import small_recipe
from tests.unit.data.test_preferences import LOOSE, row, save
from tests.video_pairs import PROMPTS, save_table, save_video_pairs
from videorl.config import Recipe
from videorl.data.preferences import read_preferences
from videorl.data.prompts import PromptStream
from videorl.embedding import Embedding
from videorl.errors import PromptError
from videorl.learning.prompts import PromptExamples
from videorl.learning.stored_pairs import PairStream
from videorl.one_process import train_alone, train_online
from videorl.run.folder import open_run
from videorl.run.sinks import read_metrics
from videorl.types import Condition

LONG = "a large red circle moving left " * 9
SHORT = ["a large red circle moving left", "a small blue square moving up"]


def encode(text: Condition) -> Embedding:
    return FakePolicy().encode([text])[0]


def metrics_of(recipe: Recipe) -> list[dict[str, Any]]:
    work = train_online if recipe.learns_online else train_alone
    with open_run(recipe) as folder:
        assert work(recipe, folder, lambda: False)
        return read_metrics(folder.metrics)


def test_the_next_prompt_takes_the_place_of_one_that_is_too_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    texts = ["a", LONG, "b", "c"]
    stream = PromptStream(texts, seed=0)
    examples = PromptExamples(stream, "", encode)
    with caplog.at_level(logging.WARNING):
        found = [examples[position] for position in range(12)]
    bad = [position for position in range(12) if stream[position].text == LONG]
    assert examples.num_skipped == len(bad) == 3
    assert caplog.text.count("left out, the next takes its place: prompt") == 1
    for position, example in enumerate(found):
        taken = stream[position + 1 if position in bad else position]
        assert example.prompt.text == taken.text
        assert example.prompt.index == position, "the seed of its video derives from it"
    again = PromptExamples(PromptStream(texts, seed=0), "", encode)
    assert [again[position].prompt for position in reversed(range(12))][::-1] == [
        example.prompt for example in found
    ]
    with pytest.raises(PromptError, match="nothing is left to learn from; the last problem was"):
        PromptExamples(PromptStream([LONG, LONG + "x"], 0), "", encode)[3]
    # The only good prompt is found from wherever in an epoch.
    for seed in range(20):
        few = PromptExamples(PromptStream([LONG, "a"], seed), "", encode)
        assert {few[position].prompt.text for position in range(6)} == {"a"}


def test_the_next_pair_takes_the_place_of_one_that_cannot_be_used(tmp_path: Path) -> None:
    rows = [row(1), row(2, prompt=LONG), row(3, chosen_latents=b"12"), row(4)]
    preferences = read_preferences(save(tmp_path / "x.parquet", *rows, schema=LOOSE))
    pairs = PairStream(preferences, encode, seed=0)
    for epoch in range(3):
        texts = [pairs[4 * epoch + place].prompt.text for place in range(4)]
        assert set(texts) == {"prompt 1", "prompt 4"}
    assert pairs.num_skipped >= 6
    assert [pairs[position].prompt.index for position in range(4)] == [0, 1, 2, 3]
    rows = [row(1, prompt=LONG), row(2, chosen_latents=b"12")]
    preferences = read_preferences(save(tmp_path / "y.parquet", *rows, schema=LOOSE))
    with pytest.raises(PromptError, match="nothing is left to learn from"):
        PairStream(preferences, encode, seed=0)[1]


@pytest.mark.parametrize("kind", ["online", "refl", "offline"])
def test_runs_go_on_without_them_or_with_what_is_left_of_them(
    kind: str,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = tmp_path / "prompts.txt"
    source.write_text("\n".join([LONG, *SHORT]))
    archive = save_video_pairs(tmp_path / "archive") if kind == "offline" else None
    counts = {"online": "groups/dropped_prompt_rejected"}
    for choice in ("skip", "truncate"):
        name = "moving_shapes_refl" if kind == "refl" else "moving_shapes"
        recipe = small_recipe(name, tiny_checkpoints, tmp_path / choice)
        recipe.prompts.source, recipe.sampling.long_prompts = str(source), choice
        recipe.num_steps, recipe.prompts.per_round = 3, 1
        if archive:
            recipe.offline.archive = str(save_table(archive, prompt=[LONG, *PROMPTS[1:]]))
        with caplog.at_level(logging.WARNING):
            rows = metrics_of(recipe)
        skipped = sum(row.get(counts.get(kind, "examples/skipped"), 0) for row in rows)
        assert (len(rows), skipped) == (3, 1 if choice == "skip" else 0)
        said = "tokens, but sampling.max_sequence_length is 16" in caplog.text
        assert said == (choice == "skip")
        caplog.clear()
