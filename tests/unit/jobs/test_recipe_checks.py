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
    check_downloads,
    check_memory,
    check_models,
    check_room,
    check_sources,
    check_versions,
    check_workers,
    models_of,
    pin_and_check,
    sizes_gb,
)
from tests.hub_server import serve
from videorl.config import Recipe
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


def test_the_default_recipe_is_sound_here(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    # The plan counts for ten seconds; `videorl plan` has a test of it.
    monkeypatch.setattr("videorl.planning.nodes.count_peaks", lambda *_, **__: {"learner": 0.2})
    idle = replace(facts(recipe), memory_gb=64.0, memory_free_gb=64.0)
    findings = [finding for check in CHECKS for finding in check(recipe, [idle])]
    assert [finding for finding in findings if finding.status != "ok"] == []
    assert {finding.name for finding in findings} == {
        "model",
        "prompts",
        "workers",
        "versions",
        "memory",
        "fit",
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
    assert presence("someone/something") == "to download", "of another revision"
    (tmp_path / "models--someone--something/refs").mkdir()
    (tmp_path / "models--someone--something/refs/main").write_text("abc")
    (tmp_path / "models--someone--something/snapshots/abc/config.json").write_text("{}")
    assert presence("someone/something") == "to download", "a plan reads that too"
    (tmp_path / "models--someone--something/snapshots/abc/model.safetensors").touch()
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
    assert found.status == "broken" and "2 GPUs there" in found.found
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


@pytest.mark.long
def test_memory_counts_models_that_are_not_here_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    recipe = load_recipe("wan_1_3b_three_rewards")
    sizes = sizes_gb(recipe)
    # Transformer and VAE are published in float32, the text encoder in bfloat16.
    assert sizes["policy.path"] == pytest.approx(1.419 * 4 + 0.127 * 4 + 5.681 * 2, rel=0.01)
    assert sizes["rewards.2.path"] == pytest.approx(8.43 * 2, rel=0.01)
    small = replace(facts(recipe), memory_gb=16.0)
    assert the(check_memory, recipe, [small]).status == "broken"
    assert the(check_memory, recipe, [replace(small, memory_gb=64.0)]).status == "ok"


def test_a_cache_without_room_for_what_is_to_download(recipe: Recipe) -> None:
    here = facts(recipe)
    assert check_downloads(recipe, [here]) == [], "all of it is here"
    recipe.rewards[0].name = "video_score"
    lacking = replace(here, name="b", models={"rewards.0.path": "to download"}, cache_free_gb=16.0)
    found = the(check_downloads, recipe, [here, lacking])
    assert found.status == "broken"  # 8.43 billion numbers of 2 bytes, and the tiny policy
    assert "16.9 GB to download, 16.0 GB free in the hub's cache on b" in found.found
    roomy = replace(lacking, cache_free_gb=18.0)
    assert the(check_downloads, recipe, [here, roomy]).status == "ok"


def test_the_archive_of_latents_and_videos_by_hand(recipe: Recipe) -> None:
    recipe.num_steps, recipe.prompts.per_round, recipe.archive.videos = 10, 2, "pairs"
    recipe.prompts.candidates_per_prompt = 4
    pixels = 9 * 32 * 32
    assert archive_gb(recipe) == pytest.approx(40 * pixels * 0.1 / 1e9)
    recipe.archive.videos, recipe.archive.latents = "none", True
    assert archive_gb(recipe) == pytest.approx(10 * 2 * 2 * pixels / 256 * 64 / 1e9)
    recipe.archive.every = 4  # steps 0, 4 and 8
    assert archive_gb(recipe) == pytest.approx(3 * 2 * 2 * pixels / 256 * 64 / 1e9)
    recipe.archive.keep_gb = 1e-6
    assert archive_gb(recipe) == 1e-6


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


def test_the_hub_is_asked_once_and_what_it_refuses_is_broken(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pin_and_check(recipe) == []
    recipe.policy.path, recipe.policy.lora.initial = "a/policy@v1", "a/adapter"
    with serve(monkeypatch, tmp_path / "cache") as hub:
        commit = hub.add("a/policy", {"model_index.json": "{}"}, "v1")
        hub.add("a/adapter", {"x.safetensors": ""})
        hub.gated.add("a/adapter")
        first, second = pin_and_check(recipe)
        assert first == Finding("hub", "ok", f"policy.path: a/policy@{commit}")
        assert recipe.policy.path == f"a/policy@{commit}"
        assert (second.status, second.name) == ("broken", "hub")
        assert "policy.lora.initial: a/adapter is gated" in second.found
        assert hub.asked == [], "no file is downloaded"
