"""Work that repeats on a thread: it outlives its errors and ends with the block."""

from __future__ import annotations

import threading

import pytest

from videorl.run.background import repeating


def test_it_goes_on_after_an_error_and_ends_with_the_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []
    called_again = threading.Event()

    def act() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            raise OSError("disk full")
        called_again.set()

    with repeating(act, 0.01, "watching"):
        assert called_again.wait(180)
    num_calls = len(calls)
    assert "watching" not in {thread.name for thread in threading.enumerate()}
    assert len(calls) == num_calls
    (record,) = caplog.records
    assert record.getMessage() == "watching failed, trying again"
    assert record.exc_info is not None and "disk full" in str(record.exc_info[1])


def test_the_first_call_comes_after_one_interval() -> None:
    calls: list[int] = []
    with repeating(lambda: calls.append(1), 60.0, "never"):
        pass
    assert calls == []
