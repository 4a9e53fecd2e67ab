"""Actions that speak a protocol of their own: what they put on the wire, against stand-ins that read it."""

from __future__ import annotations

import base64
import datetime
import email
import email.policy
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.unit.catalog.conftest import loaded


@contextmanager
def listening(serve: Callable[[socket.socket], None], count: int = 1) -> Iterator[int]:
    """`serve` has each of so many connections; what it raises is raised here. The port."""
    raised: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def run() -> None:
            try:
                for _ in range(count):
                    with listener.accept()[0] as connection:
                        connection.settimeout(10)
                        serve(connection)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()
    if raised:
        raise raised[0]


def exactly(connection: socket.socket, count: int) -> bytes:
    out = b""
    while len(out) < count:
        piece = connection.recv(count - len(out))
        assert piece, f"closed after {out!r}"
        out += piece
    return out


def until(connection: socket.socket, end: bytes) -> bytes:
    out = b""
    while not out.endswith(end):
        out += exactly(connection, 1)
    return out


def test_mqtt(run) -> None:
    def serve(connection: socket.socket) -> None:
        connect = exactly(connection, exactly(connection, 2)[1])
        assert connect == b"\0\4MQTT\4\xc2\0\x3c\0\2id\0\2me\0\6secret"
        connection.sendall(b"\x20\2\0\0")
        assert exactly(connection, 2) == b"\x35\x0b"  # PUBLISH, level 2, retained
        assert exactly(connection, 11) == b"\0\3a/b\0\1" + b'{"v"'
        connection.sendall(b"\x50\2\0\1")
        assert exactly(connection, 4) == b"\x62\2\0\1"
        connection.sendall(b"\x70\2\0\1")
        assert exactly(connection, 2) == b"\xe0\0"

    with listening(serve) as port:
        url = f"mqtt://me:secret@127.0.0.1:{port}"
        args = {"url": url, "topic": "a/b", "payload": '{"v"', "qos": "2", "retain": True, "client_id": "id"}
        assert run("mqtt/publish", args) == {"topic": "a/b", "qos": 2, "bytes": 4}


def test_mqtt_that_is_refused(run) -> None:
    def serve(connection: socket.socket) -> None:
        exactly(connection, exactly(connection, 2)[1])
        connection.sendall(b"\x20\2\0\5")

    with listening(serve) as port:
        result = run("mqtt/publish", {"url": f"mqtt://127.0.0.1:{port}", "topic": "t", "payload": ""})
        assert result == {"error": "127.0.0.1 refused the connection: not authorized"}


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({}, "You must specify a url parameter."),
        ({"url": "mqtt://h"}, "You must specify a topic parameter."),
        ({"url": "mqtt://h", "topic": "t"}, "You must specify a payload parameter."),
        ({"url": "mqtt://h", "topic": "a/#", "payload": "x"}, "a message is published to one topic: no wildcards"),
        ({"url": "mqtt://h", "topic": "t", "payload": "x", "qos": 3}, "qos must be 0, 1 or 2"),
        (
            {"url": "http://h", "topic": "t", "payload": "x"},
            "the url must begin with mqtt:// or mqtts:// and name a host",
        ),
    ],
)
def test_mqtt_says_what_is_wrong(run, args: dict[str, object], sentence: str) -> None:
    assert run("mqtt/publish", args) == {"error": sentence}


def test_redis(run) -> None:
    def serve(connection: socket.socket) -> None:
        asked = b"*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$6\r\nsecret\r\n"
        assert exactly(connection, len(asked)) == asked
        connection.sendall(b"+OK\r\n")
        asked = b"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n"
        assert exactly(connection, len(asked)) == asked
        connection.sendall(b"+OK\r\n")
        asked = b"*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\n1\r\n"
        assert exactly(connection, len(asked)) == asked
        connection.sendall(b"*4\r\n$3\r\n\xc3\xa4x\r\n$-1\r\n:7\r\n$1\r\n\xff\r\n")

    with listening(serve) as port:
        args = {"url": f"redis://me:secret@127.0.0.1:{port}/2", "command": "MGET", "args": ["a", 1]}
        assert run("redis/command", args) == {"result": ["äx", None, 7, {"base64": "/w=="}]}


def test_redis_that_refuses(run) -> None:
    with listening(lambda connection: connection.sendall(b"-ERR unknown command\r\n")) as port:
        result = run("redis/command", {"url": f"redis://127.0.0.1:{port}", "command": "NAP"})
        assert result == {"error": "ERR unknown command"}


def test_nats(run) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b'INFO {"headers":true}\r\n')
        said = until(connection, b"PING\r\n")
        assert said.startswith(b"CONNECT {")
        assert b'"user": "me", "pass": "secret"' in said
        connection.sendall(b"PONG\r\n")
        head = b"NATS/1.0\r\nA: b\r\n\r\n"
        asked = b"HPUB s %d %d\r\n" % (len(head), len(head) + 2) + head + b"hi\r\nPING\r\n"
        assert exactly(connection, len(asked)) == asked
        connection.sendall(b"PING\r\nPONG\r\n")
        assert until(connection, b"\r\n") == b"PONG\r\n"

    with listening(serve) as port:
        args = {"url": f"nats://me:secret@127.0.0.1:{port}", "subject": "s", "payload": "hi", "headers": {"A": "b"}}
        assert run("nats/publish", args) == {"subject": "s", "bytes": 2}


def test_nats_that_refuses(run) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"INFO {}\r\n")
        until(connection, b"PING\r\n")
        connection.sendall(b"-ERR 'Authorization Violation'\r\n")

    with listening(serve) as port:
        result = run("nats/publish", {"url": f"nats://127.0.0.1:{port}", "subject": "s", "payload": {"a": 1}})
        assert result == {"error": "127.0.0.1 refused the message: 'Authorization Violation'"}


def test_websocket(run) -> None:
    def serve(connection: socket.socket) -> None:
        import hashlib

        head = until(connection, b"\r\n\r\n").decode().split("\r\n")
        assert head[0] == "GET /chat?room=1 HTTP/1.1"
        named = dict(line.split(": ", 1) for line in head[1:] if line)
        made = hashlib.sha1((named["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        accepted = base64.b64encode(made).decode()
        answer = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accepted}\r\n\r\n"
        connection.sendall(answer.encode())
        kind, size = exactly(connection, 2)
        assert (kind, size) == (0x81, 0x80 | 126)
        (length,) = struct.unpack(">H", exactly(connection, 2))
        mask = exactly(connection, 4)
        text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(exactly(connection, length)))
        assert text == b"x" * 200
        assert exactly(connection, 1)[0] == 0x88
        connection.sendall(b"\x81\x02hi\x88\x02\x03\xe8")

    with listening(serve) as port:
        args = {"uri": f"ws://127.0.0.1:{port}/chat?room=1", "payload": "x" * 200}
        assert run("websocket/send", args) == {"payload": "x" * 200}
    assert run("websocket/send", {"payload": "x"}) == {"error": "You must specify a uri parameter."}
    assert run("websocket/send", {"uri": "ws://h"}) == {"error": "You must specify a payload parameter."}


def test_mail(run) -> None:
    got: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"220 mail\r\n")
        while True:
            line = until(connection, b"\r\n")
            verb = line[:4].upper()
            if verb == b"EHLO":
                connection.sendall(b"250-mail\r\n250 AUTH PLAIN\r\n")
            elif verb == b"AUTH":
                assert base64.b64decode(line.split()[2]) == b"\0me\0secret"
                connection.sendall(b"235 ok\r\n")
            elif verb == b"DATA":
                connection.sendall(b"354 go\r\n")
                got.append(until(connection, b"\r\n.\r\n"))
                connection.sendall(b"250 ok\r\n")
            elif verb == b"QUIT":
                connection.sendall(b"221 bye\r\n")
                return
            else:
                if verb == b"RCPT":
                    got.append(line)
                connection.sendall(b"250 ok\r\n")

    with listening(serve) as port:
        args = {"host": "127.0.0.1", "port": port, "tls": "none", "username": "me", "password": "secret"}
        args |= {"from": "me@example.com", "to": "a@example.com, b@example.com", "bcc": ["c@example.com"]}
        args |= {"subject": "Grüße", "text": "hello", "attachments": [{"name": "a.bin", "base64": "AAE="}]}
        result = run("email/send", args)
        assert result["refused"] == []
    assert [line.split(b"<")[1].split(b">")[0] for line in got[:-1]] == [
        b"a@example.com",
        b"b@example.com",
        b"c@example.com",
    ]
    message = email.message_from_bytes(got[-1], policy=email.policy.default)
    assert message["subject"] == "Grüße"
    assert "c@example.com" not in got[-1].decode()
    assert message["message-id"] == result["id"]
    (attached,) = message.iter_attachments()
    assert attached.get_content() == b"\0\1"


# ── signatures and records, against published examples ──────────────────────────────────────────────────────────────

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
BUCKET = "https://examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("path", "query", "headers", "signature"),
    [
        ("/test.txt", "", {"range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("/", "lifecycle=", {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("/", "max-keys=2&prefix=J", {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_signatures_are_those_of_amazons_examples(
    path: str, query: str, headers: dict[str, str], signature: str
) -> None:
    now = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC)
    signed = loaded("s3/get")["signed"]
    sent = signed("GET", BUCKET, path, query, headers, None, "us-east-1", KEY, SECRET, now)
    assert sent["Authorization"].endswith(f"Signature={signature}")


def test_objects(run, standin) -> None:
    args = {"endpoint": standin.url, "bucket": "b", "access_key": KEY, "secret_key": SECRET}
    standin.headers = {"ETag": '"e"', "Content-Type": "text/plain"}
    standin.answer = lambda _: (200, b"hello")
    result = run("s3/get", args | {"key": "a b/c"})
    assert result == {
        "bucket": "b",
        "key": "a b/c",
        "size": 5,
        "etag": "e",
        "contentType": "text/plain",
        "body": "hello",
    }
    assert run("s3/put", args | {"key": "k", "body": {"v": 1}}) == {"bucket": "b", "key": "k", "size": 8, "etag": "e"}
    assert (standin.heard[0].path, standin.heard[1].method) == ("/b/a%20b/c", "PUT")
    assert (standin.heard[1].json, standin.heard[1].headers["content-type"]) == ({"v": 1}, "application/json")
    signed = loaded("s3/get")["signed"]
    for heard in standin.heard:  # as the service checks it: from what came
        sent = {name: heard.headers[name] for name in ("content-type",) if name in heard.headers and heard.body}
        now = datetime.datetime.strptime(heard.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
        body = heard.body or None
        again = signed(heard.method, standin.url, heard.path, "", sent, body, "us-east-1", KEY, SECRET, now)
        assert heard.headers["authorization"] == again["Authorization"]
        assert heard.headers["host"] == standin.url.removeprefix("http://")


def test_lists_of_objects(run, standin) -> None:
    standin.answer = lambda _: (
        200,
        b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Contents><Key>a</Key><Size>3</Size>'
        b"<ETag>&quot;e&quot;</ETag><LastModified>2024</LastModified></Contents>"
        b"<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>"
        b"<NextContinuationToken>n</NextContinuationToken></ListBucketResult>",
    )
    result = run("s3/list", {"endpoint": standin.url, "bucket": "b", "prefix": "x y", "limit": 5})
    objects = [{"key": "a", "size": 3, "etag": "e", "modified": "2024"}]
    assert result == {"bucket": "b", "objects": objects, "prefixes": ["p/"], "next": "n"}
    assert standin.one.query == {"list-type": "2", "max-keys": "5", "prefix": "x y"}
    assert "authorization" not in standin.one.headers
    standin.answer = lambda _: (403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
    error = run("s3/get", {"endpoint": standin.url, "bucket": "b", "key": "k"})["error"]
    assert error == "403 from the object store: AccessDenied: no"


def test_kafkas_checksums_and_partitions() -> None:
    space = loaded("messaging/kafkaProduce")
    assert space["crc32c"](b"123456789") == 0xE3069283
    expected = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    assert {text: space["murmur2"](text.encode()) for text in expected} == {
        text: number & 0xFFFFFFFF for text, number in expected.items()
    }


def test_kafka(run) -> None:
    """Two connections: one that asks who leads the topic, one that sends the message there."""
    records: list[bytes] = []
    ports: list[int] = []

    def serve(connection: socket.socket) -> None:
        while head := connection.recv(4):
            (size,) = struct.unpack(">i", head)
            asked = exactly(connection, size)
            api, _, id = struct.unpack(">hhi", asked[:8])
            if api == 18:
                body = struct.pack(">hi", 0, 2) + struct.pack(">hhhhhh", 0, 3, 9, 3, 0, 12)
            elif api == 3:
                assert asked.endswith(b"\0\1t\1")
                host = b"\0\x09127.0.0.1"
                body = struct.pack(">iii", 0, 1, 5) + host + struct.pack(">ihhii", ports[0], -1, -1, 5, 1)
                body += b"\0\0" + b"\0\1t\0" + struct.pack(">ihiiiiii", 1, 0, 0, 5, 1, 5, 1, 5)
            else:
                records.append(asked)
                body = struct.pack(">i", 1) + b"\0\1t" + struct.pack(">iihqqi", 1, 0, 0, 42, -1, 0)
            connection.sendall(struct.pack(">ii", len(body) + 4, id) + body)

    with listening(serve, count=2) as port:
        ports.append(port)
        args = {"brokers": f"127.0.0.1:{port}", "topic": "t", "value": "aGk=", "key": "k", "base64DecodeValue": "true"}
        result = run("messaging/kafkaProduce", args)
        assert result == {"success": True, "message": "Successfully sent message to t:0 at offset 42"}
    batch = records[0].partition(b"\0\1t" + struct.pack(">ii", 1, 0))[2][4:]
    (crc,) = struct.unpack(">I", batch[17:21])
    assert crc == loaded("messaging/kafkaProduce")["crc32c"](batch[21:])
    assert batch.endswith(b"\x02k\x04hi\x00")


def test_kafka_says_what_is_wrong(run) -> None:
    error = run("messaging/kafkaProduce", {"topic": "t"})["error"]
    assert error == "You must supply all of the following parameters: brokers, value"
    error = run("messaging/messageHubProduce", {"topic": "t", "value": "v", "user": "u"})["error"]
    assert error == "You must supply all of the following parameters: kafka_brokers_sasl, password"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    space = loaded("messaging/kafkaProduce")
    space["PAUSE_S"] = 0
    args = {"brokers": [f"127.0.0.1:{port}"], "topic": "t", "value": "v"}
    assert space["main"](args) == {
        "error": "No brokers available. Check that your supplied brokers are correct and available."
    }
    error = run("messaging/kafkaProduce", args | {"value": "%", "base64DecodeValue": True})["error"]
    assert error == "value parameter is not Base64 encoded"


def test_a_way_out_by_a_proxy(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(connection: socket.socket) -> None:
        head = until(connection, b"\r\n\r\n")
        assert head.startswith(b"CONNECT cache.example:6379 HTTP/1.1\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        until(connection, b"PING\r\n")
        connection.sendall(b"+PONG\r\n")

    with listening(serve) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        assert run("redis/command", {"url": "redis://cache.example", "command": "PING"}) == {"result": "PONG"}
    with listening(lambda connection: connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        error = run("redis/command", {"url": "redis://cache.example", "command": "PING"})["error"]
        assert error == "cannot reach cache.example:6379: the proxy answered 403"
