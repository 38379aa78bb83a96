"""Peaks of allocations whose sizes are known."""

import torch

from jobs.bench.peak_memory import peak_bytes

MIB = 2**20
CPU = torch.device("cpu")


def test_the_peak_is_what_was_held_at_one_time() -> None:
    def work() -> None:
        first = torch.zeros(3 * MIB, dtype=torch.uint8)
        del first
        second = torch.zeros(4 * MIB, dtype=torch.uint8)
        third = second.clone()
        del second, third
        torch.zeros(MIB, dtype=torch.uint8)

    assert peak_bytes(work, CPU) == 8 * MIB


def test_what_was_there_before_does_not_count() -> None:
    held = [torch.zeros(4 * MIB, dtype=torch.uint8)]

    def work() -> None:
        held.clear()  # which the profiler does not see
        torch.zeros(2 * MIB, dtype=torch.uint8)

    assert peak_bytes(work, CPU) == 2 * MIB
