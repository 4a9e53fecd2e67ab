"""In which form answers come: compressed for who reads that, and with where their time went for who asks."""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.system import places
from tests.system.conftest import Answer, Api
from tests.system.places import TRUSTING, Place

from visp.client.running import Server

pytestmark = pytest.mark.slow  # it starts servers

GZIP = {"Accept-Encoding": "gzip"}
CODE = "def main(p):\n  return {'body': 'ab' * (int(p['n']) // 2)}"
PAGE = "/api/v1/web/guest/default/sized.text?n="
RAW = "def main(p):\n  return {'headers': {'content-type': p['kind'], **p.get('more', {})}, 'body': 'a' * 4000}"
PYTHON = "python:3.11"
WEB = [{"key": "web-export", "value": True}]


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with places.opened(Place) as place:
        api = Api(place.start(*TRUSTING).url)
        api.action("sized", CODE, PYTHON, annotations=WEB)
        api.action("raw", RAW, PYTHON, annotations=WEB)
        yield api


def told(answer: Answer) -> tuple[int, str | None, str | None]:
    return answer.status, answer.headers.get("content-encoding"), answer.headers.get("vary")


@pytest.mark.parametrize("times", range(3))  # the first is answered by the application, the next by the door
@pytest.mark.parametrize("size", [1024, 20_000, 600_000])
def test_a_web_action_is_compressed_for_who_reads_it(api: Api, size: int, times: int) -> None:
    answer = api.request("GET", PAGE + str(size), headers=GZIP)
    assert told(answer) == (200, "gzip", "Accept-Encoding")
    assert gzip.decompress(answer.body) == b"ab" * (size // 2)
    assert len(answer.body) < size // 10
    plainly = api.request("GET", PAGE + str(size))
    assert told(plainly) == (200, None, "Accept-Encoding")
    assert len(plainly.body) == size
    assert told(api.request("HEAD", PAGE + str(size), headers=GZIP)) == (200, None, "Accept-Encoding")


@pytest.mark.parametrize("times", range(2))
def test_short_answers_are_not(api: Api, times: int) -> None:
    assert told(api.request("GET", PAGE + "1022", headers=GZIP)) == (200, None, None)


@pytest.mark.parametrize("times", range(2))
def test_results_and_lists_are(api: Api, times: int) -> None:
    given = {"n": 5000}
    result = api.request("POST", "actions/sized?blocking=true&result=true", given, GZIP)
    assert told(result) == (200, "gzip", "Accept-Encoding")
    assert json.loads(gzip.decompress(result.body)) == {"body": "ab" * 2500}
    listed = api.request("GET", "activations?docs=true", headers=GZIP)
    assert told(listed) == (200, "gzip", "Accept-Encoding")
    assert json.loads(gzip.decompress(listed.body))


@pytest.mark.parametrize("times", range(2))
def test_an_action_may_want_none_of_it(api: Api, times: int) -> None:
    path = "/api/v1/web/guest/default/raw.http"
    assert told(api.request("POST", path, {"kind": "text/css"}, GZIP))[1] == "gzip"
    more = {"Cache-Control": "no-transform"}
    assert told(api.request("POST", path, {"kind": "text/css", "more": more}, GZIP)) == (200, None, None)
    assert told(api.request("POST", path, {"kind": "image/png"}, GZIP)) == (200, None, None)


def test_answers_stay_in_order_while_one_is_compressed_elsewhere(api: Api) -> None:
    where = urlsplit(api.url)
    sizes = [600_000, 1024, 2000, 300_000, 1000]
    requests = "".join(
        f"GET {PAGE}{size} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n" for size in sizes
    )
    with socket.create_connection((where.hostname, where.port), 30) as connection:
        connection.sendall(requests.encode() + b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        got = b""
        while part := connection.recv(65536):
            got += part
    found = []
    while got:
        head, _, got = got.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None
        body, got = got[: int(length[1])], got[int(length[1]) :]
        found.append(len(gzip.decompress(body)) if b"gzip" in head else len(body))
    assert found == [*sizes, len(b"pong")]


def entries(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200
    header = answer.headers.get("server-timing", "")
    return dict(re.findall(r'(\w+);(?:dur|desc)="?([\w. ]+)"?', header))


def test_who_asks_is_told_where_the_time_went(api: Api) -> None:
    asked = {"X-OW-Server-Timing": "on"}
    api.action("fresh", "def main(p):\n  return {}", PYTHON)
    path = "actions/fresh?blocking=true"
    first = entries(api.request("POST", path, {}, asked))
    assert first.keys() >= {"queue", "init", "run", "cold"}
    assert first["cold"] == "first use"
    for _ in range(2):
        assert entries(api.request("POST", path, {}, asked)).keys() == {"queue", "run"}
        assert entries(api.request("POST", path, {})) == {}
        assert entries(api.request("GET", PAGE + "10", headers=asked)) == {}  # who has no key learns nothing


@pytest.mark.parametrize("setting", ["always", "off"])
def test_settings_tell_all_or_none(setting: str) -> None:
    with places.opened(Place) as place:
        server: Server = place.start(*TRUSTING, http__server_timing=setting, http__compress_bytes=0)
        api = Api(server.url)
        api.action("sized", CODE, PYTHON, annotations=WEB)
        for _ in range(3):
            for answer in (
                api.request("GET", PAGE + "5000", headers=GZIP),
                api.request("POST", "actions/sized?blocking=true", {"n": 5000}, GZIP | {"X-OW-Server-Timing": "on"}),
            ):
                assert ("run" in entries(answer)) is (setting == "always")
                assert told(answer) == (200, None, None)
