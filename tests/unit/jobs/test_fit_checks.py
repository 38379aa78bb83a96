"""The plan's memory of each role against nodes that are given by hand: no GPU is needed."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.findings import Finding
from jobs.fit_checks import as_finding, check_fit
from videorl.config import Recipe
from videorl.planning import nodes as held
from videorl.planning.models import read_configs
from videorl.planning.nodes import Fit, Worker, fit, fit_together
from videorl.planning.sizes import Memory
from videorl.recipes.reading import load_recipe
from videorl.run.node_facts import GpuFacts, NodeFacts, parse_gpus

GIB_IN_GB = 2**30 / 1e9


def node(name: str, *gpus: float, memory_gib: float = 64.0, taken_gib: float = 0.0) -> NodeFacts:
    """Return a node with GPUs of so many GiB, of which `taken_gib` is held by others."""
    return NodeFacts(
        name,
        {"torch": "2.9"},
        {"CPU": 32.0, "GPU": float(len(gpus))},
        memory_gib * GIB_IN_GB,
        1000.0,
        {},
        (memory_gib - taken_gib) * GIB_IN_GB,
        tuple(GpuFacts(f"card of {gib:g}", gib, gib - taken_gib) for gib in gpus),
    )


def said(worker: Worker, *nodes: NodeFacts) -> Finding:
    return as_finding("learner", fit(worker, nodes))


def test_a_role_that_fits_names_the_smallest_gpu() -> None:
    found = said(Worker(40.0, 1.0), node("a", 80.0, 100.0), node("b", 90.0))
    assert found == Finding(
        "fit", "ok", "learner: 40.00 GiB needed, the least is a (card of 80, 74.4 GiB usable)"
    )


def test_a_node_that_is_too_small_is_named_with_what_lacks() -> None:
    large, small = node("a", 100.0), node("b", 20.0)
    found = said(Worker(40.0, 1.0), large, small)
    assert found.status == "warning"
    assert "21.40 lack on b (card of 20, 18.6 GiB usable)" in found.found
    assert " a (" not in found.found
    assert said(Worker(40.0, 1.0), small).status == "broken"
    assert said(Worker(18.0, 1.0), small).status == "ok"
    many = said(Worker(40.0, 1.0), *(node(name, 20.0) for name in "abcde"))
    assert many.found.endswith(" and 2 more")


def test_a_shared_gpu_is_shared_and_what_others_hold_is_said() -> None:
    assert said(Worker(40.0, 0.5), node("a", 100.0)).status == "ok"
    assert "3.50 lack" in said(Worker(50.0, 0.5), node("a", 100.0)).found
    busy = said(Worker(40.0, 1.0), node("a", 80.0, taken_gib=60.0))
    assert busy.status == "warning"
    assert "only 20.00 free on a" in busy.found


def test_without_gpus_host_memory_is_compared_and_named() -> None:
    found = said(Worker(40.0, 0.0), node("a", memory_gib=50.0), node("b", memory_gib=30.0))
    assert found.status == "warning"
    assert "10.00 lack on b (host memory, 30.0 GiB usable)" in found.found
    pair = [node("a", memory_gib=50.0), node("b", memory_gib=30.0)]
    assert fit_together([40.0, 30.0], pair).fits_somewhere
    assert as_finding("all", fit_together([60.0, 30.0], pair)).found == (
        "all: 90.00 GiB needed, 10.00 lack on all 2 nodes (host memory, 80.0 GiB usable)"
    )


def test_gpus_that_tell_nothing_are_no_promise() -> None:
    blind = node("a")
    found = said(Worker(40.0, 1.0), blind, node("b", 80.0))
    assert found.status == "warning"
    assert "do not tell their memory on a" in found.found
    assert as_finding("learner", Fit(1.0, ())).status == "broken"


def test_what_nvidia_smi_prints() -> None:
    lines = "NVIDIA H100 80GB HBM3, 81920, 40960\nName, with comma, 1024, 512\n"
    assert parse_gpus(lines) == (
        GpuFacts("NVIDIA H100 80GB HBM3", 80.0, 40.0),
        GpuFacts("Name, with comma", 1.0, 0.5),
    )
    with pytest.raises(ValueError, match="N/A"):
        parse_gpus("NVIDIA GH200, [N/A], [N/A]")


def checked(
    monkeypatch: pytest.MonkeyPatch, nodes: Sequence[NodeFacts], *settings: str
) -> list[Finding]:
    """Check the default recipe as if its roles needed so much."""
    peaks = {"learner": 30.0, "generator": 20.0, "encoder": 10.0, "moving_shapes": 5.0}
    monkeypatch.setattr(held, "count_peaks", lambda *_, **__: peaks)
    return check_fit(load_recipe("moving_shapes", settings), nodes)


@pytest.mark.parametrize(
    ("asked", "on_gpu", "counted"), [("auto", True, 1), ("auto", False, 16), ("4", True, 4)]
)
def test_the_micro_batch_that_counts(
    asked: str, on_gpu: bool, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def count(recipe: Recipe, configs: Any, card: Any, *, on_gpu: bool) -> Any:
        seen.append((recipe.learner.micro_batch_size, on_gpu))
        return SimpleNamespace(roles={"learner": SimpleNamespace(memory=Memory(2 * 2**30))})

    monkeypatch.setattr(held, "count_needs", count)
    recipe = load_recipe("moving_shapes", [f"learner.micro_batch_size={asked}"])
    configs = read_configs(recipe.policy.path)
    assert held.count_peaks(recipe, configs, on_gpu=on_gpu) == {"learner": 2.0}
    assert seen == [(counted, on_gpu)]
    assert str(recipe.learner.micro_batch_size) == asked, "the recipe itself stays"


def test_every_role_is_held_against_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ["learner", "generators", "rewards.0", "encoder"]
    settings = [f"{section}.num_gpus=1" for section in whole]
    found = checked(monkeypatch, [node("a", *[24.0] * 8)], *settings)
    states = {finding.found.partition(":")[0]: finding.status for finding in found}
    assert states == {
        "encoder": "ok",
        "generator": "ok",
        "learner": "broken",
        "moving_shapes": "ok",
    }


def test_workers_on_cpus_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["generators.min_workers=2", "generators.max_workers=2"]
    found = checked(monkeypatch, [node("a", memory_gib=64.0)], *settings)
    together = next(finding for finding in found if "workers on CPUs" in finding.found)
    # A learner, two generators, an encoder, and two reward workers in float32.
    number = 1 + 2 + 1 + load_recipe("moving_shapes").rewards[0].num_workers
    assert together.found.startswith(f"{number} workers on CPUs, host memory: ")
    assert together.status == "broken"


def test_what_is_not_planned_is_said() -> None:
    recipe = load_recipe("moving_shapes", ["policy.path=./nowhere"])
    (found,) = check_fit(recipe, [node("a", 80.0)])
    assert found.status == "warning"
    assert "memory is not known: " in found.found
