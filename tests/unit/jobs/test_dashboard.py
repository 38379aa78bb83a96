"""The Grafana dashboard that is shipped is the one that its script writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobs.workshop.panels import ROWS
from tests.prometheus import MONITORING

pytest.importorskip("grafana_foundation_sdk", reason="needs videorl[monitoring]")


def test_the_shipped_dashboard_is_what_the_script_writes(tmp_path: Path) -> None:
    from jobs.workshop.dashboard import main

    out = tmp_path / "runs.json"
    assert main(["--out", str(out)]) == 0
    assert out.read_text() == (MONITORING / "grafana" / "runs.json").read_text()


def test_every_panel_has_a_place_a_source_and_the_chosen_runs() -> None:
    board = json.loads((MONITORING / "grafana" / "runs.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in panels] == [p.title for _, row in ROWS for p in row]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            chosen = re.findall(r"ray_videorl_\w+(\{[^}]*\})?", target["expr"])
            assert all('run=~"$run"' in labels for labels in chosen), target["expr"]
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "run"]
