"""Nodes with other versions than the driver's are refused, by name."""

from __future__ import annotations

import platform

import pytest

import videorl
from actors.cluster import check_versions, differing_versions
from videorl.run.node_facts import versions_here

pytestmark = pytest.mark.ray

WANTED = {"python": "3.11", "ray": "2.60.0", "torch": "2.9.0", "videorl": "0.1.0"}


def test_equal_nodes_are_no_news() -> None:
    assert differing_versions("head", WANTED, [("a", WANTED), ("b", WANTED)]) == ""
    assert differing_versions("head", WANTED, []) == ""


def test_a_node_and_both_versions_are_named() -> None:
    nodes = [("a", WANTED), ("b", WANTED | {"torch": "2.8.0", "ray": "missing"})]
    assert differing_versions("head", WANTED, nodes) == (
        "nodes have different versions: ray missing on node b, but 2.60.0 on the driver's, head; "
        "torch 2.8.0 on node b, but 2.9.0 on the driver's, head. Install the same"
    )


def test_of_many_nodes_a_few_are_named() -> None:
    nodes = [(f"n{number}", WANTED | {"torch": "2.8.0"}) for number in range(500)]
    found = differing_versions("head", WANTED, nodes)
    assert "n3" in found
    assert "n4 " not in found
    assert "and 496 more" in found


def test_what_differs_without_harm_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = versions_here()
    monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "11", "99"))
    monkeypatch.setattr("videorl.run.node_facts._version", lambda package: "2.9.0+cu126")
    name, versions = versions_here()
    assert name == platform.node()
    assert versions["python"] == "3.11"
    assert versions["torch"] == "2.9.0", "a head without GPUs may have another build"
    assert before[1]["videorl"] == videorl.__version__


@pytest.mark.usefixtures("cluster")
def test_a_single_machine_has_nothing_to_compare() -> None:
    check_versions()
