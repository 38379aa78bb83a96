"""What recipes are checked against is what exists."""

from typing import get_type_hints

import pytest

from videorl.objectives import OBJECTIVES
from videorl.policies import FAMILIES, load_family
from videorl.policies.family import Family
from videorl.policies.plain_family import PlainFamily
from videorl.processes.rectified_flow import RectifiedFlow
from videorl.recipes import policy_problems
from videorl.rewards import MODELS
from videorl.selection import RULES
from videorl.settings.plugins import find

TABLES = {
    "objective.name": OBJECTIVES,
    "selection.rule": RULES,
    "policy.family": FAMILIES,
    "rewards.0.name": {name: model.loader for name, model in MODELS.items()},
}


@pytest.mark.parametrize("where", TABLES)
def test_every_name_of_a_table_leads_to_a_part(where: str) -> None:
    for name in TABLES[where]:
        part = find(name, TABLES[where], where)
        assert callable(part)
        if where in ("objective.name", "selection.rule"):
            assert getattr(part(), where.split(".")[1]) == name, "what it calls itself"


def test_families_that_are_no_rectified_flows_are_known_before_a_model_loads() -> None:
    def is_a_rectified_flow(family: Family) -> bool:
        plain = type(family).process is PlainFamily.process
        return plain or get_type_hints(family.process)["return"] is RectifiedFlow

    others = {name for name in FAMILIES if not is_a_rectified_flow(load_family(name))}
    assert set(policy_problems.DIFFUSION_FAMILIES) == others


def test_families_of_two_transformers_are_known_before_a_model_loads() -> None:
    found = {name for name in FAMILIES if "transformer_2" in load_family(name).model_classes}
    assert set(policy_problems.TWO_EXPERTS) == found
