"""Clients of the platform: what they ask for, drawn beforehand, and what they were given, which is what counts.

They speak to the API as a server's listener would hand their requests to it. A request that a crash interrupts is
forgotten: its client was given nothing.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec

from visp.api.routes import Site
from visp.controller.identities import digest, seal
from visp.entity.subject import AuthKey
from visp.store.base import KeyRecord

NAMESPACES = ("red", "green", "blue")
ACTIONS = ("a", "b", "c")
CONDUCTOR = "conductor"
KINDS = ("python:3.11", "nodejs:20", "python:3.10")
RETRIED, ATTEMPTS = "c", 3
"""The action whose failures are tried again, and how often it runs at most."""
SERVED = frozenset({200, 202, 204, 404, 409, 502})
"""What a healthy server answers; 500, 503 and 507 are for those that something is wrong with."""


def keys(secret: bytes) -> dict[str, tuple[KeyRecord, bytes]]:
    """By namespace: what the store has, and the header that a client sends."""
    out = {}
    for number, namespace in enumerate(NAMESPACES):
        auth = AuthKey(f"00000000-0000-4000-8000-{number:012d}", namespace.ljust(64, "k"))
        record = KeyRecord(
            uuid=auth.uuid,
            digest=digest(auth, secret),
            sealed=seal(auth.key, secret),
            subject=namespace,
            namespace=namespace,
        )
        out[namespace] = record, b"Basic " + base64.b64encode(str(auth).encode())
    return out


class Op(msgspec.Struct, frozen=True):
    """Something that is asked for at a time."""

    at_s: float
    kind: str
    namespace: str
    name: str = ""
    fields: dict[str, Any] = {}


class Given(msgspec.Struct):
    """An activation id that a client was given. `is_synced`: it survives a power cut.

    `generation` is the oldest code that may have run for it, by action.
    """

    namespace: str
    kind: str
    is_synced: bool
    life: int
    generations: dict[str, int]
    is_lost: bool = False


class Answer(msgspec.Struct, frozen=True):
    status: int
    id: str | None
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def groundwork(chance: random.Random) -> list[Op]:
    """What is made before anything is used, each after what it needs."""
    ops: list[Op] = []
    for namespace in NAMESPACES:
        ops += [Op(0.0, "put", namespace, name) for name in ACTIONS]
        ops += [
            Op(0.0, "sequence", namespace, "s", {"parts": ["a", "b"]}),
            Op(0.0, "put", namespace, CONDUCTOR, {"conducts": ["c", "s"]}),
            Op(0.0, "sequence", namespace, "nested", {"parts": ["s", CONDUCTOR]}),
            Op(0.0, "trigger", namespace, "t"),
            Op(0.0, "rule", namespace, "r1", {"action": "a"}),
            Op(0.0, "rule", namespace, "r2", {"action": chance.choice(("b", "s"))}),
        ]
    return ops


def plan(chance: random.Random, seconds: float, count: int) -> list[Op]:
    """What clients do once there is something to do it with."""
    ops: list[Op] = []
    draw = chance.choices(
        ("invoke", "keyed", "later", "fire", "sequenced", "put", "delete", "switch", "get", "list", "jump"),
        (40, 6, 6, 14, 8, 6, 2, 3, 10, 2, 2),
        k=count,
    )
    for kind in draw:
        at_s = chance.uniform(0.1, seconds) if chance.random() < 0.7 else chance.choice((0.5, 2.0, seconds / 2))
        ops.append(_op(chance, kind, at_s))
    return sorted(ops, key=lambda op: op.at_s)


def _op(chance: random.Random, kind: str, at_s: float) -> Op:
    namespace = chance.choice(NAMESPACES)
    fields: dict[str, Any] = {}
    name = chance.choice(ACTIONS)
    if kind == "sequenced":
        kind, name = "invoke", chance.choice(("s", "nested"))
    if kind == "invoke":
        fields["seconds"] = chance.choice((0.005, 0.05, 0.5, 2.0))
        fields["wait_ms"] = chance.choice((None, None, 30, 300, 3000, 60_000))
    elif kind == "keyed":
        name, fields["wait_ms"] = chance.choice(ACTIONS[:2]), chance.choice((None, 30, 3000))
        fields |= {"seconds": 0.05, "key": f"{chance.getrandbits(64):x}"}
    elif kind == "later":
        fields |= {"delay": f"{chance.choice((0.01, 0.5, 3.0))}s", "is_fire": chance.random() < 0.4}
    elif kind == "switch":
        name, fields["status"] = chance.choice(("r1", "r2")), chance.choice(("active", "inactive"))
    elif kind == "jump":
        fields["seconds"] = chance.choice((-3600, 3600, -1, 1800))
    return Op(at_s, kind, namespace, name, fields)


class Clients:
    """Carries out a plan, life after life. `given` is by id; `statuses` counts answers."""

    def __init__(
        self,
        ground: list[Op],
        ops: list[Op],
        chance: random.Random,
        headers: dict[str, bytes],
        note: Callable[[str], None],
        broken: Callable[[str], None],
        jump: Callable[[float], None],
    ) -> None:
        self._ground = ground
        self._ops = ops
        self._chance = chance
        self._headers = headers
        self._note = note
        self._broken = broken
        self._jump = jump
        self._done = 0
        self._generation = 0
        self._written: dict[str, int] = {}
        """The generation of each action's code whose PUT was acknowledged last."""
        self._writing: set[str] = set()
        """Actions of which a PUT is under way."""
        self._keyed: list[Op] = []
        """Requests with a key that have not been answered: they come again after a crash."""
        self.has_deleted = False
        self.given: dict[str, Given] = {}
        self.statuses: dict[int, int] = {}
        self.life = 0
        self.is_power_safe = True
        self.site: Site

    async def run(self, site: Site) -> None:
        """Goes on with the plan where the process before had ended; returns when everything was answered."""
        self.site = site
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            for namespace in NAMESPACES:
                tasks.create_task(self._make_ground(namespace))
        async with asyncio.TaskGroup() as tasks:
            for op in list(self._keyed):
                tasks.create_task(self.do_keyed(op))
            while self._done < len(self._ops):
                op = self._ops[self._done]
                if op.at_s > loop.time():
                    await asyncio.sleep(op.at_s - loop.time())
                self._done += 1
                tasks.create_task(getattr(self, f"do_{op.kind}")(op))

    async def _make_ground(self, namespace: str) -> None:
        """Makes what is not there yet; what is refused is asked for again, a few times."""
        for op in [op for op in self._ground if op.namespace == namespace]:
            for _ in range(5):
                if await getattr(self, f"do_{op.kind}")(op):
                    self._ground.remove(op)
                    break
                await asyncio.sleep(0.01)

    def resumed(self) -> None:
        """The ledger has been read back, and with that synced."""
        for given in self.given.values():
            given.is_synced = True

    def interrupted(self, *, is_power_cut: bool) -> None:
        """The process has ended: what was not synced by then may be lost with the power."""
        if is_power_cut:
            for given in self.given.values():
                given.is_lost |= not given.is_synced
        self._writing.clear()
        self.life += 1

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────

    async def call(
        self,
        method: str,
        namespace: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: object = None,
        key: str | None = None,
    ) -> Answer:
        """One request, as the listener hands it on; every answer is noted."""
        content = b"" if body is None else msgspec.json.encode(body)
        headers = [(b"host", b"127.0.0.1"), (b"authorization", self._headers[namespace])]
        if content:
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        if key is not None:
            headers.append((b"idempotency-key", key.encode()))
        url = f"/api/v1/namespaces/_/{path}"
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": url,
            "raw_path": url.encode(),
            "root_path": "",
            "query_string": urlencode({k: v for k, v in (query or {}).items() if v is not None}).encode(),
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 3233),
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.site(scope, receive, send)  # type: ignore[arg-type]
        status: int = sent[0]["status"]
        named = dict(sent[0]["headers"])
        id = named.get(b"x-openwhisk-activation-id")
        answer = Answer(status, None if id is None else id.decode(), b"".join(part.get("body", b"") for part in sent))
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self._note(f"answer {method} {namespace} {path} {status} {answer.id}")
        return answer

    async def do_invoke(self, op: Op) -> None:
        wait_ms, key = op.fields["wait_ms"], op.fields.get("key")
        query = {"blocking": "false"} if wait_ms is None else {"blocking": "true", "timeout": wait_ms}
        at_least = op.fields.setdefault("at_least", self._known(op.namespace))  # of what comes again: then
        body = {"seconds": op.fields["seconds"], "from": op.namespace, "key": key}
        answer = await self.call("POST", op.namespace, f"actions/{op.name}", query, body, key)
        if answer.id is None:
            return
        if answer.status == 202:
            self._give(answer.id, op.namespace, "accepted", self.is_power_safe, at_least)
            return
        self._give(answer.id, op.namespace, "finished", False, at_least)
        record = answer.json()
        if record["activationId"] != answer.id or record["namespace"] != op.namespace:
            self._broken(f"{op.namespace} is answered with a record of another: {record}")

    async def do_keyed(self, op: Op) -> None:
        """Once, however often it is asked for: the container says so."""
        if op not in self._keyed:
            self._keyed.append(op)
        await self.do_invoke(op)
        self._keyed.remove(op)

    async def do_later(self, op: Op) -> None:
        """What was accepted for later is there as any other accepted work."""
        at_least = self._known(op.namespace)
        path = "triggers/t" if op.fields["is_fire"] else f"actions/{op.name}"
        answer = await self.call("POST", op.namespace, path, {"delay": op.fields["delay"]}, {"from": op.namespace})
        if answer.status == 202 and answer.id is not None:
            self._give(answer.id, op.namespace, "later", self.is_power_safe, at_least)

    async def do_fire(self, op: Op) -> None:
        at_least = self._known(op.namespace)
        answer = await self.call("POST", op.namespace, "triggers/t", None, {"from": op.namespace})
        if answer.status == 202 and answer.id is not None:
            self._give(answer.id, op.namespace, "fired", self.is_power_safe, at_least)

    def _give(self, id: str, namespace: str, kind: str, is_synced: bool, at_least: dict[str, int]) -> None:
        self.given[id] = Given(namespace, kind, is_synced, self.life, at_least)

    def _known(self, namespace: str) -> dict[str, int]:
        """The code that is certainly there, by action."""
        return {f"{namespace}/{name}": self._written.get(f"{namespace}/{name}", 0) for name in (*ACTIONS, CONDUCTOR)}

    async def do_put(self, op: Op) -> bool:
        id = f"{op.namespace}/{op.name}"
        if id in self._writing:
            return False  # of two at once nobody knows which came last
        self._generation += 1
        generation, chance = self._generation, self._chance
        self._writing.add(id)
        conducts = op.fields.get("conducts", [])
        code = msgspec.json.encode({"generation": generation, "conducts": conducts}).decode()
        body: dict[str, Any] = {
            "exec": {"kind": chance.choice(KINDS), "code": code},
            "limits": {"timeout": chance.choice((100, 1000, 5000)), "memory": chance.choice((128, 256, 256, 512))},
        }
        if conducts:
            body["annotations"] = [{"key": "conductor", "value": True}]
        if op.name == RETRIED:
            policy = {"attempts": ATTEMPTS, "backoff_ms": 100}
            body["annotations"] = [{"key": "retry", "value": policy}, {"key": "dead-letter", "value": True}]
        answer = await self.call("PUT", op.namespace, f"actions/{op.name}", {"overwrite": "true"}, body)
        if answer.status == 200 and self._written.get(id, 0) < generation:
            self._written[id] = generation
            await self._check_written(op, id, generation)
        self._writing.discard(id)
        return answer.status == 200

    async def _check_written(self, op: Op, id: str, generation: int) -> None:
        """What was acknowledged is read: it, or what came after it."""
        answer = await self.call("GET", op.namespace, f"actions/{op.name}")
        if answer.status == 200:
            found = msgspec.json.decode(answer.json()["exec"]["code"])["generation"]
            if found < generation:
                self._broken(f"{id} was written as {generation} and reads as {found}")

    async def do_delete(self, op: Op) -> None:
        self.has_deleted = True
        await self.call("DELETE", op.namespace, f"actions/{op.name}")

    async def do_sequence(self, op: Op) -> bool:
        parts = [f"/{op.namespace}/{part}" for part in op.fields["parts"]]
        body = {"exec": {"kind": "sequence", "components": parts}}
        answer = await self.call("PUT", op.namespace, f"actions/{op.name}", {"overwrite": "true"}, body)
        return answer.status == 200

    async def do_trigger(self, op: Op) -> bool:
        answer = await self.call("PUT", op.namespace, f"triggers/{op.name}", {"overwrite": "true"}, {})
        return answer.status == 200

    async def do_rule(self, op: Op) -> bool:
        body = {"trigger": f"/{op.namespace}/t", "action": f"/{op.namespace}/{op.fields['action']}"}
        answer = await self.call("PUT", op.namespace, f"rules/{op.name}", {"overwrite": "true"}, body)
        return answer.status == 200

    async def do_switch(self, op: Op) -> None:
        await self.call("POST", op.namespace, f"rules/{op.name}", None, {"status": op.fields["status"]})

    async def do_get(self, op: Op) -> None:
        """A record that somebody was given: its own namespace may see it, no other does."""
        if not self.given:
            return
        id = self._chance.choice(list(self.given))
        answer = await self.call("GET", op.namespace, f"activations/{id}")
        if answer.status == 200 and self.given[id].namespace != op.namespace:
            self._broken(f"{op.namespace} reads {id} of {self.given[id].namespace}")

    async def do_list(self, op: Op) -> None:
        answer = await self.call("GET", op.namespace, "activations", {"limit": 50})
        if answer.status == 200:
            for record in answer.json():
                if record["namespace"] != op.namespace:
                    self._broken(f"{op.namespace} is shown {record['activationId']} of {record['namespace']}")

    async def do_jump(self, op: Op) -> None:
        self._note(f"jump {op.fields['seconds']}")
        self._jump(op.fields["seconds"])
