"""Cards: their numbers, and what is said of unknown ones."""

from __future__ import annotations

import pytest

from videorl.errors import ConfigError
from videorl.planning.cards import CARDS, find_card
from videorl.planning.rates import RATES


def test_an_unknown_card_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"h100-80gb.*got h101.*--memory-gb and --tflops"):
        find_card("h101")


def test_numbers_by_hand_win() -> None:
    card = find_card("mine", 96, 400)
    assert (card.memory_gib, card.tflops) == (96, 400)
    assert card.seconds(RATES["learning"].share * 400e12, "learning") == pytest.approx(1.0)
    assert find_card("a100-40gb", memory_gb=30).tflops == CARDS["a100-40gb"].tflops


@pytest.mark.parametrize("number", [0, -1, float("nan"), float("inf")])
def test_numbers_above_zero_only(number: float) -> None:
    with pytest.raises(ConfigError, match="--memory-gb must be > 0"):
        find_card("h100-80gb", memory_gb=number)
