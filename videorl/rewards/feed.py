"""What reward models do beside their networks: clips are made ready while others are scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock
from typing import Any, TypeVar

from videorl.config import RewardConfig
from videorl.errors import ConfigError
from videorl.protocols import RewardModel
from videorl.rewards import load

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Feed:
    """How a model's clips are decoded, resized and normalised. Scores do not depend on it."""

    num_threads: int = 0
    """Clips that are made ready at once, ahead of the network; 0 = each when it is its turn."""
    turn: AbstractContextManager[Any] = field(default_factory=nullcontext)
    """Held while the network computes: a lock, where several calls share the model."""

    def map(self, prepare: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield `prepare` of every item, in order.

        Besides the result that was yielded last, at most `num_threads` are in memory or in work.
        An error comes in its turn; what was begun beyond it is then waited for and dropped.
        """
        if not self.num_threads:
            yield from map(prepare, items)
            return
        source, begun = iter(items), deque[Future[R]]()
        with ThreadPoolExecutor(self.num_threads, "prepare clips") as threads:
            try:
                while True:
                    for item in islice(source, self.num_threads - len(begun)):
                        begun.append(threads.submit(prepare, item))
                    if not begun:
                        return
                    yield begun.popleft().result()
            finally:
                for future in begun:
                    future.cancel()


def load_configured(config: RewardConfig) -> RewardModel:
    """Load the model of a recipe's section, with the feed that it asks for.

    Raises:
        ConfigError: As `videorl.rewards.load`; or a feed is asked for and the model has none.
        CheckpointError, RewardError: As `videorl.rewards.load`.
    """
    model: Any = load(config.name, config.path, **config.options)
    if not (config.decode_threads or config.prefetch):
        return model
    if not isinstance(getattr(model, "feed", None), Feed):
        raise ConfigError(
            f"rewards[{config.key}]: decode_threads and prefetch must be 0, since {config.name} "
            "has no attribute `feed` (videorl.rewards.feed.Feed) through which it makes clips ready"
        )
    model.feed = Feed(config.decode_threads, Lock() if config.prefetch else nullcontext())
    return model
