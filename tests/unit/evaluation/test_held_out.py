"""Which prompts are held out, and what is written down of them."""

from __future__ import annotations

import json
from pathlib import Path

from videorl.config import Recipe
from videorl.evaluation.evaluate import summarise
from videorl.evaluation.held_out import held_out_prompts
from videorl.evaluation.record import read_groups, write_groups
from videorl.recipes.reading import load_recipe
from videorl.types import Candidate, Prompt, Score, ScoredCandidate, ScoredGroup, WeightVersion


def recipe(source: Path, *overrides: str) -> Recipe:
    return load_recipe("moving_shapes", [f"evaluation.source={source}", *overrides])


def group(prompt: Prompt) -> ScoredGroup:
    candidate = Candidate(0, prompt, 0, 7, WeightVersion(0, "abc"), None, None)
    return ScoredGroup(prompt, None, (ScoredCandidate(candidate, Score({"a": 1.0}, 1.0)),), {})


def test_held_out_prompts_of_a_table_have_ids_and_tags_and_a_weight_of_0_leaves_one_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "held_out.csv"
    path.write_text('caption,id,tags,weight\na,1,,5\nb,2,x,0\nc,3,"y,z",1\n')
    found = held_out_prompts(recipe(path, "evaluation.column=caption"))
    assert found == [Prompt(0, "a", "1"), Prompt(1, "c", "3", ("y", "z"))]


def test_the_choice_depends_on_the_seed_alone(tmp_path: Path) -> None:
    path = tmp_path / "held_out.txt"
    path.write_text("\n".join(map(str, range(10))))
    found = held_out_prompts(recipe(path, "evaluation.num_prompts=3", "seed=9"))
    assert [(prompt.index, prompt.text) for prompt in found] == [(5, "5"), (8, "8"), (9, "9")]


def test_ids_and_tags_are_in_the_record(tmp_path: Path) -> None:
    groups = [group(Prompt(0, "a", "cat-1", ("x", "y"))), group(Prompt(1, "b"))]
    write_groups(tmp_path / "after.json", groups)
    assert read_groups(tmp_path / "after.json") == groups


def test_a_record_of_a_version_without_ids_is_compared_with_one_of_today(tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    write_groups(path, [group(Prompt(0, "a"))])
    saved = json.loads(path.read_text())
    del saved["groups"][0]["prompt"]["id"], saved["groups"][0]["prompt"]["tags"]
    path.write_text(json.dumps(saved))
    assert summarise(read_groups(path), [group(Prompt(0, "a", "cat-1"))]).num_prompts == 1
