"""Clients that never let up, and remember whatever went wrong: on connections that stay, and on new ones."""

from __future__ import annotations

import http.client
import json
import threading
from base64 import b64encode
from typing import Any
from urllib.parse import urlsplit

from tests.system.conftest import GUEST, Answer

AUTH = "Basic " + b64encode(GUEST.encode()).decode()


OPENED: list[Line] = []
"""For whoever cleans up behind a test: lines that it did not close itself."""


class Line:
    """One connection that stays open for as long as the server lets it."""

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
        OPENED.append(self)

    def send(self, path: str, body: Any) -> None:
        headers = {"Authorization": AUTH, "Content-Type": "application/json"}
        self.connection.request("POST", f"/api/v1/namespaces/_/{path}", json.dumps(body), headers)

    def answer(self) -> Answer:
        got = self.connection.getresponse()
        return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())

    def ask(self, path: str, body: Any) -> Answer:
        self.send(path, body)
        return self.answer()

    def invoke(self, name: str, body: Any, query: str = "blocking=true") -> Answer:
        return self.ask(f"actions/{name}?{query}", body)

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed it."""
        sock = self.connection.sock
        if sock is None:
            return False
        sock.setblocking(False)
        try:
            return bool(sock.recv(1))
        except BlockingIOError:
            return True
        finally:
            sock.settimeout(60.0)

    def close(self) -> None:
        self.connection.close()


def close_all() -> None:
    while OPENED:
        OPENED.pop().close()


class Callers:
    """For the block, `count` clients call an action one call after the other, blocking and not in turn.

    Half of them keep their connection for as long as the server does. `failed` has all that was not answered as it
    should be, `given` every activation id that came back.
    """

    def __init__(self, url: str, action: str, *, count: int = 8, wait_ms: int = 60_000) -> None:
        self._url = url
        self._action = action
        self._blocking = f"blocking=true&timeout={wait_ms}"
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(count)]
        self.given: list[str] = []
        self.failed: list[object] = []
        self.closed = 0
        """How often the server said that an answer is the last one on a connection."""

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        line, n = Line(self._url), 0
        while not self._is_over.is_set():
            n += 1
            try:
                answer = line.invoke(self._action, {"n": n}, self._blocking if n % 2 else "")
            except (http.client.HTTPException, OSError) as error:
                self.failed.append(error)
                line.close()
                continue
            if answer.status in (200, 202):
                self.given.append(answer.json["activationId"])
            else:
                self.failed.append(answer)
            if answer.headers.get("connection") == "close":
                self.closed += 1
            if number % 2:
                line.close()
        line.close()
