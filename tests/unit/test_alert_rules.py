"""The alert rules, on series written by hand, by Prometheus' own `promtool`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml

from tests.prometheus import MONITORING, needs_prometheus

CASES = Path(__file__).parents[1] / "fixtures" / "monitoring" / "rules_test.yml"


@needs_prometheus
def test_alerts_fire_and_stay_silent(tmp_path: Path) -> None:
    for file in (CASES, MONITORING / "rules.yml"):
        shutil.copy(file, tmp_path)
    checks = ["test", "rules", "rules_test.yml"], ["check", "rules", "rules.yml"]
    for check in checks:
        done = subprocess.run(
            ["promtool", *check], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_the_shipped_configuration_is_valid() -> None:
    words = ["promtool", "check", "config", str(MONITORING / "prometheus.yml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    (group,) = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    tried = {
        check["alertname"]
        for case in yaml.safe_load(CASES.read_text())["tests"]
        for check in case["alert_rule_test"]
        if check["exp_alerts"]
    }
    assert tried == {rule["alert"] for rule in group["rules"]}
