"""What the command `wsk` sends, and what its Go client makes of the answers.

`wsk` itself is published as a program, not as a package, so its requests are replayed: same order, same query
parameters, same bodies. Where an answer does not decode into its types `wsk` prints less and says nothing; here it
fails.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.system.conftest import Answer, Api

USER_AGENT = "OpenWhisk-CLI/1.0 (2021-04-01T23:49:54.523+0000) linux amd64"
PAGE = "limit=30&skip=0"
ALL = "limit=0&skip=0"

Text, Whole, Flag = str, int, bool


class Pairs:
    """An array of {key, value}."""


class Texts:
    """An array of strings."""


COMMON = {"namespace": Text, "name": Text, "version": Text, "publish": Flag, "annotations": Pairs, "updated": Whole}
SHAPES: dict[str, dict[str, type]] = {
    "actions": COMMON | {"parameters": Pairs, "exec": dict, "limits": dict},
    "packages": COMMON | {"parameters": Pairs, "binding": dict, "actions": list, "feeds": list},
    "triggers": COMMON | {"parameters": Pairs, "rules": dict},
    "rules": COMMON | {"status": Text, "trigger": dict, "action": dict},
    "activations": COMMON
    | {"activationId": Text, "subject": Text, "start": Whole, "end": Whole, "duration": Whole, "statusCode": Whole}
    | {"cause": Text, "response": dict, "logs": Texts},
}
"""The Go types of what entities are decoded into, by collection."""


@dataclass(frozen=True)
class Said:
    """The exit status of the command, and the answer that it printed from."""

    exit: int
    answer: Answer

    @property
    def json(self) -> Any:
        return self.answer.json

    def ok(self) -> Any:
        """The JSON of an answer that was a success."""
        assert self.exit == 0, self.answer
        return self.answer.json if self.answer.body else None


class Wsk:
    """One configuration of `wsk`: a server and a key."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def ask(
        self, method: str, path: str, body: Any = None, *, is_blocking: bool = False, takes_failure: bool = False
    ) -> Said:
        """`takes_failure`: the request is one for which an activation without success is no failure."""
        headers = {"User-Agent": USER_AGENT}
        answer = self.api.request(method, path, body, headers)
        return Said(_exit(answer, is_blocking=is_blocking, takes_failure=takes_failure), answer)

    def put(self, path: str, body: Any, *, overwrite: bool = False) -> Said:
        said = self.ask("PUT", f"{path}?overwrite={str(overwrite).lower()}", body)
        if said.exit == 0:
            check(path.split("/")[0], said.json)
        return said

    def get(self, path: str) -> Said:
        """One entity or record."""
        collection = path.split("/")[0]
        said = self.ask("GET", path, takes_failure=collection == "activations")
        if said.exit == 0:
            check(collection, said.json)
        return said

    def delete(self, path: str) -> Said:
        return self.ask("DELETE", path)

    def list(self, path: str, query: str = PAGE) -> list[Any]:
        """What `path` lists, each entry of the right type."""
        entries = self.ask("GET", f"{path}?{query}").ok()
        assert isinstance(entries, list)
        for entry in entries:
            if entry.get("binding") is False:
                del entry["binding"]  # the client passes it over
            check(path.split("/")[0], entry)
        return entries

    def update_action(self, name: str, body: Any) -> Said:
        """`wsk action update`: it looks first, and sends only what changes."""
        before = self.ask("GET", f"actions/{name}?code=false")
        assert before.exit in (0, _exit_of(404))
        return self.put(f"actions/{name}", {"namespace": "_", "name": name, **body}, overwrite=True)

    def invoke(self, name: str, payload: Any = None, *, blocking: bool = False, result: bool = False) -> Said:
        """`-r` implies `-b`; both are always said."""
        blocking = blocking or result
        query = f"blocking={str(blocking).lower()}&result={str(result).lower()}"
        said = self.ask("POST", f"actions/{name}?{query}", payload or {}, is_blocking=blocking, takes_failure=result)
        if said.exit == 0 and blocking and not result:
            check("activations", said.json)
        return said


def check(collection: str, value: Any) -> None:
    """Fails where Go would leave something empty."""
    shape = SHAPES[collection]
    for name, kind in shape.items():
        if name in value:
            assert _fits(value[name], kind), f"{collection}: {name} is {value[name]!r}"


def pairs(**entries: Any) -> list[dict[str, Any]]:
    """Parameters or annotations, as they are sent."""
    return [{"key": key.replace("_", "-"), "value": value} for key, value in entries.items()]


def _fits(value: Any, kind: type) -> bool:
    if kind is Pairs:
        return isinstance(value, list) and all(isinstance(pair["key"], str) and "value" in pair for pair in value)
    if kind is Texts:
        return isinstance(value, list) and all(isinstance(line, str) for line in value)
    return type(value) is kind  # true is no number


def _exit(answer: Answer, *, is_blocking: bool, takes_failure: bool) -> int:
    told = _decoded(answer)
    if 200 <= answer.status < 300:
        if answer.status == 202 and is_blocking:
            assert isinstance(told["activationId"], str)
            return 202
        response = told.get("response") if isinstance(told, dict) else None
        if isinstance(response, dict) and response.get("success") is False and not takes_failure:
            return 1
        return 0
    assert isinstance(told, dict), f"the connection failed, or timed out: {answer}"
    if "code" not in told:
        assert answer.status == 502, f"the connection failed, or timed out: {answer}"
        assert "error" in told or {"status", "result"} <= set(told["response"]), answer
    return _exit_of(answer.status)


def _exit_of(status: int) -> int:
    return (status - 256) % 256


def _decoded(answer: Answer) -> Any:
    try:
        return json.loads(answer.body) if answer.body else None
    except ValueError:
        return None
