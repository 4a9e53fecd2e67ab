"""A stand-in for CouchDB: one database, whose changes are answered as fast as they are asked for."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME, USER, PASSWORD = "told", "who", "what"


class Couch:
    """`offer` lets changes be there."""

    def __init__(self) -> None:
        self.port = 0
        self._lines: list[bytes] = []
        self._told = threading.Condition()

    def offer(self, changes: int) -> None:
        with self._told:
            first = len(self._lines) + 1
            self._lines += [
                msgspec.json.encode({"seq": seq, "id": f"{seq:08}", "changes": [{"rev": f"1-{seq:032x}"}]})
                for seq in range(first, first + changes)
            ]
            self._told.notify_all()

    def changes(self, since: int, most: int, wait_s: float) -> bytes:
        with self._told:
            self._told.wait_for(lambda: len(self._lines) > since, wait_s)
            found = self._lines[since : since + most]
        return b'{"results":[%b],"last_seq":%d}' % (b",".join(found), since + len(found))


@contextlib.contextmanager
def couch() -> Iterator[Couch]:
    """On a free port of this machine, for the block."""
    made = Couch()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            if asked.path == f"/{NAME}/_changes":
                query = {name: values[-1] for name, values in parse_qs(asked.query).items()}
                wait_s = int(query["timeout"]) / 1000 if query.get("feed") == "longpoll" else 0.0
                body = made.changes(int(query["since"]), int(query["limit"]), wait_s)
            else:
                body = b'{"update_seq":0}'
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    made.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
