"""Results that come in parts: passed on as they come to whoever reads them, joined for everybody else."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import pytest
from tests.system import places
from tests.system.conftest import GUEST, Api, has_sandbox

from visp.client import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from visp.client.running import Server

pytestmark = pytest.mark.slow  # it starts servers with settings of their own

NODE, PYTHON = "nodejs:20", "python:3.11"

IN_PYTHON = """
import os, time
def main(params):
    return parts(params)
def parts(params):
    how = params.get('how')
    if how == 'head':
        yield {'statusCode': 201, 'headers': {'Content-Type': 'text/plain'}}
    if how == 'binary':
        yield b'\\xff\\x00'
        yield b'\\x01'
        return
    if how == 'long':
        for n in range(params['count']):
            yield 'x' * params['size']
        return
    yield 'one é\\n'
    if how == 'wait':
        while not os.path.exists('/tmp/never'):
            time.sleep(0.01)
    if how == 'fail':
        raise ValueError('in the middle')
    if how == 'end':
        os._exit(3)
    yield {'n': [1, 2]}
    yield b'two'
"""
IN_NODE = """
const { Readable } = require('stream')
exports.main = (params) => {
  if (params.how === 'readable') return Readable.from(['one', 'two'])
  if (params.how === 'web') {
    return new ReadableStream({ start (it) { it.enqueue(new Uint8Array([1, 255])); it.close() } })
  }
  return parts(params)
}
async function * parts (params) {
  if (params.how === 'head') yield { statusCode: 201, headers: { 'Content-Type': 'text/plain' } }
  if (params.how === 'long') {
    for (let n = 0; n < params.count; n++) yield 'x'.repeat(params.size)
    return
  }
  yield 'one é\\n'
  if (params.how === 'wait') await new Promise(() => setInterval(() => {}, 1000))
  if (params.how === 'fail') throw new Error('in the middle')
  if (params.how === 'end') process.exit(3)
  yield { n: [1, 2] }
  yield Buffer.from('two')
}
"""
CODE = {"inpython": (IN_PYTHON, PYTHON), "innode": (IN_NODE, NODE)}
BOTH = pytest.mark.parametrize("name", CODE)


class Events:
    """The answer to one streamed invocation, event by event."""

    def __init__(self, api: Api, name: str, arguments: dict[str, Any], query: str = "blocking=true") -> None:
        self._connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=60)
        self._connection.request(
            "POST",
            f"/api/v1/namespaces/_/actions/{name}?{query}",
            json.dumps(arguments),
            {
                "Accept": "text/event-stream",
                "Authorization": "Basic " + base64.b64encode(GUEST.encode()).decode(),
                "Content-Type": "application/json",
            },
        )
        self.response = self._connection.getresponse()

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        while (found := self.next()) is not None:
            yield found

    def next(self) -> tuple[str, bytes] | None:
        """The next event with its data, None at the end."""
        name, data = "", []
        while line := self.response.readline().rstrip(b"\n"):
            field, _, value = line.partition(b": ")
            if field == b"event":
                name = value.decode()
            elif field == b"data":
                data.append(value)
        if name:
            return name, b"\n".join(data)
        return None if self.response.isclosed() or self.response.peek(1) == b"" else self.next()

    def close(self) -> None:
        self.response.close()
        self._connection.close()


class Stream(Protocol):
    def __call__(self, name: str, arguments: dict[str, Any], query: str = ...) -> Events: ...


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with running.running({"limits.concurrency": 20, "pool.memory_mb": 1536}) as held:
        yield held


@pytest.fixture(scope="module")
def api(server: Server) -> Api:
    api = Api(server.url)
    for name, (code, kind) in CODE.items():
        api.action(name, code, kind)
        api.action(name + "several", code, kind, limits={"concurrency": 10})
    return api


@pytest.fixture
def stream(api: Api) -> Iterator[Stream]:
    """Invokes an action as a stream."""
    with contextlib.ExitStack() as opened:

        def begin(name: str, arguments: dict[str, Any], query: str = "blocking=true") -> Events:
            events = Events(api, name, arguments, query)
            opened.callback(events.close)
            return events

        yield begin


def result_of(record: bytes) -> Any:
    return json.loads(record)["response"]["result"]


def record_of(api: Api, id: str) -> Any:
    answer = api.get(f"activations/{id}?wait=30")
    assert answer.status == 200
    return answer.json


JOINED = {"body": 'one é\n{"n":[1,2]}\ntwo'}


@pytest.mark.parametrize("kind", ["", "several"])
@BOTH
def test_parts_come_as_events_and_the_record_at_the_end(api: Api, name: str, kind: str, stream: Stream) -> None:
    for _ in range(2):
        (first, id), *parts, (last, record) = stream(name + kind, {})
        assert (first, last) == ("activation", "record")
        assert parts[0] == ("part", '"one é\\n"'.encode()) or json.loads(parts[0][1]) == "one é\n"
        assert json.loads(parts[1][1]) == {"n": [1, 2]}
        assert parts[2] == ("bytes", base64.b64encode(b"two"))
        assert result_of(record) == JOINED
        assert record_of(api, json.loads(id)["activationId"])["response"]["result"] == JOINED


@BOTH
def test_whoever_does_not_read_parts_gets_them_joined(api: Api, name: str) -> None:
    assert api.invoke(name, {}).json["response"]["result"] == JOINED
    assert api.invoke(name, {"how": "head"}).json["response"]["result"] == {
        "statusCode": 201,
        "headers": {"Content-Type": "text/plain"},
        **JOINED,
    }


def test_bytes_that_are_no_text_are_joined_as_base64(api: Api) -> None:
    joined = {"body": base64.b64encode(b"\xff\x00\x01").decode(), "isBase64Encoded": True}
    assert api.invoke("inpython", {"how": "binary"}).json["response"]["result"] == joined


def test_streams_of_node_are_passed_on(api: Api) -> None:
    assert api.invoke("innode", {"how": "readable"}).json["response"]["result"] == {"body": "onetwo"}
    assert api.invoke("innode", {"how": "web"}).json["response"]["result"] == {
        "body": base64.b64encode(b"\x01\xff").decode(),
        "isBase64Encoded": True,
    }


@pytest.mark.parametrize("kind", ["", "several"])
@BOTH
def test_a_part_is_there_before_the_next_is_made(api: Api, name: str, kind: str, stream: Stream) -> None:
    api.action("waiting", *CODE[name], limits={"timeout": 3000, "concurrency": 10 if kind else 1})
    events = stream("waiting", {"how": "wait"})
    first, part = events.next(), events.next()
    assert first is not None
    assert part is not None
    assert part[0] == "part"
    events.close()


@pytest.mark.parametrize("kind", ["", "several"])
@BOTH
def test_what_fails_in_the_middle_ends_with_its_error(name: str, kind: str, stream: Stream) -> None:
    *_, part, (last, record) = stream(name + kind, {"how": "fail"})
    assert json.loads(part[1]) == "one é\n"
    assert last == "record"
    assert json.loads(record)["response"]["status"] == "application error"
    assert "in the middle" in json.dumps(result_of(record))


@pytest.mark.parametrize("kind", ["", "several"])
@BOTH
def test_what_ends_in_the_middle_ends_with_its_failure(name: str, kind: str, stream: Stream) -> None:
    *_, part, (last, record) = stream(name + kind, {"how": "end"})
    assert json.loads(part[1]) == "one é\n"
    assert last == "record"
    assert json.loads(record)["response"]["status"] == "action developer error"
    assert json.loads(stream(name + kind, {}).next()[1])["activationId"]  # type: ignore[index]


@pytest.mark.parametrize("kind", ["", "several"])
@BOTH
def test_a_long_stream_is_bounded_in_memory_and_in_its_record(
    api: Api, server: Server, name: str, kind: str, stream: Stream
) -> None:
    api.invoke(name + kind, {})
    count, size = (300 if kind else 1600), 65536
    before_kb = rss_kb(server)
    got = peak_kb = 0
    record = b""
    for n, (event, data) in enumerate(stream(name + kind, {"how": "long", "count": count, "size": size})):
        if event == "part":
            got += len(data) - 2
        elif event == "record":
            record = data
        if n % 100 == 0:
            peak_kb = max(peak_kb, rss_kb(server))
    assert got == count * size
    assert peak_kb - before_kb < 24 * 1024
    result = result_of(record)
    assert result["isTruncated"] is True
    assert set(result["body"]) == {"x"}
    assert 512 * 1024 < len(result["body"]) <= 1024 * 1024


@pytest.mark.parametrize("kind", ["", "several"])
@BOTH
def test_a_reader_that_does_not_read_holds_its_run_and_nobody_else(
    api: Api, server: Server, name: str, kind: str, stream: Stream
) -> None:
    api.invoke(name + kind, {})
    before_kb = rss_kb(server)
    events = stream(name + kind, {"how": "long", "count": 400, "size": 65536})
    assert events.next() is not None
    for _ in range(5):
        assert api.invoke(name + kind, {}).json["response"]["result"] == JOINED
    assert rss_kb(server) - before_kb < 16 * 1024
    got = sum(len(data) - 2 for event, data in events if event == "part")
    assert got == 400 * 65536


@pytest.mark.parametrize("kind", ["", "several"])
@BOTH
def test_a_reader_that_is_gone_does_not_end_the_run(api: Api, name: str, kind: str, stream: Stream) -> None:
    events = stream(name + kind, {"how": "long", "count": 200, "size": 65536})
    first = events.next()
    assert first is not None
    events.close()
    record = record_of(api, json.loads(first[1])["activationId"])
    assert record["response"]["status"] == "success"
    assert record["response"]["result"]["isTruncated"] is True


def test_what_is_refused_is_refused_as_ever(api: Api, stream: Stream) -> None:
    assert stream("nosuch", {}).response.status == 404
    assert stream("inpython", {}, query="blocking=true&delay=5s").response.status == 400
    headers = {"Accept": "text/event-stream", "Idempotency-Key": "k"}
    assert api.request("POST", "actions/inpython?blocking=true", {}, headers).status == 400


def test_without_blocking_nothing_is_streamed(stream: Stream) -> None:
    assert stream("inpython", {}, query="blocking=false").response.status == 202


def test_what_has_one_result_is_an_event_too(api: Api, stream: Stream) -> None:
    api.action("plain", "exports.main = (params) => params")
    (_, _), (last, record) = stream("plain", {"a": 1})
    assert (last, result_of(record)) == ("record", {"a": 1})


def test_a_sequence_passes_on_what_was_joined(api: Api, stream: Stream) -> None:
    api.action("body", "exports.main = (params) => ({ length: params.body.length })")
    document = {"exec": {"kind": "sequence", "components": ["/_/inpython", "/_/body"]}}
    assert api.request("PUT", "actions/both?overwrite=true", document).status == 200
    (_, _), (last, record) = stream("both", {})
    assert (last, result_of(record)) == ("record", {"length": len(JOINED["body"])})


def test_a_run_whose_time_is_over_while_nobody_reads_ends(api: Api, stream: Stream) -> None:
    api.action("late", IN_PYTHON, PYTHON, limits={"timeout": 1000})
    events = stream("late", {"how": "long", "count": 400, "size": 65536})
    (_, id), *_ = (events.next(),)
    record = record_of(api, json.loads(id)["activationId"])
    assert record["response"]["status"] == "action developer error"
    assert [event for event, _ in events][-1] == "record"


def test_a_server_that_is_killed_leaves_the_run_a_record() -> None:
    with places.opened(places.Place) as place:
        server = place.start()
        api = Api(server.url)
        api.action("inpython", IN_PYTHON, PYTHON)
        events = Events(api, "inpython", {"how": "wait"}, "blocking=true")
        first, part = events.next(), events.next()
        assert first is not None
        assert part is not None
        assert part[0] == "part"
        server.stop(signal.SIGKILL)
        events.close()
        record = record_of(Api(place.start().url), json.loads(first[1])["activationId"])
        assert record["response"]["status"] == "whisk internal error"


def test_parts_come_from_other_shards() -> None:
    with running.running({"workers": 2, "pool.memory_mb": 1536}) as server:
        api = Api(server.url)
        api.action("inpython", IN_PYTHON, PYTHON)
        with ThreadPoolExecutor(8) as threads, contextlib.ExitStack() as opened:

            def read(_: int) -> tuple[str, int]:
                events = Events(api, "inpython", {"how": "long", "count": 40, "size": 65536}, "blocking=true")
                opened.callback(events.close)
                (_, first), *parts, (last, _) = events
                assert last == "record"
                return json.loads(first)["activationId"][12:14], sum(len(data) - 2 for _, data in parts)

            found = list(threads.map(read, range(16)))
        assert {size for _, size in found} == {40 * 65536}
        assert {shard for shard, _ in found} == {"00", "01"}


def rss_kb(server: Server) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
