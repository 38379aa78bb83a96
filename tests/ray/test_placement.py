"""Who gets what; no cluster is needed to decide."""

from __future__ import annotations

import logging

import pytest

from actors.compute_type import computing_devices
from actors.evaluation import comparison_placement
from actors.placement import (
    Node,
    check_feasible,
    place,
    place_learner,
    place_training,
    wait_until_serving,
)
from actors.pool.places import Places, describe
from actors.pool.state import PoolStats
from videorl.config import Recipe, RewardConfig
from videorl.errors import ResourceError
from videorl.recipes.reading import RECIPES, load_recipe
from videorl.settings.workers import EncoderConfig, GeneratorsConfig, LearnerConfig

pytestmark = pytest.mark.ray


def recipe(**changes: object) -> Recipe:
    """Return a recipe with 1 learner, 1 encoder, 2 generators and 1 reward worker of 1 CPU."""
    generators = GeneratorsConfig(min_workers=2, max_workers=8)
    settings = {"generators": generators, "rewards": [RewardConfig(name="moving_shapes")]}
    return Recipe(**{**settings, **changes})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("gpus", "learner", "share"),
    [(0, 0.0, 0.0), (1, 0.2, 0.2), (2, 1.0, 0.25), (4, 1.0, 0.5), (5, 1.0, 1.0)],
)
def test_gpus_are_shared_out_where_the_recipe_leaves_them_open(
    gpus: float, learner: float, share: float
) -> None:
    nodes = [Node(8, gpus)]
    placement = place(recipe(), nodes)
    assert placement.learner.num_gpus == learner
    assert {role.num_gpus for role in placement.roles()} - {learner} <= {share}
    assert placement.generators.num_gpus == share
    check_feasible(placement, nodes, can_grow=False)


def test_several_ranks_get_whole_gpus_and_too_few_are_refused() -> None:
    """nccl refuses two ranks on one device, minutes later and less clearly."""
    two_ranks = recipe(learner=LearnerConfig(num_workers=2))
    placement = place(two_ranks, [Node(8, 4)])
    assert (placement.learner.num_gpus, placement.generators.num_gpus) == (1.0, 0.5)
    for gpus in (1, 2):
        with pytest.raises(ResourceError, match=rf"2 learner ranks .*3 GPUs, but {gpus} are left"):
            place(two_ranks, [Node(8, gpus)])
    assert place(two_ranks, [Node(8, 0)]).learner.num_gpus == 0
    assert place_learner(LearnerConfig(num_workers=2), [Node(8, 2)]).learner.num_gpus == 1
    with pytest.raises(ResourceError, match=r"2 learner ranks .* 2 GPUs, but 1 are left"):
        place_learner(LearnerConfig(num_workers=2), [Node(8, 1)])


def test_every_role_may_ask_for_resources_of_its_own() -> None:
    generators = GeneratorsConfig(resources={"sampling": 1.0})
    reward = RewardConfig(name="moving_shapes", resources={"scoring": 0.5})
    encoder = EncoderConfig(resources={"text": 1.0})
    placement = place(
        recipe(generators=generators, rewards=[reward], encoder=encoder), [Node(8, 0)]
    )
    asked = [role.options().get("resources") for role in placement.roles()]
    assert asked == [None, {"text": 1.0}, {"sampling": 1.0}, {"scoring": 0.5}]
    assert placement.generators.bundle() == {"CPU": 1.0, "sampling": 1.0}


def test_stated_gpus_are_kept_and_the_rest_is_shared() -> None:
    placement = place(recipe(learner=LearnerConfig(num_workers=2, num_gpus=1)), [Node(8, 4)])
    assert placement.learner.num_gpus == 1
    assert placement.generators.num_gpus == 0.5
    assert placement.num_gpus() == 4


def test_the_processes_of_a_generator_are_placed_as_one_worker() -> None:
    generators = GeneratorsConfig(min_workers=2, max_workers=2, context_parallel=4, num_gpus=1)
    shared = recipe(generators=generators, learner=LearnerConfig(num_gpus=1))
    placement = place(shared, [Node(16, 8), Node(8, 3)])
    role = placement.generators
    assert (role.num_workers, role.num_cpus, role.num_gpus) == (2, 4, 4)
    with pytest.raises(ResourceError, match="large enough for one worker of: generators"):
        check_feasible(placement, [Node(8, 2)] * 8, can_grow=False)


def test_processes_that_share_videos_never_share_a_gpu() -> None:
    shared = recipe(generators=GeneratorsConfig(context_parallel=2))
    assert place(shared, [Node(8, 0)]).generators.num_gpus == 0
    nodes = [Node(8, 2)]
    placement = place(shared, nodes)
    assert placement.generators.num_gpus == 2
    with pytest.raises(ResourceError, match="the cluster has 8 CPU and 2 GPU"):
        check_feasible(placement, nodes, can_grow=False)


def test_more_than_the_cluster_has_is_refused_before_anything_starts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nodes = [Node(4, 1), Node(4, 1)]
    placement = place(recipe(learner=LearnerConfig(num_workers=3, num_gpus=1)), nodes)
    with pytest.raises(
        ResourceError, match=r"needed: 7 CPU and 3 GPU \(learner x 3 .*has 8 CPU and 2 GPU on 2"
    ):
        check_feasible(placement, nodes, can_grow=False)
    with caplog.at_level(logging.WARNING):
        check_feasible(placement, nodes, can_grow=True)
    assert "waiting for the autoscaler" in caplog.text


@pytest.mark.parametrize(
    ("role", "changes"),
    [
        ("learner", {"learner": LearnerConfig(num_gpus=2)}),
        ("encoder", {"encoder": EncoderConfig(num_gpus=2)}),
        ("generators", {"generators": GeneratorsConfig(num_gpus=2)}),
        ("reward moving_shapes", {"rewards": [RewardConfig(name="moving_shapes", num_gpus=2)]}),
    ],
)
def test_a_worker_larger_than_any_node_is_refused(role: str, changes: dict[str, object]) -> None:
    nodes = [Node(8, 1), Node(8, 1), Node(8, 1)]
    placement = place(recipe(**changes), nodes)
    with pytest.raises(
        ResourceError, match=rf"no node is large enough for one worker of: {role}\."
    ):
        check_feasible(placement, nodes, can_grow=False)


@pytest.mark.parametrize("name", sorted(one.stem for one in RECIPES.glob("moving_shapes*.yaml")))
def test_recipes_for_a_laptop_fit_on_two_cores(name: str) -> None:
    shipped, nodes = load_recipe(name), [Node(2, 0)]
    comparison_placement(shipped, nodes)
    check_feasible(place_training(shipped, nodes), nodes, can_grow=False)


def test_what_generators_beside_a_lone_learner_are_for_is_said() -> None:
    """Also where GPUs cannot be shared out, which is found before the run itself begins."""
    settings = ["learner.num_workers=2", "evaluation.interval=2"]
    recipe, nodes = load_recipe("moving_shapes_refl", settings), [Node(8, 2)]
    with pytest.raises(ResourceError, match=r"3 GPUs, but 2 .*every 2 steps.*interval=0 leaves"):
        computing_devices(recipe, nodes)
    recipe.evaluation.interval = 0
    with pytest.raises(ResourceError, match=r"3 GPUs, but 2 .*every role \(0 = on the CPU\)$"):
        computing_devices(recipe, nodes)


@pytest.mark.usefixtures("cluster")
def test_waiting_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    class Late:
        answers = iter([False, True])

        def wait_until_serving(self, timeout_s: float) -> bool:
            return next(self.answers)

    with caplog.at_level(logging.WARNING):
        wait_until_serving([Late()], Places(place(recipe(), [Node(8, 0)])), report_s=0.0)
    assert "CPU 5 / 8 / " in caplog.text
    assert "needed / registered / available" in caplog.text


def test_a_custom_resource_that_no_node_has_is_refused() -> None:
    wanted = recipe(learner=LearnerConfig(resources={"learner": 1.0}))
    nodes = [Node(8, 0), Node(8, 0, {"learner": 1.0})]
    check_feasible(place(wanted, nodes), nodes, can_grow=False)
    with pytest.raises(ResourceError, match=r"1 learner each.*for one worker of: learner"):
        check_feasible(place(wanted, nodes[:1]), nodes[:1], can_grow=False)


def stats_of(workers: int, starting: int, pending: int) -> PoolStats:
    return PoolStats(workers, starting, pending, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0)


def test_who_waits_for_the_learner_is_told_who_has_its_place() -> None:
    placement = place(recipe(), [Node(8, 0)])
    stats = {"generators": stats_of(2, 3, 2), "encoder": stats_of(1, 0, 0)}
    line = describe(placement, stats, {"CPU": 8.0}, {"CPU": 1.0})
    assert line == (
        "CPU 5 / 8 / 1, GPU 0 / 0 / 0 (needed / registered / available); held by 1 encoder with "
        "1 CPU, 3 generators with 3 CPU, the rest of this run, or others, with 3 CPU; "
        "2 generators wait too"
    )
