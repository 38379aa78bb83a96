"""The names that recipes are checked against are those of the parts that exist."""

from typing import get_type_hints

from videorl.objectives import OBJECTIVES
from videorl.objectives.dpo import FlowDPO
from videorl.policies import FAMILIES
from videorl.processes.rectified_flow import RectifiedFlow
from videorl.recipes import validation
from videorl.selection import RULES
from videorl.weighting import EXAMPLES


def test_names_are_those_of_the_tables() -> None:
    assert set(validation.SELECTION_RULES) == set(RULES)
    assert set(validation.OBJECTIVES) == set(OBJECTIVES) == set(EXAMPLES)
    assert validation.REFL not in OBJECTIVES


def test_every_beta_schedule_is_accepted_by_the_objective() -> None:
    for schedule in validation.BETA_SCHEDULES:
        assert FlowDPO(beta=1.0, schedule=schedule).schedule == schedule


def test_families_that_are_no_rectified_flows_are_known_before_a_model_loads() -> None:
    processes = {name: get_type_hints(make().process)["return"] for name, make in FAMILIES.items()}
    others = {name for name, process in processes.items() if process is not RectifiedFlow}
    assert set(validation.DIFFUSION_FAMILIES) == others
