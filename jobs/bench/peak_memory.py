"""The most memory that torch holds at one time while something runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_MEMORY = "[memory]"
"""What the profiler calls an allocation (bytes > 0) or a release (bytes < 0)."""


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Run `work` and return the peak of torch's allocations on a device, above those before it.

    On a GPU that is the caching allocator's own count. A CPU has no such count: there every
    allocation and release that torch's profiler records is added up in order; it does not see the
    release of what was held before, which so counts as if it stayed. What libraries allocate
    behind torch's back is in neither.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        work()
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    events: list[Any] = seen.profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in events
        if event.name() == _MEMORY and event.device_type() == torch.profiler.DeviceType.CPU
    )
    return max(accumulate((size for _, size in changes), initial=0))
