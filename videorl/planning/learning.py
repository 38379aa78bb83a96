"""What a learner rank holds and does for its videos, whatever it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from videorl.planning.cards import Card
from videorl.planning.counting import Counted


class Learning(Protocol):
    """Counts of one way to learn."""

    @property
    def num_roles(self) -> int:
        """Videos of one example."""
        ...

    @property
    def weights(self) -> float:
        """Bytes of models beside the transformer."""
        ...

    @property
    def takes_one(self) -> bool:
        """Whether `micro_batch_size=auto` is 1 because more at once is slower."""
        ...

    def activations(self, num_videos: int) -> float:
        """Return the most that so many videos at once hold beside weights."""
        ...

    def host_bytes(self, num_videos: int) -> float:
        """Return what of it waits in host memory."""
        ...

    def limit(self, num_videos: int) -> str:
        """Return what takes the most memory, in words; empty where there is but one thing."""
        ...

    def seconds(self, card: Card, num_videos: int) -> dict[str, float]:
        """Return the seconds of one example by what they are for, with so many videos at once."""
        ...


@dataclass(frozen=True, slots=True)
class Candidates:
    """Learning from candidates: pairs of them, or single ones; at one time."""

    one: Counted
    """A video: frozen roles, policy, backward."""
    num_roles: int
    forward_flops: float
    """Of the policy alone."""
    weights: float = 0.0
    takes_one: bool = False

    def activations(self, num_videos: int) -> float:
        """Return those of so many videos at once."""
        return self.one.num_bytes * num_videos

    def host_bytes(self, num_videos: int) -> float:
        """Return 0: nothing waits there."""
        return 0.0

    def limit(self, num_videos: int) -> str:
        """Return nothing: all of it are the policy's activations."""
        return ""

    def seconds(self, card: Card, num_videos: int) -> dict[str, float]:
        """Return the seconds of one example; its videos one by one cost a forward more of each."""
        extra = self.forward_flops if num_videos < self.num_roles else 0.0
        flops = self.num_roles * (self.one.flops + extra)
        return {"the policy": card.seconds(flops, "learning")}
