"""What a policy computes on, and the compute type that `policy.dtype: auto` stands for there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Devices:
    """What a transformer is trained and sampled on."""

    on_gpu: bool
    has_bfloat16: bool = True
    """Whether the GPUs compute in bfloat16; without meaning on CPUs."""


def compute_type(devices: Devices) -> str:
    """Return what `auto` stands for: bfloat16 on GPUs that have it, float32 elsewhere."""
    return "bfloat16" if devices.on_gpu and devices.has_bfloat16 else "float32"


def own_devices() -> Devices:
    """Return what this process computes on unless it is told another device: its GPU, if any."""
    import torch

    if not torch.cuda.is_available():
        return Devices(on_gpu=False)
    return Devices(True, torch.cuda.is_bf16_supported(including_emulation=False))
