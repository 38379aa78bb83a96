"""What the doctor says of a recipe and the machines it would run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import doctor
from jobs.recipe_checks import (
    CHECKS,
    Check,
    Finding,
    archive_gb,
    check_memory,
    check_models,
    check_room,
    check_sources,
    check_versions,
    check_workers,
    models_of,
    trained_numbers,
)
from videorl.config import Recipe
from videorl.policies import load_policy
from videorl.recipes.reading import load_recipe
from videorl.run.node_facts import NodeFacts, facts_here, presence


def facts(recipe: Recipe) -> NodeFacts:
    return facts_here(recipe.run_dir, models_of(recipe))


def the(check: Check, recipe: Recipe, nodes: Sequence[NodeFacts] | None = None) -> Finding:
    """Return the only finding of a check."""
    (finding,) = check(recipe, nodes or [facts(recipe)])
    return finding


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe("moving_shapes", [f"run_dir={tmp_path}/not/yet"])


def test_the_default_recipe_is_sound_here(recipe: Recipe) -> None:
    findings = [finding for check in CHECKS for finding in check(recipe, [facts(recipe)])]
    assert [finding for finding in findings if finding.status != "ok"] == []
    assert {finding.name for finding in findings} == {
        "model",
        "prompts",
        "workers",
        "versions",
        "memory",
        "room",
    }


def test_models_that_are_missing_or_not_in_the_cache(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    recipe.policy.path = str(tmp_path / "absent")
    found = the(check_models, recipe)
    assert found.status == "broken"
    assert "policy.path" in found.found and facts(recipe).name in found.found
    recipe.policy.path = "someone/something"
    assert the(check_models, recipe).status == "warning"
    (tmp_path / "models--someone--something/snapshots/abc").mkdir(parents=True)
    assert presence("someone/something") == "cached"
    assert the(check_models, recipe).status == "ok"
    recipe.rewards[0].name = "video_reward"
    assert [found.status for found in check_models(recipe, [facts(recipe)])] == ["ok", "warning"]


def test_prompts_that_cannot_be_read(recipe: Recipe) -> None:
    recipe.prompts.source = "absent.txt"
    assert the(check_sources, recipe).status == "broken"


def test_more_gpus_than_there_are(recipe: Recipe) -> None:
    node = replace(facts(recipe), resources={"CPU": 64.0, "GPU": 2.0})
    recipe.generators.num_gpus, recipe.generators.min_workers = 1, 4
    recipe.generators.max_workers = 4
    found = the(check_workers, recipe, [node])
    assert found.status == "broken" and "2 there" in found.found
    four = replace(node, resources={"CPU": 64.0, "GPU": 8.0})
    assert the(check_workers, recipe, [four]).status == "ok"


def test_versions_that_differ_between_nodes(recipe: Recipe) -> None:
    here = facts(recipe)
    other = replace(here, name="other", versions={**here.versions, "torch": "1.0"})
    assert the(check_versions, recipe, [here, replace(here, name="same")]).status == "ok"
    found = the(check_versions, recipe, [here, other])
    assert found.status == "broken" and "1.0 on other" in found.found
    assert here.versions["torch"] in found.fix


def test_too_little_memory_or_disk(recipe: Recipe) -> None:
    small = replace(facts(recipe), memory_gb=0.0, disk_free_gb=0.0)
    assert the(check_memory, recipe, [small]).status == "broken"
    assert the(check_room, recipe, [small]).status == "broken"


@pytest.mark.parametrize("rank", [0, 4])
def test_what_is_trained_is_counted_from_the_headers(recipe: Recipe, rank: int) -> None:
    recipe.policy.lora.rank = rank
    policy = load_policy(
        recipe.policy, recipe.sampling, parts=frozenset({"transformer"}), trainable=True
    )
    parameters = policy.trainable_module().parameters()
    assert trained_numbers(recipe) == sum(p.numel() for p in parameters if p.requires_grad)


def test_the_archive_of_latents_and_videos_by_hand(recipe: Recipe) -> None:
    recipe.num_steps, recipe.prompts.per_round, recipe.archive.videos = 10, 2, "pairs"
    pixels = 9 * 32 * 32
    assert archive_gb(recipe) == pytest.approx(40 * pixels * 0.1 / 1e9)
    recipe.archive.videos, recipe.archive.latents = "none", True
    assert archive_gb(recipe) == pytest.approx(10 * 2 * 4 * pixels / 256 * 64 / 1e9)


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def check_nothing(recipe: Recipe, nodes: Sequence[NodeFacts]) -> list[Finding]:
        raise OSError("no such device")

    monkeypatch.setattr(doctor, "CHECKS", [check_nothing, check_versions])
    findings = doctor.check_recipe("moving_shapes", [f"run_dir={tmp_path}"], "local")
    assert [(found.name, found.status) for found in findings] == [
        ("nothing", "broken"),
        ("versions", "ok"),
    ]
