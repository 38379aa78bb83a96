"""Names of steps, and names that only look like them."""

from __future__ import annotations

from pathlib import Path

from videorl.files.steps import step_name, step_of, steps_of


def test_a_step_is_found_in_its_name_alone() -> None:
    assert step_name(12) == "step-000012"
    for step in (0, 12, 1_234_567):
        assert step_of(step_name(step)) == step_of(f"{step_name(step)}.parquet") == step
    for name in (
        "step-",
        "step-1a",
        "steps-1",
        "xstep-1",
        "step--1",
        "step-\u0661",
        "step-" + "9" * 30,
    ):
        assert step_of(name) is None, name
    assert steps_of([Path("a/step-3.parquet"), Path("b/step-000003"), Path("notes")]) == {3}
