"""Headers of the gateway's answers, and where a request came from."""

from __future__ import annotations

import json

import pytest

from visp.api.errors import HttpAnswer
from visp.api.events import EventStream
from visp.api.managed import failed, refusal, web_port, with_cors, without_cors

OWN = (("Access-Control-Allow-Origin", "mine"), ("access-control-expose-headers", "X"), ("X-Own", "1"))


@pytest.mark.parametrize(
    ("host", "scheme", "port"),
    [
        ("h:3233", "http", "3233"),
        ("h", "http", "80"),
        ("h", "https", "443"),
        ("[::1]:80", "http", "80"),
        ("[::1]", "http", "80"),
        ("", "http", "80"),
    ],
)
def test_ports(host: str, scheme: str, port: str) -> None:
    assert web_port(host, scheme) == port


def test_errors() -> None:
    answer = refusal(404, "Not found.")
    assert (answer.status, answer.body) == (404, b'{"status":404,"message":"Error: Not found."}')
    answer = failed({"host": "h"}, 502)
    assert (answer.status, json.loads(answer.body)["code"], answer.headers) == (500, 502, (("X-Gateway-Host", "h"),))


def test_headers_of_an_answer_that_comes_in_parts() -> None:
    async def nothing():  # type: ignore[no-untyped-def]
        yield b""

    made = EventStream(nothing(), head=HttpAnswer(200, headers=OWN))
    without_cors(made)
    assert made.head.headers == (("X-Own", "1"),)
    with_cors(made, {"origin": "o"})
    assert dict(made.head.headers)["Access-Control-Allow-Origin"] == "o"
