"""Bodies of requests, whole and broken."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from tests.serving import TEXT, error


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"prompt=a&prompt=b", "application/x-www-form-urlencoded", 422),
        (b"x", "multipart/form-data; boundary=y", 400),
        (b"x", "multipart/form-data", 400),
        (b"x", "text/plain", 415),
        (b'{"prompt": "a", "negative_prompt": "\\ud800"}', "application/json", 400),
        (b'{"prompt": "a", "user": "\\ud800"}', "application/json", 400),
        (b"a&" * 500_000, "application/x-www-form-urlencoded", 400),
        (b"prompt=x", "application/x-www-form-urlencoded; charset=utf-7", 415),
        (b" " * (2**20 + 1), "application/json", 413),
    ],
)
def test_bodies_that_cannot_be_read(
    client: TestClient, content: bytes, kind: str, status: int
) -> None:
    for route in ("/v1/videos", "/v1/videos/sync"):
        answer = client.post(route, content=content, headers={"content-type": kind})
        assert error(answer)[0] == status, answer.text


@pytest.mark.parametrize(
    ("charset", "prompt"),
    [("unicode_escape", b"\\ud800"), ("utf-7", b"+2AA-"), ("punycode", b"a-" + b"a" * 100_000)],
)
def test_codecs_that_make_no_text_or_take_minutes_are_refused(
    client: TestClient, charset: str, prompt: bytes
) -> None:
    part = b'--y\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    content = part % (b'video"; filename="v', b"x") + part % (b"prompt", prompt) + b"--y--\r\n"
    headers = {"content-type": f"multipart/form-data; boundary=y; charset={charset}"}
    answer = client.post("/v1/rewards", content=content, headers=headers)
    assert error(answer) == (415, "unsupported_charset")


def test_a_picture_is_refused(client: TestClient) -> None:
    files = {"input_reference": ("a.png", b"x"), "prompt": (None, TEXT)}
    answer = client.post("/v1/videos", files=files)
    assert answer.json()["error"]["param"] == "input_reference"
