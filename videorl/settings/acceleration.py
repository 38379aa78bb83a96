"""Which ways to sample and learn faster exclude each other."""

from __future__ import annotations

from collections.abc import Iterator

from videorl.settings.model import PolicyConfig, SamplingConfig


def acceleration_problems(policy: PolicyConfig, sampling: SamplingConfig) -> Iterator[str]:
    """Yield which ways to be faster exclude each other."""
    if policy.compile != "none" and sampling.step_cache != "none":
        yield (
            "sampling.step_cache must be none with policy.compile, as its choice between blocks is "
            f"compiled anew from step to step; got {sampling.step_cache} and {policy.compile}"
        )
    if sampling.merge_lora and policy.lora.rank == 0:
        yield "sampling.merge_lora must be false where policy.lora.rank is 0: there is no adapter"
    if sampling.merge_lora and policy.idle_expert == "cpu":
        yield (
            "sampling.merge_lora must be false where policy.idle_expert is cpu: adapters stay on "
            "the device, and cannot be merged into weights that wait in host memory"
        )
