"""What the policy computes on; no cluster is needed to decide."""

from __future__ import annotations

import pytest

from actors.compute_type import computing_devices
from actors.placement import Node
from videorl.policies.devices import Devices
from videorl.recipes.reading import load_recipe

pytestmark = pytest.mark.ray

DPO, REFL = "moving_shapes", "moving_shapes_refl"


def node(gpus: float, card: str) -> Node:
    return Node(8, gpus, {f"accelerator_type:{card}": 1.0})


@pytest.mark.parametrize(
    ("name", "nodes", "overrides", "expected"),
    [
        (DPO, [Node(8, 0)], [], Devices(on_gpu=False)),
        (DPO, [Node(8, 0), Node(8, 2)], [], Devices(on_gpu=True)),
        # Of the GPUs of a reward model alone the policy has nothing.
        (DPO, [Node(8, 1)], ["rewards.0.num_gpus=1"], Devices(on_gpu=False)),
        (DPO, [Node(8, 1)], ["learner.num_gpus=0", "generators.num_gpus=0"], Devices(on_gpu=False)),
        (DPO, [Node(8, 1)], ["learner.num_gpus=0"], Devices(on_gpu=True)),
        # An autoscaler brings them later.
        (DPO, [Node(8, 0)], ["generators.num_gpus=1"], Devices(on_gpu=True)),
        # While it learns from prompts, nothing else has GPUs; the generators come afterwards.
        (REFL, [Node(8, 1)], ["rewards.0.num_gpus=1"], Devices(on_gpu=True)),
        (REFL, [Node(8, 1)], ["learner.num_gpus=0"], Devices(on_gpu=True)),
        (DPO, [node(1, "H100")], [], Devices(on_gpu=True)),
        (DPO, [node(4, "V100"), node(4, "T4")], [], Devices(on_gpu=True, has_bfloat16=False)),
        (DPO, [node(4, "V100"), node(4, "H100")], [], Devices(on_gpu=True)),
    ],
)
def test_learner_and_generators_decide(
    name: str, nodes: list[Node], overrides: list[str], expected: Devices
) -> None:
    assert computing_devices(load_recipe(name, overrides), nodes) == expected
