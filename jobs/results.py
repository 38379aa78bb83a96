"""What a command found, on standard output: as text for people, or as JSON for programs."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

Show = Callable[[Any, str], None]
"""Prints a result, given as a value for programs and as a text for people."""


def add_json(parser: Any, text: str = "print JSON, and nothing else, on standard output") -> None:
    """Add `--json` to a parser, or to a group of its arguments; `text` is its help."""
    parser.add_argument("--json", action="store_true", help=text)


@contextmanager
def results(options: argparse.Namespace) -> Iterator[Show]:
    """Yield what prints a result.

    With `--json` whatever else is printed inside the block, by a library or by Ray's workers, goes
    to standard error: a program reads standard output as it is.

    Args:
        options: Of a parser that `add_json` was called with.
    """
    out = sys.stdout

    def show(value: Any, text: str) -> None:
        print(as_strict_json(value) if options.json else text, file=out, flush=True)

    with redirect_stdout(sys.stderr) if options.json else nullcontext():
        yield show


def as_strict_json(value: Any) -> str:
    """Return a value as JSON that every reader takes: what is not finite becomes null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
