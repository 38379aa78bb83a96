"""Finding, merging and comparing recipes; every bad input names its key and its place."""

from pathlib import Path

import pytest
import yaml

from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.objectives.dpo import FlowDPO
from videorl.recipes.fingerprint import differences, recipe_fingerprint
from videorl.recipes.reading import RECIPES, load_recipe, load_rewards, to_yaml

MINIMAL = """
name: small
policy: {path: somewhere}
prompts: {source: moving_shapes}
rewards:
  - {name: moving_shapes}
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(MINIMAL)
    return path


def fail(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_recipe(str(path), overrides)
    return str(raised.value)


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.yaml")))
def test_shipped_recipe_is_valid_and_named_as_its_file(name: str) -> None:
    assert load_recipe(name).name == name


def test_mpo_has_the_numbers_of_the_paper() -> None:
    """VisionReward, arXiv 2412.21059."""
    recipe = load_recipe("cogvideox_2b_mpo")
    assert recipe.policy.path == "THUDM/CogVideoX-2b"
    assert [one.name for one in recipe.rewards] == ["vision_reward"]
    assert (recipe.selection.rule, recipe.selection.min_margin) == ("dominating", 0.6)
    assert recipe.objective == FlowDPO(beta=500)
    assert (recipe.prompts.candidates_per_prompt, recipe.num_steps) == (4, 500)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.warmup_steps) == (5e-6, 100)
    assert recipe.prompts.per_round * 9400 / 22000 == pytest.approx(32, abs=0.5), "pairs of a step"
    assert recipe.reference.interval == 0


def test_overrides_win_over_yaml_which_wins_over_defaults(recipe_file: Path) -> None:
    recipe_file.write_text(MINIMAL + "num_steps: 7\nseed: 3\n")
    recipe = load_recipe(
        str(recipe_file),
        ["seed=4", "rewards.0.weight=2", "objective.beta=1e2", "optimizer.betas=[0.8,0.9]"],
    )
    assert (recipe.num_steps, recipe.seed, recipe.rollouts.max_staleness) == (7, 4, 0)
    assert (recipe.rewards[0].weight, recipe.objective) == (2.0, FlowDPO(beta=100.0))
    assert recipe.optimizer.betas == [0.8, 0.9]
    assert recipe.run_dir == "runs/small"


@pytest.mark.parametrize(
    ("override", "key", "nearest"),
    [
        ("num_step=3", "num_step", "num_steps"),
        ("objective.betta=3", "objective.betta", "objective.beta"),
        ("learning_rate=3", "learning_rate", "optimizer.learning_rate"),
        ("rewards.0.wieght=3", "rewards.0.wieght", "rewards.0.weight"),
        ("rewards=[{name: moving_shapes, wieght: 1}]", "rewards.0.wieght", "rewards.0.weight"),
        ("seed.value=3", "seed.value", "seed"),
    ],
)
def test_unknown_key_names_the_nearest_one(
    recipe_file: Path, override: str, key: str, nearest: str
) -> None:
    message = fail(recipe_file, override)
    assert message.startswith(f"unknown key {key} (override {override!r})")
    assert message.endswith(f"nearest known one is {nearest}")


def test_unknown_key_in_a_list_of_the_file_names_the_file(recipe_file: Path) -> None:
    recipe_file.write_text(MINIMAL + "  - {name: moving_shapes, num_worker: 2}\n")
    message = fail(recipe_file)
    assert message.startswith(f"unknown key rewards.1.num_worker ({recipe_file})")
    assert message.endswith("nearest known one is rewards.1.num_workers")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("num_steps=many", "num_steps must be a whole number, got 'many'"),
        ("num_steps=2.5", "num_steps must be a whole number, got 2.5"),
        ("num_steps=true", "num_steps must be a whole number, got True"),
        ("objective.beta=null", "objective.beta must be a number, got None"),
        ("policy=wan", "policy must be a section of `key: value` lines, got 'wan'"),
        ("optimizer.betas=0.9", "optimizer.betas must be a list, got 0.9"),
        ("optimizer.betas=[a, 0.9]", "optimizer.betas.0 must be a number, got 'a'"),
        ("rewards.1.weight=2", "there is no rewards.1"),
        ("seed", "an override is key=value, got 'seed'"),
        ("seed=[a", "seed has a value that is not YAML"),
        ("run_dir=${nothing}", "Interpolation key 'nothing' not found"),
    ],
)
def test_wrong_value_is_told_in_plain_words(
    recipe_file: Path, override: str, expected: str
) -> None:
    assert expected in fail(recipe_file, override)


def test_an_override_without_a_value_empties_a_text(recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file), ["evaluation.source=", "rewards.0.path="])
    assert (recipe.evaluation.source, recipe.rewards[0].path) == ("", None)
    assert "num_steps must be a whole number, got None" in fail(recipe_file, "num_steps=")


def test_override_can_give_what_the_file_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "partial.yaml"
    path.write_text("rewards:\n  - {weight: 2}\n")
    overrides = ["run_dir=here", "name=a", "policy.path=b", "prompts.source=c"]
    recipe = load_recipe(str(path), [*overrides, "rewards.0.name=moving_shapes"])
    assert (recipe.run_dir, recipe.name, recipe.policy.path) == ("here", "a", "b")


def test_missing_required_keys_are_listed(recipe_file: Path) -> None:
    recipe_file.write_text("name: small\nrewards:\n  - {weight: 2}\n")
    message = fail(recipe_file)
    assert message == f"{recipe_file} must set policy.path, prompts.source, rewards[0].name"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: [", "not readable YAML"),
        (b"name: a\nname: b", "found duplicate key name"),
        (b"- name", "must hold `key: value` lines"),
        (b"name: \xff", "not readable YAML"),
    ],
)
def test_broken_file(recipe_file: Path, content: bytes, expected: str) -> None:
    recipe_file.write_bytes(content)
    assert expected in fail(recipe_file)


def test_unknown_recipe_lists_the_known_ones() -> None:
    message = fail(Path("moving_shape"))
    assert ", moving_shapes" in message
    assert message.endswith("did you mean moving_shapes?")


def test_resolved_yaml_reads_back_equal(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(recipe_file), ["objective.beta=77", "rewards.0.options={a: [1]}"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(to_yaml(recipe))
    assert load_recipe(str(copy)) == recipe
    assert "run_dir: runs/small" in copy.read_text()


def test_fingerprint_ignores_what_a_resume_may_change(recipe_file: Path) -> None:
    first = load_recipe(str(recipe_file))
    longer = load_recipe(
        str(recipe_file),
        [
            "num_steps=2000",
            "run_dir=elsewhere",
            "generators.max_workers=9",
            "generators.candidates_per_request=1",
            "rewards.0.num_workers=3",
            "rewards.0.max_workers=9",
            "learner.micro_batch_size=1",
            "checkpoint.interval=1",
        ],
    )
    assert recipe_fingerprint(first) == recipe_fingerprint(longer)
    assert differences(to_yaml(first), to_yaml(longer), Recipe) == []


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("seed=1", "seed: 0 -> 1"),
        ("objective.beta=100.0", "objective.beta: 500.0 -> 100.0"),
        ("learner.updates_per_round=2", "learner.updates_per_round: 1 -> 2"),
        ("learner.loss_over=planned", "learner.loss_over: found -> planned"),
        ("rewards.0.weight=2.0", "rewards.0.weight: 1.0 -> 2.0"),
        ("rewards.0.options={x: 1}", "rewards.0.options.x: unset -> 1"),
    ],
)
def test_fingerprint_covers_what_decides_the_result(
    recipe_file: Path, override: str, difference: str
) -> None:
    first, other = load_recipe(str(recipe_file)), load_recipe(str(recipe_file), [override])
    assert recipe_fingerprint(first) != recipe_fingerprint(other)
    assert differences(to_yaml(first), to_yaml(other), Recipe) == [difference]


def test_reward_models_alone(recipe_file: Path) -> None:
    recipe_file.write_text(MINIMAL.replace("policy: {path: somewhere}\n", ""))
    rewards = load_rewards(
        ["video_reward=models/v", "vision_reward"], str(recipe_file), ["rewards.1.num_workers=3"]
    )
    assert [(one.name, one.path) for one in rewards] == [
        ("moving_shapes", None),
        ("video_reward", "models/v"),
        ("vision_reward", None),
    ]
    assert [one.num_workers for one in rewards] == [1, 3, 1]
    twice = ["video_reward=a", "video_reward=b"]
    labelled = load_rewards(twice, None, ["rewards.1.label=second"])
    assert [one.key for one in labelled] == ["video_reward", "second"]


@pytest.mark.parametrize(
    ("models", "overrides", "expected"),
    [
        ([], [], "rewards must list at least one reward model"),
        (["video_reword"], [], "rewards.0.name must be one of"),
        (["video_reward=a", "video_reward=b"], [], "rewards must have one label"),
        (["video_reward"], ["seed=3"], "only rewards can be set here, got override 'seed=3'"),
        (["video_reward"], ["rewards.0.wieght=3"], "unknown key rewards.0.wieght"),
    ],
)
def test_reward_models_that_make_no_sense(
    models: list[str], overrides: list[str], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_rewards(models, None, overrides)


def test_a_setting_that_is_newer_than_a_run_has_its_default_there(recipe_file: Path) -> None:
    text = to_yaml(load_recipe(str(recipe_file), []))
    settings = yaml.safe_load(text)
    del settings["objective"]["protect_chosen"], settings["rewards"][0]["max_retries"]
    older = yaml.safe_dump(settings)
    assert differences(older, text, Recipe) == []
    changed = to_yaml(load_recipe(str(recipe_file), ["objective.protect_chosen=true"]))
    assert differences(older, changed, Recipe) == ["objective.protect_chosen: unset -> True"]
