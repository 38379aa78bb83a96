"""What recipes are checked against is what exists."""

from typing import get_type_hints

import pytest

from videorl.objectives import OBJECTIVES
from videorl.policies import FAMILIES, load_family
from videorl.processes.rectified_flow import RectifiedFlow
from videorl.recipes import validation
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
    processes = {name: get_type_hints(load_family(name).process)["return"] for name in FAMILIES}
    others = {name for name, process in processes.items() if process is not RectifiedFlow}
    assert set(validation.DIFFUSION_FAMILIES) == others
