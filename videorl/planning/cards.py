"""GPUs: how much memory they have, and how fast they multiply."""

from __future__ import annotations

from dataclasses import dataclass

from videorl.errors import ConfigError
from videorl.planning.rates import RATES, Work

GIB = 2**30
USABLE = 0.93
"""Share of a card's memory that tensors may fill: CUDA, NCCL and fragmentation take the rest."""


@dataclass(frozen=True, slots=True)
class Card:
    """One kind of GPU."""

    name: str
    memory_gib: float
    tflops: float
    """Dense bfloat16 operations per second, in units of 10^12, as its maker states them."""

    @property
    def usable_gib(self) -> float:
        """GiB that tensors may fill."""
        return self.memory_gib * USABLE

    def seconds(self, flops: float, work: Work) -> float:
        """Return how long so many bfloat16 operations of a kind of work take on one card."""
        return flops / (RATES[work].share * self.tflops * 1e12)


CARDS = {
    card.name: card
    for card in (
        Card("b200-180gb", 178.0, 2250),
        Card("h200-141gb", 140.4, 989),
        Card("h100-80gb", 79.6, 989),
        Card("h100-pcie-80gb", 79.6, 756),
        Card("h20-96gb", 95.6, 148),
        Card("a100-80gb", 79.3, 312),
        Card("a100-40gb", 39.5, 312),
        Card("l40s-48gb", 44.7, 362),
        Card("a6000-48gb", 47.5, 155),
        Card("a10g-24gb", 22.5, 70),
        Card("rtx4090-24gb", 23.6, 165),
    )
}
"""Memory as the driver reports it, which is less than the name says."""
DEFAULT = "h100-80gb"


def find_card(name: str, memory_gb: float | None = None, tflops: float | None = None) -> Card:
    """Return a card of the table, with other numbers where they are given.

    Args:
        name: One of `CARDS`; anything where both numbers are given.
        memory_gb: GiB of one card, > 0.
        tflops: 10^12 dense bfloat16 operations per second, > 0.

    Raises:
        ConfigError: The card is unknown, or a number is not above 0.
    """
    for option, value in (("--memory-gb", memory_gb), ("--tflops", tflops)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{option} must be > 0, got {value}")
    if memory_gb is not None and tflops is not None:
        return Card(name if name not in CARDS else "custom", memory_gb, tflops)
    if name not in CARDS:
        raise ConfigError(
            f"--gpu must be one of {', '.join(CARDS)}, got {name}; of another card give "
            "--memory-gb and --tflops (its dense bfloat16 rate)"
        )
    known = CARDS[name]
    return Card(name, memory_gb or known.memory_gib, tflops or known.tflops)
