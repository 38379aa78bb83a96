"""The files of `cluster/`: what they say is known to their readers, and has room for a run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from actors.placement import Node, Placement, Role, check_feasible, place
from tests.ray.conftest import ROOT
from videorl.config import Recipe
from videorl.recipes.reading import load_recipe

pytestmark = pytest.mark.ray

CLUSTER = ROOT / "cluster"
CRDS = "KUBERAY_CRDS"
"""Names a folder with `ray.io_rayclusters.yaml` and `ray.io_rayjobs.yaml` of a KubeRay release."""


@cache
def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / "kuberay" / name).read_text()))


def the(name: str) -> dict[str, Any]:
    (manifest,) = manifests(name)
    return manifest


def job_recipe() -> Recipe:
    """The recipe that the entrypoint of the RayJob runs."""
    words = shlex.split(the("rayjob.yaml")["spec"]["entrypoint"])
    first = words.index("--")
    assert words[:first] == ["python", "-m", "jobs.retry", "--stop-job"]
    command, verb, name, *overrides = words[first + 1 :]
    assert (command, verb) == ("videorl", "train")
    return load_recipe(name, overrides)


def kuberay_groups() -> dict[str, list[Node]]:
    """Every node that each worker group of the RayCluster may have."""
    groups = {}
    for group in the("raycluster.yaml")["spec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        node = Node(float(limits["cpu"]), float(limits["nvidia.com/gpu"]))
        groups[group["groupName"]] = [node] * group["maxReplicas"]
    return groups


def aws_groups() -> dict[str, list[Node]]:
    """Every node that each node type of the `ray up` file may have."""
    types = dict(aws()["available_node_types"])
    types.pop("head")
    return {
        name: [Node(one["resources"]["CPU"], one["resources"]["GPU"])] * one["max_workers"]
        for name, one in types.items()
    }


@cache
def aws() -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / "aws.yaml").read_text())


def by_group(placement: Placement) -> dict[str, list[Role]]:
    """Which workers are meant for which group."""
    return {
        "generator": [placement.generators],
        "reward": [placement.encoder, *placement.rewards],
        "learner": [placement.learner],
    }


def fits(role: Role, node: Node) -> bool:
    return role.num_cpus <= node.cpus and role.num_gpus <= node.gpus


def packed(roles: list[Role], nodes: list[Node]) -> bool:
    """Whether all workers find room, each on the first node that has it."""
    left = list(nodes)
    for role in roles:
        for _ in range(role.num_workers):
            at = next((i for i, node in enumerate(left) if fits(role, node)), None)
            if at is None:
                return False
            left[at] = Node(left[at].cpus - role.num_cpus, left[at].gpus - role.num_gpus)
    return True


@pytest.mark.parametrize("groups", [kuberay_groups(), aws_groups()], ids=["kuberay", "aws"])
def test_the_groups_hold_the_run_of_the_job(groups: dict[str, list[Node]]) -> None:
    recipe = job_recipe()
    # Before any node has come, as the job finds the cluster.
    placement = place(recipe, [Node(0, 0)])
    check_feasible(placement, [Node(0, 0)], can_grow=recipe.cluster.can_grow)
    grown = [node for nodes in groups.values() for node in nodes]
    assert place(recipe, grown) == placement, "needs must not depend on the nodes that are there"
    check_feasible(placement, grown, can_grow=False)
    recipe.generators.min_workers = recipe.generators.max_workers
    largest = place(recipe, grown)
    for group, roles in by_group(largest).items():
        assert packed(roles, groups[group]), f"{group}: no room for {'; '.join(map(str, roles))}"


@pytest.mark.parametrize("groups", [kuberay_groups(), aws_groups()], ids=["kuberay", "aws"])
def test_learner_ranks_cannot_land_on_nodes_that_may_be_taken_away(
    groups: dict[str, list[Node]],
) -> None:
    placement = place(job_recipe(), [])
    assert not any(fits(placement.learner, node) for node in groups["generator"])
    assert not any(fits(placement.generators, node) for node in groups["reward"])


def test_nodes_stay_as_long_as_the_pool_may_still_want_them() -> None:
    patience = job_recipe().generators.idle_release_s
    kuberay = the("raycluster.yaml")["spec"]["autoscalerOptions"]["idleTimeoutSeconds"]
    assert patience < min(kuberay, aws()["idle_timeout_minutes"] * 60)


def test_the_job_brings_the_cluster_of_the_other_file_and_goes_on_where_it_failed() -> None:
    job = the("rayjob.yaml")["spec"]
    assert job["rayClusterSpec"] == the("raycluster.yaml")["spec"]
    assert job["backoffLimit"] > 0
    mounts = {mount["mountPath"] for one in containers() for mount in one["volumeMounts"]}
    assert any(Path(job_recipe().run_dir).is_relative_to(mount) for mount in mounts)


def test_a_job_that_is_stopped_has_time_for_a_checkpoint() -> None:
    for spec in (the("rayjob.yaml")["spec"]["rayClusterSpec"], the("raycluster.yaml")["spec"]):
        (container,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
        variables = {one["name"]: one["value"] for one in container["env"]}
        assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60
    assert all("RAY_JOB_STOP_WAIT_TIME_S=600" in command for command in ray_starts()[:1])


def pods() -> Iterator[dict[str, Any]]:
    spec = the("raycluster.yaml")["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        yield group["template"]


def containers() -> list[dict[str, Any]]:
    return [container for pod in pods() for container in pod["spec"]["containers"]]


def test_pods_have_a_token_no_root_and_what_they_refer_to() -> None:
    spec = the("raycluster.yaml")["spec"]
    assert spec["authOptions"]["mode"] == "token"
    claim, policy = manifests("prerequisites.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods():
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        (volume,) = pod["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert (
            pod["metadata"]["labels"].items()
            >= policy["spec"]["podSelector"]["matchLabels"].items()
        )
    for container in containers():
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert all("TOKEN" not in one["name"] for one in container["env"])
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_no_file_opens_a_port_to_everybody_or_holds_a_secret() -> None:
    for path in CLUSTER.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"(host|HOST)[= ]+0\.0\.0\.0|auth_token: *[0-9a-f]{16}", text), (
                path
            )
    assert all("RAY_AUTH_MODE=token" in command for command in ray_starts()), ray_starts()


def ray_starts() -> list[str]:
    commands = [*aws()["head_start_ray_commands"], *aws()["worker_start_ray_commands"]]
    return [command for command in commands if "ray start" in command]


def test_ray_up_accepts_the_file() -> None:
    validate_config(prepare_config(deepcopy(aws())))
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(deepcopy(aws()) | {"max_worker": 3}))


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
@pytest.mark.skipif(CRDS not in os.environ, reason=f"{CRDS} names no folder of KubeRay's CRDs")
def test_kuberay_knows_every_field(name: str) -> None:
    path = Path(os.environ[CRDS], f"ray.io_{name}s.yaml")
    versions = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = (one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1")
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(the(f"{name}.yaml"), strict(schema))
    wrong = json.loads(json.dumps(the(f"{name}.yaml")).replace("maxReplicas", "maxReplica"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, strict(schema))


def strict(schema: Any) -> Any:
    """Read a CRD's schema as the API server does under strict validation: no unknown field."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {"additionalProperties": False} if "properties" in schema else {}
    return closed | {name: strict(one) for name, one in schema.items()}


@pytest.mark.parametrize("script", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_parse_and_stop_at_the_first_error(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text()
    assert os.access(script, os.X_OK)


def test_the_image_installs_as_the_makefile_does() -> None:
    image, makefile = (CLUSTER / "Dockerfile").read_text(), (ROOT / "Makefile").read_text()
    rule = makefile.partition("$(VENV)/.installed:")[2].partition("$(VENV)/.installed-dev:")[0]
    installed = [line.partition("$(PIP) ")[2] for line in rule.splitlines() if "$(PIP)" in line]
    wanted = [line.replace(" -e .", " .") for line in installed]
    assert re.findall(r"^RUN pip install (.*)$", image, re.M) == wanted
    copied = [
        name for line in re.findall(r"^COPY (.*)$", image, re.M) for name in line.split()[:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    allowed = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(allowed)
    assert image.rindex("USER ray") > image.rindex("RUN ")
