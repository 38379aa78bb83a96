from __future__ import annotations

import asyncio

import pytest

from videorl.errors import WorkLostError
from videorl.serving.turn import Turn


def test_a_batch_that_is_stuck_makes_the_replica_unhealthy_and_a_long_queue_does_not() -> None:
    now = 0.0

    async def check() -> None:
        nonlocal now
        turn = Turn(10, lambda: now)
        for _ in range(3):
            async with turn:
                now += 9
                turn.check()
        now += 100
        turn.check()
        async with turn:
            now += 11
            with pytest.raises(WorkLostError, match=r"more than 10 s.*--work-s"):
                turn.check()
        turn.check()

    asyncio.run(check())
