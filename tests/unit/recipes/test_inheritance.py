"""Recipes that inherit: what comes from where, and every way in which a base can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from videorl.errors import ConfigError
from videorl.guidance.recipe import load_latent_reward_recipe
from videorl.objectives.dpo import FlowDPO
from videorl.objectives.flow_rwr import FlowRWR
from videorl.recipes.fingerprint import recipe_fingerprint
from videorl.recipes.reading import load_recipe, load_rewards, to_yaml
from videorl.reward_training.recipes import load_reward_recipe
from videorl.selection import BestVsWorst

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return made


def refused(path: Path, load: Callable[[str], object] = load_recipe) -> str:
    with pytest.raises(ConfigError) as raised:
        load(str(path))
    return str(raised.value)


def test_a_variant_states_what_differs(write: Write) -> None:
    path = write("own.yaml", "base: moving_shapes\nname: own\noptimizer: {learning_rate: 0.5}\n")
    own, base = load_recipe(str(path)), load_recipe("moving_shapes")
    assert own.optimizer.learning_rate == 0.5
    assert own.optimizer.betas == base.optimizer.betas == [0.9, 0.99]
    own.optimizer.learning_rate = base.optimizer.learning_rate
    own.name, own.run_dir = base.name, base.run_dir
    assert own == base
    assert "base:" not in to_yaml(own)


def test_lists_and_maps_of_free_keys_are_replaced_whole(write: Write) -> None:
    write(
        "first.yaml",
        "base: moving_shapes\nlearner: {resources: {fast: 1, near: 1}}\n"
        "selection: {rule: weighted, weights: {visual_quality: 1, text_alignment: 2}}\n"
        "rewards: [{name: moving_shapes, weight: 2, num_cpus: 0.5}, {name: video_reward}]\n",
    )
    path = write(
        "second.yaml",
        "base: first.yaml\nname: second\nlearner: {resources: {fast: 2}}\n"
        "selection: {weights: {motion_quality: 1}}\nrewards: [{name: moving_shapes}]\n",
    )
    recipe = load_recipe(str(path))
    assert [(reward.name, reward.weight) for reward in recipe.rewards] == [("moving_shapes", 1)]
    assert recipe.rewards[0].num_cpus == 1, "the default, as the list was replaced"
    assert recipe.learner.resources == {"fast": 2}
    assert recipe.selection.dimensions() == ("motion_quality",)


def test_another_objective_or_rule_keeps_only_what_it_has_too(write: Write) -> None:
    write(
        "dpo.yaml",
        "base: moving_shapes\nobjective: {beta: 7, timesteps_per_pair: 3, sft_weight: 0.5}\n"
        "selection: {rule: single_dimension, dimension: motion_quality, min_margin: 0.25}\n",
    )
    text = (
        "base: dpo.yaml\nname: rwr\nobjective: {name: flow_rwr}\nselection: {rule: best_vs_worst}"
    )
    rwr = load_recipe(str(write("rwr.yaml", text)))
    assert rwr.objective == FlowRWR(timesteps_per_pair=3)
    assert rwr.selection == BestVsWorst(min_margin=0.25)
    back = write("back.yaml", "base: rwr.yaml\nname: back\nobjective: {name: flow_dpo}\n")
    assert load_recipe(str(back)).objective == FlowDPO(timesteps_per_pair=3), "beta is the default"
    same = write("same.yaml", "base: dpo.yaml\nname: same\nobjective: {name: flow_dpo, beta: 8}\n")
    assert load_recipe(str(same)).objective == FlowDPO(beta=8, timesteps_per_pair=3, sft_weight=0.5)


def test_a_setting_of_the_base_s_objective_is_refused_in_a_variant_with_another(
    write: Write,
) -> None:
    path = write("own.yaml", "base: moving_shapes_sft\nname: own\nobjective: {beta: 3}\n")
    message = refused(path)
    assert "objective.beta belongs to objective.name=flow_dpo, but sft is chosen" in message
    assert str(path) in message


def test_name_and_run_dir_are_not_inherited(write: Write) -> None:
    write("first.yaml", "base: moving_shapes\nname: first\nrun_dir: runs/elsewhere\n")
    path = write("second.yaml", "base: first.yaml\nname: second\n")
    assert load_recipe(str(path)).run_dir == "runs/second"
    assert refused(write("third.yaml", "base: second.yaml\n")).endswith("third.yaml must set name")


def test_a_base_lies_beside_the_file_or_in_the_working_directory(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("here/common/near.yaml", "base: moving_shapes\nseed: 1\n")
    write("work/common/near.yaml", "base: moving_shapes\nseed: 2\n")
    write("work/common/far.yaml", "base: moving_shapes\nseed: 3\n")
    near = write("here/a.yaml", "base: common/near.yaml\nname: a\n")
    far = write("here/b.yaml", "base: common/far.yaml\nname: b\n")
    monkeypatch.chdir(tmp_path / "work")
    assert (load_recipe(str(near)).seed, load_recipe(str(far)).seed) == (1, 3)
    # A shipped name is that recipe, also in a file that is called the same.
    write("work/moving_shapes.yaml", "base: moving_shapes\nname: own\n")
    assert load_recipe("moving_shapes.yaml").name == "own"


def test_a_run_s_written_settings_are_a_base(write: Write) -> None:
    ran = load_recipe("moving_shapes_rwr", ["optimizer.learning_rate=0.25"])
    write("runs/first/config.yaml", to_yaml(ran))
    again = load_recipe(str(write("again.yaml", "base: runs/first/config.yaml\nname: again\n")))
    assert again.run_dir == "runs/again"
    again.name = ran.name
    assert recipe_fingerprint(again) == recipe_fingerprint(ran)


def test_reward_recipes_inherit_from_their_own_kind(write: Write) -> None:
    text = "base: video_reward\nname: own\nlabels: {train: t.csv}\nmodel: {lora: {rank: 8}}\n"
    reward = load_reward_recipe(str(write("reward.yaml", text)))
    assert (reward.num_steps, reward.model.lora.rank, reward.model.lora.alpha) == (5000, 8, 128)
    assert reward.model.base == "Qwen/Qwen2-VL-2B-Instruct", "model.base is another setting"
    path = write("latent.yaml", "base: moving_shapes\nname: own\nmodel: {num_layers: 2}\n")
    latent = load_latent_reward_recipe(str(path))
    assert (latent.model.num_layers, latent.labels.batch_size) == (2, 16)


def test_reward_models_of_an_inheriting_recipe_can_be_read_alone(write: Write) -> None:
    path = write("own.yaml", "base: moving_shapes_learned_reward\nname: own\n")
    assert [reward.name for reward in load_rewards([], str(path))] == [
        "video_reward",
        "moving_shapes",
    ]


def test_a_dict_is_a_recipe_too(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write("base.yaml", "base: moving_shapes\nseed: 3\n")
    monkeypatch.chdir(base.parent)
    given = {"base": "base.yaml", "name": "own", "optimizer": {"learning_rate": 0.5}}
    recipe = load_recipe(given, ["num_steps=2"])
    assert (recipe.seed, recipe.optimizer.learning_rate, recipe.num_steps) == (3, 0.5, 2)
    assert recipe.optimizer.betas == [0.9, 0.99]
    assert given["base"] == "base.yaml", "it is left as it was"
    with pytest.raises(ConfigError, match=r"unknown key optimiser \(the recipe given as a dict\)"):
        load_recipe({"base": "base.yaml", "name": "own", "optimiser": {}})
    with pytest.raises(ConfigError, match=r"given as a dict: there is no base 'bass\.yaml'"):
        load_recipe({"base": "bass.yaml", "name": "own"})


@pytest.mark.parametrize("files", [("a",), ("a", "b"), ("a", "b", "c")])
def test_a_circle_is_spelled_out(write: Write, files: tuple[str, ...]) -> None:
    paths = [
        write(f"{name}.yaml", f"base: {after}.yaml\nname: {name}\n")
        for name, after in zip(files, (*files[1:], files[0]), strict=True)
    ]
    chain = " -> ".join(map(str, [*paths, paths[0]]))
    assert refused(paths[0]) == f"bases go round in a circle: {chain}"


def test_a_missing_base_says_who_named_it_and_the_nearest(write: Write) -> None:
    write("first.yaml", "base: moving_shape\n")
    message = refused(write("second.yaml", "base: first.yaml\nname: second\n"))
    assert "first.yaml: there is no base 'moving_shape'" in message
    assert "second.yaml" not in message
    assert message.endswith("did you mean moving_shapes?")
    message = refused(write("third.yaml", "base: lost/second.yaml\nname: third\n"))
    assert "third.yaml: there is no base 'lost/second.yaml'" in message
    assert ", moving_shapes_sft" in message
    assert refused(write("fourth.yaml", "base: .\nname: fourth\n")).startswith(
        f"{write('fourth.yaml', '')}: there is no base '.'"
    ), "a folder"


@pytest.mark.parametrize("base", ["", "3", "[moving_shapes]", "{name: moving_shapes}", "null"])
def test_a_base_is_a_text(write: Write, base: str) -> None:
    path = write("own.yaml", f"base: {base}\nname: own\n")
    assert refused(path).startswith("base must be a shipped recipe's name or the path of a file")
    assert refused(path).endswith(f"({path})")


def test_a_base_of_another_kind_says_so(write: Write) -> None:
    policy = write("policy.yaml", "base: video_reward\nname: policy\n")
    assert refused(policy) == (
        f"{policy}: base 'video_reward' is a recipe for `videorl train_reward`, but this one is "
        "read for `videorl train`: a recipe inherits from its own kind"
    )
    # The other way round, through a chain, and by a path.
    write("chained.yaml", "base: moving_shapes_sft\nname: chained\n")
    reward = write("reward.yaml", "base: chained.yaml\nname: reward\n")
    assert "chained.yaml: base 'moving_shapes_sft' is a recipe for `videorl train`, but" in (
        refused(reward, load_reward_recipe)
    )
    file = write("file.yaml", "name: x\nmodel: {base: somewhere}\nlabels: {train: t.csv}\n")
    latent = write("latent.yaml", "base: file.yaml\nname: latent\n")
    message = refused(latent, load_latent_reward_recipe)
    assert f"({file}, base of {latent})" in message
    assert message.endswith(
        "inherits from its own kind, here those of `videorl train_latent_reward`"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seeds: 3\n", "unknown key seeds ({base}, base of {own}); the nearest known one is"),
        ("seed: many\n", "seed must be a whole number, got 'many' ({base}, base of {own})"),
        ("objective: {name: dpo}\n", "objective.name must be one of flow_dpo"),
        ("objective: {name: sft, beta: 3}\n", "objective.beta belongs to objective.name=flow_dpo"),
        ("policy: wan\n", "policy must be a section of `key: value` lines, got 'wan' ({base}"),
        ("a: [\n", "{base} is not readable YAML"),
        ("# nothing\n", "{base}, base of {own}, is empty"),
        ("- a\n", "{base} must hold `key: value` lines, got a list"),
    ],
)
def test_what_is_wrong_in_a_base_names_its_file(write: Write, text: str, expected: str) -> None:
    base = write("base.yaml", text)
    own = write("own.yaml", "base: base.yaml\nname: own\nseed: 1\nobjective: {name: flow_rwr}\n")
    message = refused(own)
    assert expected.format(base=base, own=own) in message
    assert str(base) in message


def test_what_is_wrong_in_the_variant_names_the_variant(write: Write) -> None:
    path = write("own.yaml", "base: moving_shapes\nname: own\npolicy: {paht: x}\n")
    assert refused(path).startswith(f"unknown key policy.paht ({path})")
    path = write("own.yaml", "base: moving_shapes\nname: own\nobjective: {name: dpo}\n")
    assert refused(path).endswith(f"({path})")


def test_a_base_is_no_override() -> None:
    with pytest.raises(ConfigError, match="base is set in a recipe's file alone, got the override"):
        load_recipe("moving_shapes", ["base=moving_shapes_sft"])


def test_shipped_variants_resolve_to_the_settings_that_they_spelled_out() -> None:
    """A few of them; fingerprints were compared when the files began to inherit."""
    refl = load_recipe("moving_shapes_refl")
    assert (refl.num_steps, refl.learner.num_cpus, refl.learner.micro_batch_size) == (40, 1, 8)
    assert (refl.generators.max_workers, refl.generators.num_cpus) == (1, 0.5)
    assert (refl.reference.interval, refl.evaluation.best_of) == (200, 4)
    assert [reward.name for reward in refl.rewards] == ["video_reward"]
    rwr = load_recipe("moving_shapes_rwr")
    assert rwr.objective == FlowRWR(temperature=1, timesteps_per_pair=4)
    assert (rwr.num_steps, rwr.optimizer.learning_rate, rwr.reference.interval) == (60, 1e-3, 10)
    large = load_recipe("cogvideox_5b")
    assert (large.policy.path, large.policy.family) == ("THUDM/CogVideoX-5b", "cogvideox")
    assert (large.generators.max_workers, large.generators.num_gpus) == (5, 1)
    assert large.rewards == load_recipe("cogvideox_2b").rewards
