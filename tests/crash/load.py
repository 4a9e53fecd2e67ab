"""Clients of a server that is about to be killed, and the reader of what the one before it gave."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from tests.crash.book import EFFECT, EVENT, PARTS, SEQUENCE, Book, Kept, Keyed

CALLERS = 6
TIMEOUT_S = 20.0
REST_S = 0.005
LONG_MS = 60
LARGE = " " * 20_000
"""Code larger than what lies in the database itself."""
REFUSALS = frozenset((429, 500, 502, 503))
FOREIGN_EVERY = 8


class Line:
    """One connection, as one namespace; it is opened again after an error."""

    def __init__(self, url: str, auth: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
        token = base64.b64encode(auth.encode()).decode()
        self._headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}

    def request(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any, str | None]:
        """Status, JSON, and the activation id of the headers. Raises `OSError`, `HTTPException`, `ValueError`."""
        target = path if path.startswith("/") else f"/api/v1/namespaces/_/{path}"
        headers = self._headers if key is None else self._headers | {"Idempotency-Key": key}
        try:
            self._connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, HTTPException):
            self._connection.close()
            raise
        return answer.status, json.loads(data) if data else None, answer.getheader("x-openwhisk-activation-id")

    def ready_shard(self) -> int | None:
        """The number of the shard that this connection came to, if it is ready; raises `OSError`, `HTTPException`."""
        self._connection.request("GET", "/ready")
        answer = self._connection.getresponse()
        answer.read()
        self._connection.request("GET", "/metrics", headers=self._headers)
        found = re.search(rb'shard="(\d+)"', self._connection.getresponse().read())
        return int(found[1]) if found is not None and answer.status == 200 else None

    def close(self) -> None:
        self._connection.close()


class Load:
    """Callers in threads, for as long as the block lasts; each has a namespace."""

    def __init__(self, url: str, keys: Mapping[str, str], book: Book, seed: int) -> None:
        self._is_over = threading.Event()
        names = [*keys] * CALLERS
        self._callers = [
            _Caller(Line(url, keys[name]), name, n, book, random.Random(f"{seed} {n}"))
            for n, name in enumerate(names[:CALLERS])
        ]
        self._reader = Reader(url, keys, book)
        self._threads = [threading.Thread(target=self._call_on, args=(caller,)) for caller in self._callers]
        self._threads.append(threading.Thread(target=self._read_on))
        self._book = book
        self.failures: list[BaseException] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        for caller in self._callers:
            caller.line.close()
        self._reader.close()
        if self.failures:
            raise self.failures[0]

    def _call_on(self, caller: _Caller) -> None:
        while not self._is_over.is_set():
            self._try(caller.call)

    def _read_on(self) -> None:
        while not self._is_over.is_set():
            self._try(self._reader.read_some)
            self._is_over.wait(REST_S)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except TimeoutError:
            self._book.violations.append(f"a request was not answered within {TIMEOUT_S} s, in life {self._book.life}")
        except (HTTPException, OSError, ValueError):  # the server was killed: nothing was given
            self._is_over.wait(REST_S)
        except BaseException as error:
            self.failures.append(error)
            self._is_over.set()


class _Caller:
    """One request after the other, of the kinds that clients make."""

    def __init__(self, line: Line, namespace: str, n: int, book: Book, dice: random.Random) -> None:
        self.line = line
        self._namespace = namespace
        self._n = n
        self._book = book
        self._dice = dice
        self._acts: dict[Callable[[], None], int] = {
            self._block: 30,
            self._accept: 24,
            self._accept_later: 4,
            self._repeat: 6 if book.has_keys else 0,
            self._fall_back: 6,
            self._run_sequence: 4,
            self._accept_sequence: 8,
            self._fire: 14,
            self._put: 10,
        }

    def call(self) -> None:
        self._dice.choices([*self._acts], [*self._acts.values()])[0]()

    def _argument(self, most_ms: int = 20, effects: int = 1) -> dict[str, int]:
        return {"ms": self._dice.randrange(most_ms), "n": self._book.number(effects)}

    def _post(self, path: str, body: Any, entity: str) -> None:
        status, answer, header = self.line.request("POST", path, body)
        id = (answer.get("activationId") if isinstance(answer, dict) else None) or header
        self._book.statuses[status] += 1
        self._book.note(self._namespace, path, status, id)
        if id:
            response = answer["response"] if status == 200 else None
            self._book.give(self._namespace, id, entity, response)
        elif status not in REFUSALS:
            self._book.violations.append(f"POST {path} was answered {status} {answer} in life {self._book.life}")

    def _block(self) -> None:
        self._post(f"actions/{EFFECT}?blocking=true", self._argument(), EFFECT)

    def _accept(self) -> None:
        self._post(f"actions/{EFFECT}", self._argument(LONG_MS), EFFECT)

    def _accept_later(self) -> None:
        delay_s = self._dice.choice([0.1, 0.3, 1])
        self._post(f"actions/{EFFECT}?delay={delay_s}", self._argument(LONG_MS), EFFECT)

    def _repeat(self) -> None:
        """With one key until it is answered, and once more: it is one activation, whatever was killed meanwhile."""
        path, place = f"actions/{EFFECT}", (self._namespace, self._n)
        keyed = self._book.keyed.get(place)
        if keyed is None:
            keyed = self._book.keyed[place] = Keyed(os.urandom(8).hex(), self._argument(LONG_MS))
        status, answer, _ = self.line.request("POST", path, keyed.body, keyed.key)
        id = answer.get("activationId") if status == 202 else None
        self._book.statuses[status] += 1
        self._book.note(self._namespace, f"{path} key {keyed.key}", status, id)
        if (id is None and status not in REFUSALS) or (id is not None and keyed.id not in (None, id)):
            self._book.violations.append(f"{keyed} was answered {status} {answer} in life {self._book.life}")
        if id is not None and keyed.id is None:
            keyed.id = id
            self._book.give(self._namespace, id, EFFECT)
        elif id is not None:
            del self._book.keyed[place]

    def _fall_back(self) -> None:
        self._post(f"actions/{EFFECT}?blocking=true&timeout=5", {"ms": LONG_MS, "n": self._book.number(1)}, EFFECT)

    def _run_sequence(self) -> None:
        self._post(f"actions/{SEQUENCE}?blocking=true", self._argument(effects=PARTS), SEQUENCE)

    def _accept_sequence(self) -> None:
        self._post(f"actions/{SEQUENCE}", self._argument(LONG_MS, PARTS), SEQUENCE)

    def _fire(self) -> None:
        self._post(f"triggers/{EVENT}", self._argument(LONG_MS, 1 + PARTS), EVENT)

    def _put(self) -> None:
        path = f"{'actions/code' if self._dice.random() < 0.25 else 'triggers/kept'}{self._n}"
        kept = self._book.kept.setdefault((self._namespace, path), Kept())
        value = kept.sent = (kept.sent or 0) + 1
        body: dict[str, Any] = {"parameters": [{"key": "value", "value": value}]}
        if path.startswith("actions"):
            body["exec"] = {"kind": "python:3.11", "code": f"{value}{LARGE}"}
        status, answer, _ = self.line.request("PUT", f"{path}?overwrite=true", body)
        self._book.statuses[status] += 1
        self._book.note(self._namespace, path, status, str(value))
        if status == 200:
            kept.acknowledged = value
        elif status not in REFUSALS:
            self._book.violations.append(f"PUT {path} was answered {status} {answer} in life {self._book.life}")


class Reader:
    """Reads what earlier lives owe; each namespace by a connection of its own."""

    def __init__(self, url: str, keys: Mapping[str, str], book: Book) -> None:
        self._lines = {namespace: Line(url, key) for namespace, key in keys.items()}
        self._book = book
        self._reads = 0

    def close(self) -> None:
        for line in self._lines.values():
            line.close()

    def read_some(self, most: int = 50) -> None:
        """The oldest of what is owed; what is not there yet goes to the end of the row."""
        book = self._book
        for id, given in list(book.pending.items())[:most]:
            status, record, _ = self._lines[given.namespace].request("GET", f"activations/{id}")
            if status != 200:
                book.pending.move_to_end(id)
                continue
            book.read(id, given, record)
            self._reads += 1
            if self._reads % FOREIGN_EVERY == 0:
                self._look_elsewhere(id)

    def _look_elsewhere(self, id: str) -> None:
        given = self._book.given[id]
        for namespace, line in self._lines.items():
            if namespace != given.namespace and line.request("GET", f"activations/{id}")[0] == 200:
                self._book.misplace(id, given, namespace)

    def read_all(self, within_s: float, is_up: Callable[[], bool]) -> None:
        """Everything that is owed, or as much as comes in time."""
        until_s = time.monotonic() + within_s
        while self._book.pending and is_up() and time.monotonic() < until_s:
            with suppress(HTTPException, OSError, ValueError):
                self.read_some(500)
            time.sleep(REST_S)

    def read_kept(self) -> None:
        """Every document: as it was acknowledged, or as it was sent after that."""
        for (namespace, path), kept in self._book.kept.items():
            if kept.acknowledged is None:
                continue
            status, document, _ = self._lines[namespace].request("GET", path)
            value = document["parameters"][0]["value"] if status == 200 else None
            is_whole = status == 200 and (path.startswith("triggers") or document["exec"]["code"] == f"{value}{LARGE}")
            if value is None or not is_whole or not kept.acknowledged <= value <= (kept.sent or 0):
                self._book.unread(f"{path} of {namespace}", kept, value if is_whole else (status, value))
            else:
                kept.acknowledged = value

    def list_all(self) -> dict[str, list[str]]:
        """The ids of every record of each namespace."""
        return {namespace: self._list(line) for namespace, line in self._lines.items()}

    def _list(self, line: Line) -> list[str]:
        """Page by page; anew where one came meanwhile, of work whose id nobody was given, for it moves all others."""
        while True:
            count = line.request("GET", "activations?count=true")[1]
            ids: list[str] = []
            while page := line.request("GET", f"activations?limit=200&skip={len(ids)}")[1]:
                ids += [entry["activationId"] for entry in page]
            if line.request("GET", "activations?count=true")[1] == count:
                return ids
