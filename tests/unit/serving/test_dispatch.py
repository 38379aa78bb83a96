from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from videorl.serving.dispatch import Dispatcher
from videorl.serving.errors import RequestError


class Replica:
    """Keeps batches until it is told to go on."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = asyncio.Event()

    async def work(self, items: Sequence[str]) -> list[str]:
        self.batches.append([*items])
        await self.go.wait()
        if "bad" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]


def dispatcher(replica: Replica, max_queued: int = 8) -> Dispatcher[str, str]:
    return Dispatcher[str, str](
        replica.work,
        lambda item: item[0],
        replicas=1,
        batch_size=3,
        max_queued=max_queued,
        what="a replica",
    )


def test_items_of_a_group_share_a_batch_and_the_oldest_goes_first() -> None:
    async def check() -> None:
        replica = Replica()
        queue = dispatcher(replica)
        started: list[str] = []
        items = ["x1", "a1", "b1", "a2", "a3", "a4", "b2"]
        results = [queue.submit(item, lambda item=item: started.append(item)) for item in items]
        await asyncio.sleep(0)
        assert started == ["x1"]
        assert queue.num_queued == 6
        replica.go.set()
        assert await asyncio.gather(*results) == [item.upper() for item in items]
        assert replica.batches == [["x1"], ["a1", "a2", "a3"], ["b1", "b2"], ["a4"]]

    asyncio.run(check())


def test_a_full_queue_says_when_to_come_again() -> None:
    async def check() -> None:
        replica = Replica()
        queue = dispatcher(replica, max_queued=2)
        results = [queue.submit(item) for item in ("a1", "b1", "c1")]
        with pytest.raises(RequestError, match="2 requests wait") as error:
            queue.submit("d1")
        assert error.value.status == 429
        assert int(error.value.headers()["Retry-After"]) >= 1
        results[1].cancel()
        await asyncio.sleep(0)
        queue.submit("d1")  # there is room again
        replica.go.set()
        assert await results[2] == "C1"
        assert ["b1"] not in replica.batches

    asyncio.run(check())


def test_a_failed_batch_fails_its_items_and_no_others() -> None:
    async def check() -> None:
        replica = Replica()
        queue = dispatcher(replica)
        replica.go.set()
        results = [queue.submit(item) for item in ("bad", "b1", "c1")]
        found = await asyncio.gather(*results, return_exceptions=True)
        assert [type(result) for result in found] == [ValueError, str, str]

    asyncio.run(check())


def test_an_item_that_breaks_a_batch_fails_alone() -> None:
    async def check() -> None:
        replica = Replica()
        queue = dispatcher(replica)
        results = [queue.submit(item) for item in ("x1", "bad", "b1", "b2")]
        replica.go.set()
        found = await asyncio.gather(*results, return_exceptions=True)
        assert [type(result) for result in found] == [str, ValueError, str, str]
        assert replica.batches == [["x1"], ["bad", "b1", "b2"], ["bad"], ["b1"], ["b2"]]

    asyncio.run(check())


def test_a_replica_with_too_few_results_leaves_nobody_waiting() -> None:
    async def check() -> None:
        async def forget(items: Sequence[str]) -> list[str]:
            return []

        queue = Dispatcher[str, str](
            forget, lambda item: 0, replicas=1, batch_size=2, max_queued=8, what="a replica"
        )
        found = await asyncio.gather(queue.submit("a"), return_exceptions=True)
        assert "0 results for 1" in str(found[0])

    asyncio.run(check())
