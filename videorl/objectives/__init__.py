"""Objectives: one short file each, with its settings and a pure loss."""

from __future__ import annotations

OBJECTIVES: dict[str, str] = {
    "flow_dpo": "videorl.objectives.dpo:FlowDPO",
    "sft": "videorl.objectives.sft:SFT",
    "flow_rwr": "videorl.objectives.flow_rwr:FlowRWR",
    "refl": "videorl.objectives.refl:ReFL",
}
"""Name in `objective.name` -> the objective."""
