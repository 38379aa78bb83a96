"""A real browser, and what it meets: servers of pages, and plain requests."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import sync_playwright

from jobs.watching import CHROMIUM, started

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")


@contextmanager
def opened_browser(**options: Any) -> Iterator[Any]:
    """Yield a page; what its scripts raise fails the test.

    Args:
        options: Of the page, such as `color_scheme`.
    """
    errors: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(**options)
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        browser.close()
    assert not errors


@contextmanager
def judged(*words: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve a study meanwhile; yield its address, which ends in /, and the server's process.

    An error in the server's log fails the test.
    """
    with tempfile.TemporaryFile("w+") as log:
        with started("jobs.judge", *words, log=log) as found:
            yield found
        log.seek(0)
        assert "ERROR" not in (said := log.read()), said


def answer_to(
    url: str, method: str = "GET", **headers: str
) -> tuple[int, Message[str, str], bytes]:
    """Return status, headers and content of an answer, whatever the status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(url, headers=named, method=method), timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except HTTPError as error:
        return error.code, error.headers, error.read()
