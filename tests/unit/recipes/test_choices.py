"""Sections whose settings depend on what they name."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from videorl.errors import ConfigError
from videorl.objectives.dpo import FlowDPO
from videorl.objectives.sft import SFT
from videorl.recipes.reading import load_recipe, to_yaml
from videorl.selection import SingleDimension

OWN = """
from dataclasses import dataclass
from videorl.objectives.objective import CandidateObjective, RewardObjective
from videorl.selection import Selection


@dataclass
class Whole(CandidateObjective):
    power: float = 2.0
    learns_from = "pairs"

    def __call__(self, inputs):
        return inputs.err_NR.sum(1) ** self.power, {}


@dataclass
class NoLoss(CandidateObjective):
    learns_from = "pairs"


@dataclass
class NoKind(CandidateObjective):
    def __call__(self, inputs):
        return inputs.err_NR.sum(1), {}


@dataclass
class OtherSignature(CandidateObjective):
    learns_from = "pairs"

    def __call__(self, err, ref_err, t):
        return err, {}


class Undecorated(CandidateObjective):
    learns_from = "pairs"

    def __call__(self, inputs):
        return inputs.err_NR.sum(1), {}


@dataclass
class Rule(Selection):
    share: float = 0.5

    def __call__(self, group):
        return []


def function(group):
    return []
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module in the working directory, which is not on the path."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / f"{name}_broken.py").write_text("raise ValueError('no luck')")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_setting_of_another_part_names_its_owner() -> None:
    for override, owner in (
        ("objective.temperature=3", "objective.name=flow_rwr, but flow_dpo is chosen"),
        ("objective={name: sft, beta: 3}", "objective.name=flow_dpo, but sft is chosen"),
        ("selection.weights={a: 1}", "selection.rule=weighted, but best_vs_worst is chosen"),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"belongs to {owner}")) as raised:
            load_recipe("moving_shapes", [override])
        assert override in str(raised.value), "where it was given"


def test_a_setting_of_another_part_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        to_yaml(load_recipe("moving_shapes")).replace("  beta: 150.0\n", "  sft_on: all\n")
    )
    with pytest.raises(ConfigError, match=rf"sft_on belongs to .*=sft.*\({re.escape(str(path))}\)"):
        load_recipe(str(path))


def test_another_name_keeps_the_settings_that_both_have() -> None:
    recipe = load_recipe("moving_shapes", ["objective.timesteps_per_pair=7", "objective.name=sft"])
    assert recipe.objective == SFT(timesteps_per_pair=7), "beta was meant for flow_dpo"
    chosen = ["selection.rule=single_dimension", "selection.dimension=motion_quality"]
    recipe = load_recipe("moving_shapes", ["selection.min_margin=0.2", *chosen])
    assert recipe.selection == SingleDimension(min_margin=0.2, dimension="motion_quality")


def test_a_whole_section_replaces_that_of_the_file() -> None:
    recipe = load_recipe("moving_shapes", ["objective={name: flow_dpo, sft_weight: 0.5}"])
    assert recipe.objective == FlowDPO(sft_weight=0.5)


def test_an_own_part_is_read_written_and_pickled(own: str, tmp_path: Path) -> None:
    overrides = [f"objective.name={own}:Whole", "objective.power=3", f"selection.rule={own}:Rule"]
    recipe = load_recipe("moving_shapes", overrides)
    assert type(recipe.objective).__name__ == "Whole"
    assert recipe.objective.power == 3.0  # pyright: ignore[reportAttributeAccessIssue]
    assert recipe.objective.name == f"{own}:Whole"
    (tmp_path / "again.yaml").write_text(to_yaml(recipe))
    assert load_recipe(str(tmp_path / "again.yaml")) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("objective.name=absent_module:X", "absent_module cannot be imported (ModuleNotFoundError"),
        ("objective.name=OWN_broken:X", "cannot be imported (ValueError: no luck)"),
        ("objective.name=OWN:Hole", "has no 'Hole'; did you mean Whole?"),
        ("objective.name=OWN:NoLoss", "lacks something of CandidateObjective: no __call__"),
        ("objective.name=OWN:NoKind", "lacks something of CandidateObjective: no learns_from"),
        (
            "objective.name=OWN:OtherSignature",
            "__call__(self, err, ref_err, t) instead of __call__(self, inputs)",
        ),
        ("objective.name=OWN:Undecorated", "must be a dataclass: put @dataclass above the class"),
        ("objective.name=OWN:function", "must be a dataclass that inherits"),
        ("selection.rule=OWN:Whole", "must be a dataclass that inherits videorl.selection."),
        ("objective={name: 'OWN:Whole', powr: 3}", "the nearest known one is objective.power"),
        ("objective={name: [1]}", "objective.name must be text, got [1]"),
        ("objective.name=[1]", "objective.name must be one of"),
        ("objective=3", "objective must be a section of `key: value` lines, got 3"),
    ],
)
def test_what_is_wrong_with_an_own_part_is_said_when_the_recipe_is_read(
    setting: str, expected: str, own: str
) -> None:
    setting = setting.replace("OWN", own)
    with pytest.raises(ConfigError) as raised:
        load_recipe("moving_shapes", [setting])
    assert expected in str(raised.value)
    assert setting.partition("=")[0] in str(raised.value), "the setting that names it"
