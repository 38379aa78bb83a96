"""Ray's own autoscaler, with nodes that are further raylets on this machine, under our pool.

It takes a minute or two: `VIDEORL_AUTOSCALER=1 pytest tests/ray/test_autoscaler.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.util import get_node_ip_address

from tests.ray.conftest import ROOT
from tests.ray.heads import free_ports, started_head

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif("VIDEORL_AUTOSCALER" not in os.environ, reason="VIDEORL_AUTOSCALER=1"),
]

HEAD_ID = "f" * 51 + "00000"
"""What the fake provider calls the head."""

DRIVER = """
import json, sys, time
import ray
from actors.placement import start_actor
from actors.pool.pool import ElasticPool
from actors.pool.state import Limits

class Worker:
    def ready(self): return ray.get_runtime_context().get_node_id()
    def work(self, seconds): time.sleep(seconds); return 0

def num_nodes(): return sum(node["Alive"] for node in ray.nodes())

def wait_for(count):
    started = time.monotonic()
    while num_nodes() != count and time.monotonic() < started + 60: time.sleep(0.1)
    return num_nodes(), time.monotonic() - started

ray.init(log_to_driver=False, logging_level="ERROR")
seen = {"before": num_nodes()}
options = {"num_cpus": 1}
limits = Limits(min_workers=1, max_workers=2, max_retries=3, request_timeout_s=60.0,
                idle_release_s=1.0)
pool = ElasticPool("generator", lambda _: start_actor(Worker, options), limits)
seen["minimum"], seen["minimum_s"] = wait_for(2)
pool.wait_until_serving(180)
work = [pool.submit(lambda worker: [worker.work.remote(4)]) for _ in range(6)]
seen["busy"], seen["busy_s"] = wait_for(3)
for one in work: one.result()
seen["idle"], seen["idle_s"] = wait_for(2)
pool.close()
print(json.dumps(seen))
"""


def autoscaling(address: str) -> dict[str, Any]:
    """A head without CPUs, and up to three nodes with one each."""
    return {
        "cluster_name": "fake",
        "max_workers": 3,
        "idle_timeout_minutes": 0.05,
        "upscaling_speed": 10.0,
        "provider": {
            # Its own type, "fake_multinode", wants a file of defaults that Ray's wheel leaves out.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "generator": {
                "resources": {"CPU": 1, "object_store_memory": 100 * 2**20},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 3,
            },
        },
        "head_node_type": "ray.head.default",
    }


def test_waiting_workers_bring_nodes_and_released_ones_let_them_go(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    config = tmp_path / "autoscaling.json"
    config.write_text(json.dumps(autoscaling(f"{get_node_ip_address()}:{port}")))
    environment = {
        "RAY_raylet_start_wait_time_s": "90",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    options = ["--num-cpus=0", f"--autoscaling-config={config}"]
    with started_head(port, options, environment) as head:
        ran = subprocess.run(
            [sys.executable, "-c", DRIVER],
            env={**head.environment, "RAY_ADDRESS": head.address, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        seen = json.loads(ran.stdout.splitlines()[-1])
    print(seen)  # with `-s`: how long nodes took to come and go
    assert (seen["before"], seen["minimum"], seen["busy"], seen["idle"]) == (1, 2, 3, 2)
