"""Futures joined: whose result and whose error, and what a kept one holds on to."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from videorl.futures import completed, gathered, mapped, once, recovered, then


def failing(error: Exception) -> Future[int]:
    def work() -> int:
        raise error

    return completed(work)


def test_a_chain_has_the_result_of_its_last_step() -> None:
    source: Future[int] = Future()
    joined = then(mapped(source, lambda value: value + 1), lambda value: completed(lambda: [value]))
    assert not joined.done()
    source.set_result(1)
    assert joined.result(0) == [2]


def test_an_error_of_any_step_is_the_result_s() -> None:
    with pytest.raises(KeyError, match="source"):
        mapped(failing(KeyError("source")), str).result(0)
    with pytest.raises(ZeroDivisionError):
        mapped(completed(lambda: 0), lambda value: 1 // value).result(0)
    with pytest.raises(KeyError, match="second"):
        then(completed(lambda: 0), lambda _: failing(KeyError("second"))).result(0)


def test_a_repair_replaces_an_error_or_raises() -> None:
    def repair(error: Exception) -> Future[int]:
        if isinstance(error, KeyError):
            return completed(lambda: 7)
        raise error

    assert recovered(completed(lambda: 1), repair).result(0) == 1
    assert recovered(failing(KeyError()), repair).result(0) == 7
    with pytest.raises(ValueError, match="no key"):
        recovered(failing(ValueError("no key")), repair).result(0)


def test_gathered_results_keep_their_order() -> None:
    sources = [Future[int]() for _ in range(3)]
    joined = gathered(sources)
    for index in (2, 0, 1):
        assert not joined.done()
        sources[index].set_result(index)
    assert joined.result(0) == [0, 1, 2]
    with pytest.raises(KeyError, match="first"):
        gathered([failing(KeyError("first")), failing(KeyError("second"))]).result(0)


class Media:
    """Something large."""


JOINS: dict[str, Callable[[Future[int], Media], object]] = {
    "once": lambda kept, media: kept.add_done_callback(once(lambda _, media=media: None)),
    "then": lambda kept, media: then(kept, lambda _: completed(lambda: media)),
    "mapped": lambda kept, media: mapped(kept, lambda _: media),
    "recovered": lambda kept, media: recovered(kept, lambda _: completed(lambda: media and 1)),
    "gathered": lambda kept, media: gathered([kept, mapped(kept, lambda _: id(media))]),
}


@pytest.mark.parametrize("name", JOINS)
@pytest.mark.parametrize("fails", [False, True])
def test_a_kept_future_lets_go_of_what_was_joined_to_it(name: str, fails: bool) -> None:
    kept: Future[int] = Future()
    media = Media()
    held = weakref.ref(media)
    JOINS[name](kept, media)
    del media
    assert held() is not None
    if fails:
        kept.set_exception(KeyError("lost"))
    else:
        kept.set_result(1)
    gc.collect()
    assert held() is None


def test_nothing_is_gathered_at_once() -> None:
    assert gathered([]).result(timeout=0) == []
