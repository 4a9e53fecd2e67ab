"""Entities over HTTP: whatever is asked for in whatever order, answers are those of plain dictionaries.

`Model` is the REST interface's promise, written from its description. Each step asks the application twice, over the
store in memory and over SQLite; status, sentence and body are the model's. `VISP_STEPS=20000` goes on for about that
many steps, each time others.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import ANY, patch
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from visp.clock import ManualClock
from visp.controller.identities import record_of
from visp.entity.subject import AuthKey
from visp.premises import read_secret
from visp.roles.assembly import assembled
from visp.settings import Settings
from visp.store.cache import CACHED_ENTITIES, EntityCache
from visp.store.memory import MemoryEntities
from visp.store.sqlite import SqliteEntities

STEPS = int(os.environ.get("VISP_STEPS", "0"))
STEPS_EACH = 60
EXAMPLES = -(-STEPS // STEPS_EACH) or 25

Json = dict[str, Any]

ABSENT = "The requested resource does not exist."
OTHER_KIND = "Resource by this name exists but is not in this collection."
EXISTS = "resource already exists"
ON_BINDING = "Operation not permitted on package binding."
NO_COMPONENT = "Sequence component does not exist."
CYCLE = "Sequence may not refer to itself."


# ── what is promised ────────────────────────────────────────────────────────────────────────────────────────────────


class No(Exception):
    """A refusal: its status, and its sentence or those of which any will do."""

    def __init__(self, status: int, *sentences: str) -> None:
        self.status = status
        self.sentences = sentences


class Otherwise(Exception):
    """What is answered by another status than 200, and is no refusal."""

    def __init__(self, status: int, body: Json | None) -> None:
        self.status = status
        self.body = body


def denied(*ids: str) -> No:
    return No(403, f"The supplied authentication is not authorized to access '{', '.join(sorted(ids))}'.")


def keyed(entries: list[Json]) -> dict[str, Json]:
    return {entry["key"]: entry for entry in entries}


def plain(key: str, value: Any) -> dict[str, Json]:
    return {key: {"key": key, "value": value}}


def given(body: Json, field: str, otherwise: Any) -> Any:
    """`null` counts as absence."""
    return otherwise if body.get(field) is None else body[field]


def after(version: str) -> str:
    major, minor, patch = version.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"


class Model:
    """`entities` by id, each as a dictionary with its `collection`; `now_ms` is what a write is dated by."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.entities: dict[str, Json] = {}
        self._now_ms = now_ms

    # ── rights and names ────────────────────────────────────────────────────────────────────────────────────────

    def find(self, collection: str, id: str) -> Json | None:
        found = self.entities.get(id)
        if found is not None and found["collection"] != collection:
            raise No(409, OTHER_KIND)
        return found

    def get(self, collection: str, id: str) -> Json:
        found = self.find(collection, id)
        if found is None:
            raise No(404, ABSENT)
        return found

    def of_kind(self, collection: str, id: str) -> Json | None:
        found = self.entities.get(id)
        return found if found is not None and found["collection"] == collection else None

    def may_read(self, caller: str, namespace: str, found: Json | None) -> bool:
        """A package: by its owner, and by everyone when it is published and no binding."""
        is_shared = (
            found is not None and found["collection"] == "packages" and found["publish"] and not found["binding"]
        )
        return caller == namespace or is_shared

    def package(self, caller: str, id: str, resource: str) -> tuple[Json, Json | None]:
        """Provider and binding (None where the package is none) of what may be read."""
        namespace = id.partition("/")[0]
        if not self.may_read(caller, namespace, self.entities.get(id)):
            raise denied(resource)
        package = self.get("packages", id)
        if not package["binding"]:
            return package, None
        bound = f"{package['binding']['namespace']}/{package['binding']['name']}"
        if not self.may_read(caller, package["binding"]["namespace"], self.entities.get(bound)):
            raise denied(resource)
        provider = self.of_kind("packages", bound)
        if provider is None:
            raise No(404, ABSENT)
        if provider["binding"]:
            raise No(422, f"Package binding '{package['name']}' contains a circular reference.")
        return provider, package

    def resolve(self, caller: str, id: str) -> tuple[Json, dict[str, Json], Json | None]:
        """The action behind a name, the parameters that hold for it, and the binding it was found through."""
        namespace, *rest = id.split("/")
        if len(rest) == 1:
            if caller != namespace:
                raise denied(id)
            action = self.get("actions", id)
            return action, action["parameters"], None
        provider, binding = self.package(caller, f"{namespace}/{rest[0]}", id)
        action = self.get("actions", f"{provider['id']}/{rest[1]}")
        outer = provider["parameters"] | ({} if binding is None else binding["parameters"])
        return action, outer | action["parameters"], binding

    def check_references(self, caller: str, *ids: str) -> None:
        refused = set()
        for id in ids:
            namespace, *rest = id.split("/")
            if len(rest) == 1:
                refused |= {id} if namespace != caller else set()
                continue
            try:
                self.package(caller, f"{namespace}/{rest[0]}", id)
            except No as no:
                if no.status != 403:
                    raise
                refused.add(id)
        if refused:
            raise denied(*refused)

    def for_put(self, collection: str, id: str, *, overwrite: bool) -> Json | None:
        old = self.find(collection, id)
        if old is not None and not overwrite:
            raise No(409, EXISTS)
        return old

    def write(self, collection: str, id: str, old: Json | None, body: Json, **fields: Any) -> Json:
        version = given(body, "version", None)
        new = {
            "id": id,
            "collection": collection,
            "namespace": id.rpartition("/")[0],
            "name": id.rpartition("/")[2],
            "version": version or ("0.0.1" if old is None else after(old["version"])),
            "publish": given(body, "publish", old is not None and old["publish"]),
            "updated": self._now_ms(),
            **fields,
        }
        assert old is None or new["updated"] >= old["updated"]
        self.entities[id] = new
        return new

    def parameters(self, body: Json, old: Json | None, field: str = "parameters") -> dict[str, Json]:
        """Replaced as a whole where they are given."""
        if body.get(field) is not None:
            return keyed(body[field])
        return {} if old is None else old[field]

    # ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def check_open(self, caller: str, id: str) -> None:
        """Whether the owner alone asks, and the package, if there is one, takes writes."""
        namespace, *rest = id.split("/")
        if caller != namespace:
            raise denied(id)
        if len(rest) == 2 and self.get("packages", f"{namespace}/{rest[0]}")["binding"]:
            raise No(400, ON_BINDING)

    def put_action(self, caller: str, id: str, body: Json, *, overwrite: bool) -> Json:
        self.check_open(caller, id)
        exec, limits = body.get("exec"), given(body, "limits", {})
        self._check_limits(limits)
        parts = None if exec is None else exec.get("components")
        if parts is not None:
            parts = [part.removeprefix("/").replace("_/", f"{caller}/", 1) for part in parts]
            self.check_references(caller, *parts)
        old = self.for_put("actions", id, overwrite=overwrite)
        if old is None and exec is None:
            raise No(400, "exec undefined")
        if parts is not None:
            self._check_sequence(caller, id, parts)
        new_exec = old["exec"] if exec is None else self._exec(exec, parts)
        was_sequence = old is not None and old["exec"]["kind"] == "sequence"
        if new_exec["kind"] == "sequence":
            parameters = plain("_actions", new_exec["components"])
        elif was_sequence and body.get("parameters") is None:
            parameters = {}
        else:
            parameters = self.parameters(body, old)
        removed = [] if parts is not None else given(body, "delAnnotations", [])
        kept = plain("provide-api-key", False) if old is None else old["annotations"]
        kept = kept if old is None else {key: value for key, value in kept.items() if key not in removed}
        annotations = kept | keyed(given(body, "annotations", [])) | plain("exec", new_exec["kind"])
        defaults = {"timeout": 60000, "memory": 256, "logs": 10, "concurrency": 1} if old is None else old["limits"]
        new = self.write(
            "actions",
            id,
            old,
            body,
            exec=new_exec,
            parameters=parameters,
            annotations=annotations,
            limits=defaults | {name: value for name, value in limits.items() if value is not None},
        )
        return self.show_action(new)

    def _check_limits(self, limits: Json) -> None:
        memory = given(limits, "memory", 256)
        if memory > 512:
            raise No(400, f"requirement failed: memory size {memory} MB exceeds allowed threshold of 512 MB")
        if memory < 128:
            raise No(400, f"requirement failed: memory size {memory} MB below allowed threshold of 128 MB")

    def _exec(self, exec: Json, parts: list[str] | None) -> Json:
        if parts is not None:
            return {"kind": "sequence", "components": [f"/{part}" for part in parts]}
        binary = bool(exec["code"]) and exec["code"] == "YWJj"
        main = {"main": exec["main"]} if exec.get("main") else {}
        return {"kind": "nodejs:20", "code": exec["code"], "binary": binary, **main}

    def _check_sequence(self, caller: str, id: str, parts: list[str]) -> None:
        """Where several things are wrong with a sequence any of them may be told."""
        if not parts:
            raise No(400, "No component specified for the sequence.")
        wrong: list[No] = []
        seen, waiting = set(), list(parts)
        while waiting:
            part = waiting.pop()
            if part in seen:
                continue
            seen.add(part)
            if part == id:
                wrong.append(No(400, CYCLE))
                continue
            try:
                action, _, _ = self.resolve(caller, part)
            except No as no:
                wrong.append(no if no.status in (403, 422) else No(400, NO_COMPONENT))
                continue
            if action["id"] == id:
                wrong.append(No(400, CYCLE))
            elif action["exec"]["kind"] == "sequence":
                waiting += [nested.removeprefix("/") for nested in action["exec"]["components"]]
        if wrong:
            sentences = tuple(sentence for no in wrong if no.status == wrong[0].status for sentence in no.sentences)
            raise No(wrong[0].status, *sentences)
        if self._atomic(caller, parts) > 50:
            raise No(400, "Too many actions in the sequence.")

    def _atomic(self, caller: str, parts: list[str], depth: int = 0) -> int:
        """How many actions a sequence comes to; one without an end counts as more than any."""
        total = 0
        for part in parts:
            action, _, _ = self.resolve(caller, part)
            nested = [inner.removeprefix("/") for inner in action["exec"].get("components", [])]
            total += self._atomic(caller, nested, depth + 1) if nested and depth < 20 else 1 + 50 * (depth >= 20)
            if total > 50:
                break
        return total

    def get_action(self, caller: str, id: str, *, has_code: bool) -> Json:
        action, parameters, binding = self.resolve(caller, id)
        shown = self.show_action(action | {"parameters": parameters}, has_code=has_code)
        if binding is not None and not has_code:
            shown["binding"] = binding["id"]
        return shown

    def delete_action(self, caller: str, id: str) -> Json:
        self.check_open(caller, id)
        action = self.get("actions", id)
        del self.entities[id]
        return self.show_action(action)

    def show_action(self, action: Json, *, has_code: bool = True) -> Json:
        exec = {key: value for key, value in action["exec"].items() if has_code or key != "code"}
        return self.summary(action) | {"exec": exec, "limits": action["limits"], "parameters": action["parameters"]}

    def summary(self, entity: Json) -> Json:
        fields = ("namespace", "name", "version", "publish", "annotations", "updated")
        return {field: entity[field] for field in fields}

    # ── packages ────────────────────────────────────────────────────────────────────────────────────────────────

    def put_package(self, caller: str, id: str, body: Json, *, overwrite: bool) -> Json:
        namespace, name = id.split("/")
        if caller != namespace:
            raise denied(id)
        if name == "default":
            raise No(400, "Package name 'default' is reserved.")
        binding = body.get("binding") or {}
        if binding:
            binding = {**binding, "namespace": binding["namespace"].replace("_", namespace)}
        bound = f"{binding['namespace']}/{binding['name']}" if binding else ""
        target = self.entities.get(bound)
        if binding and not self.may_read(caller, binding["namespace"], target):
            raise denied(bound)
        old = self.for_put("packages", id, overwrite=overwrite)
        if old is not None and binding and not old["binding"]:
            raise No(409, "Resource is a package and cannot be converted into a binding.")
        if binding:
            if target is None:
                raise No(400, "Binding references a package that does not exist.")
            if target["collection"] != "packages":
                raise No(409, "Cannot bind to a resource that is not a package.")
            if target["binding"]:
                raise No(400, "Cannot bind to another package binding.")
        binding = binding or ({} if old is None else old["binding"])
        annotations = self.parameters(body, old, "annotations")
        annotations = {key: value for key, value in annotations.items() if key != "binding"}
        annotations |= plain("binding", binding) if binding else {}
        parameters = self.parameters(body, old)
        new = self.write("packages", id, old, body, binding=binding, parameters=parameters, annotations=annotations)
        return self.show_package(new)

    def get_package(self, caller: str, id: str) -> Json:
        try:
            provider, binding = self.package(caller, id, id)
        except No as no:
            raise No(404, f"The requested resource '{id}' does not exist.") if no.status == 404 else no from None
        shown = self.show_package(binding or provider)
        shown["parameters"] = provider["parameters"] | ({} if binding is None else binding["parameters"])
        content: dict[str, list[Json]] = {"actions": [], "feeds": []}
        for action in self.actions_in(provider["id"]):
            entry = {field: action[field] for field in ("name", "version", "annotations")}
            content["feeds" if "feed" in action["annotations"] else "actions"].append(entry)
        return shown | content

    def delete_package(self, caller: str, id: str, *, force: bool) -> Json:
        if caller != id.partition("/")[0]:
            raise denied(id)
        package = self.get("packages", id)
        inside = self.actions_in(id)
        if inside and not force:
            noun = "entity" if len(inside) == 1 else "entities"
            told = f"Package not empty (contains {len(inside)} {noun}). Set force param or delete package contents."
            raise No(409, told)
        for action in inside:
            del self.entities[action["id"]]
        del self.entities[id]
        return self.show_package(package)

    def actions_in(self, id: str) -> list[Json]:
        return [
            entity
            for entity in self.entities.values()
            if entity["collection"] == "actions" and entity["namespace"] == id
        ]

    def show_package(self, package: Json) -> Json:
        return self.summary(package) | {"binding": package["binding"], "parameters": package["parameters"]}

    # ── triggers ────────────────────────────────────────────────────────────────────────────────────────────────

    def put_trigger(self, caller: str, id: str, body: Json, *, overwrite: bool) -> Json:
        if caller != id.partition("/")[0]:
            raise denied(id)
        old = self.for_put("triggers", id, overwrite=overwrite)
        annotations = self.parameters(body, old, "annotations")
        if old is None and "feed" in annotations and not isinstance(annotations["feed"]["value"], str):
            raise No(400, "Feed name is not valid")
        new = self.write(
            "triggers",
            id,
            old,
            body,
            parameters=self.parameters(body, old),
            annotations=annotations,
            rules=None if old is None else old["rules"],
        )
        return self.show_trigger(new)

    def get_trigger(self, caller: str, id: str) -> Json:
        if caller != id.partition("/")[0]:
            raise denied(id)
        return self.show_trigger(self.get("triggers", id))

    def fire(self, caller: str, id: str) -> None:
        """Whether there is a rule to run, not what comes of it."""
        links = self.get_trigger(caller, id).get("rules", {}).values()
        is_active = any(link["status"] == "active" for link in links)
        raise Otherwise(202, {"activationId": ANY}) if is_active else Otherwise(204, None)

    def delete_trigger(self, caller: str, id: str) -> Json:
        shown = self.get_trigger(caller, id)
        del self.entities[id]
        return shown

    def show_trigger(self, trigger: Json) -> Json:
        shown = self.summary(trigger) | {"parameters": trigger["parameters"], "limits": {}}
        if trigger["rules"] is not None:
            links = trigger["rules"].items()
            shown["rules"] = {id: {"action": split(action), "status": status} for id, (action, status) in links}
        return shown

    # ── rules ───────────────────────────────────────────────────────────────────────────────────────────────────

    def status_of(self, rule: Json) -> str:
        trigger = self.of_kind("triggers", rule["trigger"])
        link = ((trigger or {}).get("rules") or {}).get(rule["id"])
        return "inactive" if link is None else link[1]

    def put_rule(self, caller: str, id: str, body: Json, *, overwrite: bool) -> Json:
        if caller != id.partition("/")[0]:
            raise denied(id)
        named = {field: reference(body.get(field), caller) for field in ("trigger", "action")}
        self.check_references(caller, *(name for name in named.values() if name is not None))
        old = self.for_put("rules", id, overwrite=overwrite)
        trigger = named["trigger"] or (old or {}).get("trigger")
        action = named["action"] or (old or {}).get("action")
        if trigger is None or action is None:
            raise No(400, "rule requires a valid trigger and a valid action")
        if self.of_kind("triggers", trigger) is None:
            raise No(400, f"trigger /{trigger} does not exist")
        try:
            self.resolve(caller, action)
        except No as no:
            raise No(400, f"action /{action} does not exist") if no.status in (404, 409) else no from None
        status = "active" if old is None else self.status_of(old)
        if old is not None:
            self.unlink(old)
        new = self.write(
            "rules",
            id,
            old,
            body,
            trigger=trigger,
            action=action,
            annotations=self.parameters(body, old, "annotations"),
        )
        self.link(new, status)
        return self.show_rule(new) | {"status": status}

    def link(self, rule: Json, status: str) -> None:
        trigger = self.entities[rule["trigger"]]
        trigger["rules"] = (trigger["rules"] or {}) | {rule["id"]: (rule["action"], status)}

    def unlink(self, rule: Json) -> None:
        trigger = self.of_kind("triggers", rule["trigger"])
        if trigger is not None and trigger["rules"] is not None:
            trigger["rules"] = {id: link for id, link in trigger["rules"].items() if id != rule["id"]}

    def get_rule(self, caller: str, id: str) -> Json:
        if caller != id.partition("/")[0]:
            raise denied(id)
        rule = self.get("rules", id)
        return self.show_rule(rule) | {"status": self.status_of(rule)}

    def set_status(self, caller: str, id: str, status: str) -> str:
        rule = self.get_rule(caller, id)
        if rule["status"] != status:
            found = self.entities[id]
            if self.of_kind("triggers", found["trigger"]) is None:
                raise No(404, "Only rules with existing triggers can be activated")
            self.link(found, status)
        return "OK"

    def delete_rule(self, caller: str, id: str) -> Json:
        if caller != id.partition("/")[0]:
            raise denied(id)
        rule = self.get("rules", id)
        self.unlink(rule)
        del self.entities[id]
        return self.show_rule(rule) | {"status": "inactive"}

    def show_rule(self, rule: Json) -> Json:
        return self.summary(rule) | {"trigger": split(rule["trigger"]), "action": split(rule["action"])}

    # ── lists ───────────────────────────────────────────────────────────────────────────────────────────────────

    def list(self, caller: str, namespace: str, collection: str, query: Json) -> Any:
        if caller != namespace and collection != "packages":
            raise denied(namespace)
        found = [
            entity
            for entity in self.entities.values()
            if entity["collection"] == collection
            and entity["id"].partition("/")[0] == namespace
            and (caller == namespace or self.may_read(caller, namespace, entity))
        ]
        return self._page(collection, found, query)

    def list_in_package(self, caller: str, id: str, query: Json) -> Any:
        provider, _ = self.package(caller, id, id)
        return self._page("actions", self.actions_in(provider["id"]), query)

    def _page(self, collection: str, found: list[Json], query: Json) -> Any:
        skip, limit = query.get("skip", 0), query.get("limit", 30) or 200
        if query.get("count"):
            return {collection: max(0, len(found) - skip)}
        found.sort(key=lambda entity: (entity["updated"], entity["id"]), reverse=True)
        return [self.show_listed(entity) for entity in found[skip : skip + limit]]

    def show_listed(self, entity: Json) -> Json:
        if entity["collection"] == "rules":
            return self.show_rule(entity)
        shown = self.summary(entity)
        if entity["collection"] == "packages":
            shown["binding"] = entity["binding"] or False
        elif entity["collection"] == "actions":
            shown |= {"limits": entity["limits"], "exec": {"binary": entity["exec"].get("binary", False)}}
        return shown


def split(id: str) -> Json:
    path, _, name = id.rpartition("/")
    return {"path": path, "name": name}


def reference(name: str | Json | None, caller: str) -> str | None:
    if isinstance(name, dict):
        name = f"{name['path']}/{name['name']}"
    if name is None:
        return None
    namespace, _, rest = name.removeprefix("/").partition("/")
    return f"{caller if namespace == '_' else namespace}/{rest}"


# ── what answers ────────────────────────────────────────────────────────────────────────────────────────────────────


class Real:
    """A server's application over one store, with as few entities in memory as it is told, until it is stopped."""

    def __init__(self, folder: Path, store: MemoryEntities | SqliteEntities, clock: ManualClock, cached: int) -> None:
        self._store = store
        self._settings = Settings(driver="visp.container.fake:FakeDriver")
        self._folder = folder
        self._stopping = asyncio.Event()
        self.is_up = asyncio.Event()
        self.site: Any = None

        async def opened(_: object) -> Any:
            return store

        self._patches = {
            "visp.roles.assembly.SystemClock": lambda: clock,
            "visp.roles.assembly.EntityCache": partial(EntityCache, limit=cached),
            "visp.shard.SqliteEntities.open": opened,
        }

    async def serve(self) -> None:
        with ExitStack() as patches:
            for name, value in self._patches.items():
                patches.enter_context(patch(name, value))
            async with assembled(self._settings, self._folder, "http://model") as parts:
                patches.close()
                await parts.boot()
                self.site = parts.site
                self.is_up.set()
                await self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()

    async def let_in(self, namespace: str, auth: AuthKey) -> None:
        secret = read_secret(self._settings, self._folder)
        await self._store.put_key(record_of(auth, secret, subject="someone", namespace=namespace))

    async def ask(self, method: str, path: str, query: Json, auth: AuthKey, body: Json | None) -> tuple[int, Any]:
        """Status, and the body as JSON or text."""
        content = b"" if body is None else json.dumps(body).encode()
        headers = [(b"authorization", b"Basic " + base64.b64encode(str(auth).encode()))]
        if content:
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        raw = quote(path)
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": raw.encode(),
            "query_string": urlencode(query).encode(),
            "headers": headers,
            "client": ("127.0.0.1", 1),
        }
        sent: list[Json] = []

        async def receive() -> Json:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.site(scope, receive, send)
        answer = b"".join(part.get("body", b"") for part in sent)
        return sent[0]["status"], answer.decode() if answer == b"OK" else json.loads(answer or b"null")


class Platform:
    """Both applications, on one clock and one loop, which turns while something is asked."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.worlds = count()
        self.sites: dict[str, Real] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.start("memory", folder / "memory", MemoryEntities(), CACHED_ENTITIES)
        store = self.loop.run_until_complete(SqliteEntities.open(folder / "entities.db"))
        self.start("sqlite", folder / "sqlite", store, 3)

    def start(self, name: str, folder: Path, store: MemoryEntities | SqliteEntities, cached: int) -> None:
        folder.mkdir(mode=0o700)
        real = self.sites[name] = Real(folder, store, self.clock, cached)
        self._tasks.append(self.loop.create_task(real.serve()))
        up = self.loop.create_task(real.is_up.wait())
        self.loop.run_until_complete(asyncio.wait({self._tasks[-1], up}, return_when=asyncio.FIRST_COMPLETED))
        assert up.done(), self._tasks[-1].exception()

    def close(self) -> None:
        for real in self.sites.values():
            real.stop()
        self.loop.run_until_complete(asyncio.gather(*self._tasks))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


def ordered(value: Any) -> Any:
    """The same without the order that is nobody's promise: of parameters, annotations and a package's content."""
    if isinstance(value, dict):
        return {
            key: sorted(map(ordered, inner.values() if isinstance(inner, dict) else inner), key=by_name)
            if key in ("parameters", "annotations", "actions", "feeds") and isinstance(inner, dict | list)
            else ordered(inner)
            for key, inner in value.items()
        }
    return [ordered(inner) for inner in value] if isinstance(value, list) else value


def by_name(entry: Json) -> str:
    return str(entry.get("key") or entry["name"])


# ── what is asked ───────────────────────────────────────────────────────────────────────────────────────────────────

# few names, so that they meet; one of them is anything, and drawn less often
ACTIONS, TRIGGERS, RULES, PACKAGES = ("a", "b", "x"), ("t", "u", "x"), ("r", "s", "x"), ("p", "q", "x")
NAMES = {"actions": ACTIONS, "triggers": TRIGGERS, "rules": RULES, "packages": PACKAGES}


def drawn(names: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.sampled_from(names[:2] * 3 + names[2:])


booleans = st.booleans()
seldom = st.sampled_from((False, False, False, True))
mostly = st.sampled_from((True, True, True, False))
whose = st.sampled_from((0, 0, 0, 0, 1))
"""0: the caller's own namespace, 1: the other one."""
keys = st.sampled_from(("k", "l", "m", "feed", "final"))
values = st.sampled_from((None, True, False, 1, 2.5, "ns/feed", [1, {"a": None}], {"b": "ü"}))


@st.composite
def entries(draw: st.DrawFn, *, is_parameter: bool) -> list[Json]:
    out = []
    for key in draw(st.lists(keys, max_size=3, unique=True)):
        entry = {"key": key, "value": draw(values)}
        if is_parameter and draw(seldom):
            entry["init"] = True
        out.append(entry)
    return out


def fields(**further: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """A PUT body: whatever of it is said, `null` and unknown fields among it."""
    common = {
        "annotations": st.none() | entries(is_parameter=False),
        "version": st.sampled_from((None, "1.2.3", "0.0.9")),
        "publish": st.sampled_from((None, True, False, True)),
        "namespace": st.just("nobody's"),
        "updated": st.just(1),
    }
    return st.fixed_dictionaries({}, optional=common | further)


parameters = st.none() | entries(is_parameter=True)
codes = st.fixed_dictionaries(
    {"kind": st.sampled_from(("nodejs:20", " NodeJS:default")), "code": st.sampled_from(("", "x", "YWJj"))},
    optional={"main": st.sampled_from((None, "main")), "binary": booleans},
)
limits = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "memory": st.sampled_from((None, 128, 512, 512, 127, 513)),
        "timeout": st.sampled_from((None, 100, 300000)),
        "instances": st.sampled_from((0, 3)),
    },
)
action_bodies = fields(
    parameters=parameters, limits=limits, delAnnotations=st.none() | st.lists(keys, max_size=2), exec=codes
)
sequence_bodies = fields(parameters=parameters, delAnnotations=st.lists(keys, max_size=2))
package_bodies = fields(parameters=parameters)
trigger_bodies = fields(parameters=parameters, limits=st.just({}))
rule_bodies = fields(status=st.just(""))
pages = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.sampled_from((0, 1, 2, 30, 200)),
        "skip": st.sampled_from((0, 1, 3, 100)),
        "count": st.just("true"),
    },
)
collections = st.sampled_from(tuple(NAMES))
packages_or_none = st.none() | drawn(PACKAGES)


class CrudMachine(RuleBasedStateMachine):
    platform: Platform

    def __init__(self) -> None:
        super().__init__()
        clock = self.platform.clock
        world = next(self.platform.worlds)
        self.namespaces = [f"w{world}-{letter}" for letter in "ab"]
        self.auths = [AuthKey(f"{namespace}-uuid", namespace.ljust(64, "k")) for namespace in self.namespaces]
        self.model = Model(clock.now_ms)
        self.is_sound = True
        for real in self.platform.sites.values():
            for namespace, auth in zip(self.namespaces, self.auths, strict=True):
                self.platform.loop.run_until_complete(real.let_in(namespace, auth))

    # ── one request ─────────────────────────────────────────────────────────────────────────────────────────────

    def ask(
        self,
        caller: int,
        owner: int,
        method: str,
        path: str,
        expected: Callable[[], Any],
        query: Json | None = None,
        body: Json | None = None,
        **flags: bool,
    ) -> None:
        """`flags` are those of the query; false ones are left out. An own namespace is `_` every other time."""
        shown = "_" if caller == owner and len(path) % 2 else self.namespaces[owner]
        target = f"/api/v1/namespaces/{shown}/{path}"
        query = (query or {}) | {name: "true" for name, is_set in flags.items() if is_set}
        try:
            told: tuple[int, Any] = 200, ordered(expected())
            sentences: tuple[str, ...] = ()
        except Otherwise as other:
            told, sentences = (other.status, other.body), ()
        except No as no:
            told, sentences = (no.status, None), no.sentences
        is_sound, self.is_sound = self.is_sound, False
        for store, real in self.platform.sites.items():
            answer = self.platform.loop.run_until_complete(real.ask(method, target, query, self.auths[caller], body))
            note(f"{store}: {self.namespaces[caller]} {method} {target} {query} {body} -> {answer}")
            if sentences:
                assert answer[0] == told[0]
                assert answer[1].keys() == {"error", "code"}
                assert answer[1]["error"] in sentences
            else:
                assert (answer[0], ordered(answer[1])) == told
        self.is_sound = is_sound

    def id(self, owner: int, *names: str | None) -> str:
        return "/".join((self.namespaces[owner], *(name for name in names if name is not None)))

    def both(self, caller: int, whose: int) -> tuple[str, int]:
        return self.namespaces[caller], (caller + whose) % 2

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────

    @initialize(is_full=st.sampled_from((True, True, True, False)), is_public=booleans)
    def make_world(self, is_full: bool, is_public: bool) -> None:
        """Without it most steps would name what is not there. Each caller has what the other may look for."""
        said: Json = {"annotations": [{"key": "k", "value": "first"}]}
        code = said | {"exec": {"kind": "nodejs:20", "code": "x"}, "parameters": [{"key": "k", "value": "action"}]}
        of_package = [{"key": "k", "value": "package"}, {"key": "l", "value": "package", "init": True}]
        of_binding = [{"key": "l", "value": "binding"}, {"key": "m", "value": "binding"}]
        for caller in (0, 1) if is_full else ():
            self.put_package(caller, 0, "p", None, said | {"publish": is_public, "parameters": of_package}, False)
            for id in (self.id(caller, "a"), self.id(caller, "p", "a"), self.id(caller, "p", "b")):
                self.put_action_as(caller, caller, id, code, False)
            self.put_sequence(caller, "b", None, [(0, None, "a"), (0, "p", "a")], said, False)
            self.put_trigger(caller, 0, "t", said, False)
            self.put_trigger(caller, 0, "u", {}, False)
            self.put_rule(caller, 0, "r", (0, "t"), (0, None, "a"), said, True, False)
            self.put_rule(caller, 0, "s", (0, "t"), (0, "p", "b"), {}, False, False)
            self.set_rule_status(caller, 0, "r", "inactive")
        for caller in (0, 1) if is_full else ():
            bound = said | {"parameters": of_binding, "publish": True}
            self.put_package(caller, 0, "q", (caller == 1, "p"), bound, False)
            self.put_sequence(caller, "b", None, [(0, "q", "b")], {"delAnnotations": ["k"]}, True)
            self.put_sequence(caller, "a", "p", [(0, "q", "a")], {}, True)

    @rule(
        caller=st.integers(0, 1),
        whose=whose,
        package=packages_or_none,
        name=drawn(ACTIONS),
        body=action_bodies,
        overwrite=mostly,
    )
    def put_action(self, caller: int, whose: int, package: str | None, name: str, body: Json, overwrite: bool) -> None:
        _, owner = self.both(caller, whose)
        self.put_action_as(caller, owner, self.id(owner, package, name), body, overwrite)

    @rule(
        caller=st.integers(0, 1),
        name=drawn(ACTIONS),
        package=packages_or_none,
        parts=st.lists(st.tuples(whose, packages_or_none, drawn(ACTIONS)), max_size=3),
        body=sequence_bodies,
        overwrite=mostly,
    )
    def put_sequence(
        self,
        caller: int,
        name: str,
        package: str | None,
        parts: list[tuple[int, str | None, str]],
        body: Json,
        overwrite: bool,
    ) -> None:
        who, owner = self.both(caller, 0)
        components = [f"/{self.id((caller + part[0]) % 2, *part[1:])}" for part in parts]
        components = [part.replace(f"/{who}/", "/_/") if at % 2 else part for at, part in enumerate(components)]
        body = body | {"exec": {"kind": "sequence", "components": components}}
        self.put_action_as(caller, owner, self.id(owner, package, name), body, overwrite)

    def put_action_as(self, caller: int, owner: int, id: str, body: Json, overwrite: bool) -> None:
        who = self.namespaces[caller]
        path = f"actions/{id.partition('/')[2]}"
        expected = partial(self.model.put_action, who, id, body, overwrite=overwrite)
        self.ask(caller, owner, "PUT", path, expected, body=body, overwrite=overwrite)

    @rule(
        caller=st.integers(0, 1),
        whose=whose,
        name=st.sampled_from((*PACKAGES * 3, "default")),
        bound=st.none() | st.none() | st.tuples(booleans, drawn(PACKAGES)),
        body=package_bodies,
        overwrite=mostly,
    )
    def put_package(
        self, caller: int, whose: int, name: str, bound: tuple[bool, str] | None, body: Json, overwrite: bool
    ) -> None:
        who, owner = self.both(caller, whose)
        if bound is not None:
            is_own, target = bound
            namespace = self.namespaces[caller if is_own else 1 - caller]
            shown = "_" if is_own and overwrite else namespace
            body = body | {"binding": {"namespace": shown, "name": target}}
        id = self.id(owner, name)
        expected = partial(self.model.put_package, who, id, body, overwrite=overwrite)
        self.ask(caller, owner, "PUT", f"packages/{name}", expected, body=body, overwrite=overwrite)

    @rule(caller=st.integers(0, 1), whose=whose, name=drawn(TRIGGERS), body=trigger_bodies, overwrite=mostly)
    def put_trigger(self, caller: int, whose: int, name: str, body: Json, overwrite: bool) -> None:
        who, owner = self.both(caller, whose)
        id = self.id(owner, name)
        expected = partial(self.model.put_trigger, who, id, body, overwrite=overwrite)
        self.ask(caller, owner, "PUT", f"triggers/{name}", expected, body=body, overwrite=overwrite)

    @rule(
        caller=st.integers(0, 1),
        whose=whose,
        name=drawn(RULES),
        trigger=st.none() | st.tuples(whose, drawn(TRIGGERS)),
        action=st.none() | st.tuples(whose, packages_or_none, drawn(ACTIONS)),
        body=rule_bodies,
        is_text=booleans,
        overwrite=mostly,
    )
    def put_rule(
        self,
        caller: int,
        whose: int,
        name: str,
        trigger: tuple[int, str] | None,
        action: tuple[int, str | None, str] | None,
        body: Json,
        is_text: bool,
        overwrite: bool,
    ) -> None:
        who, owner = self.both(caller, whose)
        for field, named in (("trigger", trigger), ("action", action)):
            if named is not None:
                full = self.id((caller + named[0]) % 2, *named[1:])
                body = body | {field: f"/{full}" if is_text else split(full)}
        id = self.id(owner, name)
        expected = partial(self.model.put_rule, who, id, body, overwrite=overwrite)
        self.ask(caller, owner, "PUT", f"rules/{name}", expected, body=body, overwrite=overwrite)

    @rule(
        caller=st.integers(0, 1),
        whose=whose,
        name=drawn(RULES),
        status=st.sampled_from(("active", "inactive")),
    )
    def set_rule_status(self, caller: int, whose: int, name: str, status: str) -> None:
        who, owner = self.both(caller, whose)
        expected = partial(self.model.set_status, who, self.id(owner, name), status)
        self.ask(caller, owner, "POST", f"rules/{name}", expected, body={"status": status})

    @rule(caller=st.integers(0, 1), whose=whose, name=drawn(TRIGGERS))
    def fire(self, caller: int, whose: int, name: str) -> None:
        who, owner = self.both(caller, whose)
        expected = partial(self.model.fire, who, self.id(owner, name))
        self.ask(caller, owner, "POST", f"triggers/{name}", expected, body={})

    @rule(caller=st.integers(0, 1), whose=whose, collection=collections, name=st.sampled_from((0, 0, 1, 1, 2)))
    def get(self, caller: int, whose: int, collection: str, name: int) -> None:
        self.read(caller, (caller + whose) % 2, collection, NAMES[collection][name])

    def read(self, caller: int, owner: int, collection: str, name: str) -> None:
        who, id = self.namespaces[caller], self.id(owner, name)
        reads: dict[str, Callable[[], Any]] = {
            "actions": lambda: self.model.get_action(who, id, has_code=True),
            "packages": lambda: self.model.get_package(who, id),
            "triggers": lambda: self.model.get_trigger(who, id),
            "rules": lambda: self.model.get_rule(who, id),
        }
        self.ask(caller, owner, "GET", f"{collection}/{name}", reads[collection])

    @rule(
        caller=st.integers(0, 1),
        whose=st.integers(0, 1),
        package=drawn(PACKAGES),
        name=drawn(ACTIONS),
        has_code=booleans,
    )
    def get_packaged(self, caller: int, whose: int, package: str, name: str, has_code: bool) -> None:
        who, owner = self.both(caller, whose)
        id = self.id(owner, package, name)
        expected = partial(self.model.get_action, who, id, has_code=has_code)
        self.ask(caller, owner, "GET", f"actions/{package}/{name}", expected, {} if has_code else {"code": "false"})

    @rule(
        caller=st.integers(0, 1),
        whose=whose,
        collection=collections,
        package=packages_or_none,
        name=st.sampled_from((0, 0, 1, 1, 2)),
        force=booleans,
    )
    def delete(
        self,
        caller: int,
        whose: int,
        collection: str,
        package: str | None,
        name: int,
        force: bool,
    ) -> None:
        who, owner = self.both(caller, whose)
        text = NAMES[collection][name]
        id = self.id(owner, package if collection == "actions" else None, text)
        deletes: dict[str, Callable[[], Any]] = {
            "actions": lambda: self.model.delete_action(who, id),
            "packages": lambda: self.model.delete_package(who, id, force=force),
            "triggers": lambda: self.model.delete_trigger(who, id),
            "rules": lambda: self.model.delete_rule(who, id),
        }
        self.ask(caller, owner, "DELETE", f"{collection}/{id.partition('/')[2]}", deletes[collection], force=force)

    @rule(caller=st.integers(0, 1), whose=whose, collection=collections, page=pages)
    def list_all(self, caller: int, whose: int, collection: str, page: Json) -> None:
        who, owner = self.both(caller, whose)
        namespace = self.namespaces[owner]
        self.ask(caller, owner, "GET", collection, lambda: self.model.list(who, namespace, collection, page), page)

    @rule(caller=st.integers(0, 1), whose=st.integers(0, 1), package=drawn(PACKAGES), page=pages)
    def list_package(self, caller: int, whose: int, package: str, page: Json) -> None:
        who, owner = self.both(caller, whose)
        expected = partial(self.model.list_in_package, who, self.id(owner, package), page)
        self.ask(caller, owner, "GET", f"actions/{package}/", expected, page)

    @rule(seconds=st.sampled_from((0.001, 0.002, 3600.0)))
    def time_passes(self, seconds: float) -> None:
        self.platform.clock.advance(seconds)

    def teardown(self) -> None:
        """All that there is by now, as both see it; unless a step has failed, which is what shall be told."""
        for caller in (0, 1) if self.is_sound else ():
            for collection, names in NAMES.items():
                self.list_all(caller, 0, collection, {"limit": 0})
                for name in names:
                    self.read(caller, caller, collection, name)
            self.list_all(caller, 1, "packages", {})
            for package in PACKAGES:
                self.read(caller, 1 - caller, "packages", package)
                self.list_package(caller, 0, package, {})
                for name in ACTIONS:
                    self.get_packaged(caller, 0, package, name, True)


@pytest.fixture
def platform() -> Iterator[Platform]:
    memory = "/dev/shm"  # what a sync costs is not asked here
    with tempfile.TemporaryDirectory(prefix="visp-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        platform = Platform(Path(folder))
        try:
            yield platform
        finally:
            platform.close()


def test_every_store_answers_as_dictionaries_would(platform: Platform) -> None:
    class Machine(CrudMachine):
        pass

    Machine.platform = platform
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS_EACH,
            deadline=None,
            derandomize=not STEPS,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
