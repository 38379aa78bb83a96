"""A tiny Wan."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.families.tiny_family import TinyFamily
from videorl.pretraining.checkpoint import build_components, save_checkpoint


def save_tiny_wan(folder: Path) -> Path:
    """Write a Wan checkpoint: one block of width 32, latents [12, 3, 4, 4] for 5 frames 16×16."""
    components = build_components(0, width=32, layers=1, vae_width=16, text_width=16)
    save_checkpoint(components, folder, torch.float32)
    return folder


TINY = TinyFamily(save_tiny_wan, (12, 3, 4, 4), lambda timestep: timestep / 1000)
