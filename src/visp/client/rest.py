"""The client of the REST API: a method for each call, bytes of JSON in and out.

Answers stay the text they came as (`documents` reads it), so nothing that a server says is lost or refused here.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from visp.client import documents
from visp.client.connection import LINES, Answer, Connection
from visp.client.errors import ActivationFailed, ApiError, BuildFailed, Misused, StillRunning
from visp.client.names import escape
from visp.client.terms import AT_ONCE, Terms
from visp.entity.names import CALLERS_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from visp.client.credentials import Credentials
    from visp.entity.names import FullyQualifiedName

PAGE_LIMIT = 200
"""The largest page of a list."""
ERROR_LIMIT = 300
"""Characters of an action's own error that a sentence of ours repeats."""

TENANTS = "/v2/"
"""Before paths of the gateway's own API, which has no version of the other's."""
NO_TOKEN = "DUMMY TOKEN"
"""What clients say that have no token for the gateway."""

Query = dict[str, str | int | bool | None]


class Invocation(msgspec.Struct, frozen=True):
    """An invocation that was accepted, or that ended well. `body` is the answer as it came."""

    activation_id: str
    body: bytes


class Client:
    """Speaks to one API with one key.

    Every call raises `NoConnection` when nobody answers, `ApiError` when the platform refuses, `Misused` without a key.
    """

    def __init__(self, credentials: Credentials, trace: Callable[[str], None] | None = None) -> None:
        self.credentials = credentials
        self._connection = Connection(credentials, trace)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # ── entities: `collection` is actions, triggers, rules or packages ──────────────────────────────────────────

    def get(self, collection: str, name: FullyQualifiedName, *, code: bool | None = None) -> bytes:
        return self._ask("GET", _entity(collection, name), {"code": code})

    def put(self, collection: str, name: FullyQualifiedName, document: Mapping[str, Any], *, overwrite: bool) -> bytes:
        return self._ask("PUT", _entity(collection, name), {"overwrite": overwrite}, msgspec.json.encode(document))

    def put_site(self, name: FullyQualifiedName, archive: bytes) -> bytes:
        """Replaces a package's site by the files of a zip archive."""
        return self._ask("PUT", f"{_entity('packages', name)}/web", None, archive, {"Content-Type": "application/zip"})

    def get_site(self, name: FullyQualifiedName) -> bytes:
        return self._ask("GET", f"{_entity('packages', name)}/web")

    def delete_site(self, name: FullyQualifiedName) -> bytes:
        return self._ask("DELETE", f"{_entity('packages', name)}/web")

    # ── APIs of the gateway, as OpenWhisk's clients ask for them ────────────────────────────────────────────────

    def create_api(self, document: Mapping[str, Any], response_type: str) -> bytes:
        """Creates an API, or adds to one; `document` is what OpenWhisk calls `apidoc`."""
        body = msgspec.json.encode({"apidoc": document})
        return self._managed("POST", "createApi", {"responsetype": response_type}, body)

    def apis(self, name: str | None = None, *, limit: int | None = None, skip: int | None = None) -> bytes:
        """Those of the namespace; one by its base path or name."""
        return self._managed("GET", "getApi", {"basepath": name, "limit": limit, "skip": skip})

    def delete_api(self, name: str, path: str | None = None, verb: str | None = None) -> bytes:
        return self._managed("DELETE", "deleteApi", {"basepath": name, "relpath": path, "operation": verb})

    def _managed(self, method: str, what: str, query: Query, body: bytes | None = None) -> bytes:
        """An error there is a sentence without a code."""
        tenant = self.credentials.auth.partition(":")[0]
        told = {"accesstoken": NO_TOKEN, "spaceguid": tenant} | query
        return self._ask(method, f"/web/whisk.system/apimgmt/{what}.http", told, body)

    def put_document(self, document: Mapping[str, Any]) -> bytes:
        """Replaces an API by a document."""
        return self._ask("PUT", "/v2/_/apis", None, msgspec.json.encode(document))

    # ── clients of an API, as OpenWhisk's gateway has them ──────────────────────────────────────────────────────

    def subscribe(
        self, base_path: str, client: str, secret: str | None, scope: Mapping[str, str] | None = None
    ) -> bytes:
        """`scope` says for what but the whole API: `scope` and `resource`."""
        given = {"artifact_id": base_path, "client_id": client} | ({} if secret is None else {"client_secret": secret})
        return self._subscriptions("POST", "", None, msgspec.json.encode(given | dict(scope or {})))

    def subscriptions(self, base_path: str, scope: Mapping[str, str] | None = None) -> bytes:
        return self._subscriptions("GET", "", {"artifact_id": base_path, **(scope or {})})

    def unsubscribe(self, base_path: str, client: str, scope: Mapping[str, str] | None = None) -> bytes:
        return self._subscriptions("DELETE", f"/{escape(client)}", {"artifact_id": base_path, **(scope or {})})

    def _subscriptions(self, method: str, what: str, query: Query | None, body: bytes | None = None) -> bytes:
        return self._ask(method, f"/v2/_/subscriptions{what}", query, body)

    def put_built(
        self, name: FullyQualifiedName, document: Mapping[str, Any], *, overwrite: bool, hear: Callable[[str], None]
    ) -> bytes:
        """Puts an action once its code is built; `hear` is told what that prints.

        A server that cannot build before it stores answers as ever. Raises `BuildFailed` too.
        """

        def told(line: bytes) -> None:
            progress = documents.text(documents.value(line), "progress")
            if progress:
                hear(progress)

        answer = self._call(
            "PUT",
            _entity("actions", name),
            {"overwrite": overwrite, "build": "wait"},
            msgspec.json.encode(document),
            {"Accept": f"{LINES}, application/json"},
            told,
        )
        if answer.headers.get("content-type", "").startswith(LINES):
            answer = _last(answer)
        _check(answer)
        return answer.body

    def delete(self, collection: str, name: FullyQualifiedName, *, is_forced: bool = False) -> bytes:
        return self._ask("DELETE", _entity(collection, name), {"force": True} if is_forced else {})

    def list(
        self,
        collection: str,
        namespace: str = CALLERS_NAMESPACE,
        package: str | None = None,
        *,
        limit: int = 30,
        skip: int = 0,
    ) -> bytes:
        path = f"/namespaces/{escape(namespace)}/{collection}"
        if package is not None:
            path += f"/{escape(package)}/"
        return self._ask("GET", path, {"limit": limit, "skip": skip})

    def set_rule_status(self, name: FullyQualifiedName, status: str) -> None:
        """`status` is `active` or `inactive`."""
        self._ask("POST", _entity("rules", name), body=msgspec.json.encode({"status": status}))

    # ── activations ─────────────────────────────────────────────────────────────────────────────────────────────

    def invoke(
        self,
        name: FullyQualifiedName,
        arguments: Mapping[str, msgspec.Raw],
        *,
        is_blocking: bool = False,
        is_result: bool = False,
        terms: Terms = AT_ONCE,
    ) -> Invocation:
        """Invokes an action; `is_result` waits too, and asks for the result alone.

        Raises `ActivationFailed` when the action ran and failed, `StillRunning` when it was not finished in time.
        """
        is_blocking = is_blocking or is_result
        answer = self._call(
            "POST",
            _entity("actions", name),
            {"blocking": is_blocking, "result": is_result, "delay": terms.delay, "at": terms.at},
            msgspec.json.encode(arguments),
            terms.headers,
        )
        return _invoked(answer, is_blocking=is_blocking, is_result=is_result)

    def stream(
        self, name: FullyQualifiedName, arguments: Mapping[str, msgspec.Raw], on_part: Callable[[bytes], None]
    ) -> Invocation:
        """Invokes an action; `on_part` is given its result as it comes: text and bytes as they are, values as lines.

        Raises as `invoke` does; `StillRunning` when the server ended first.
        """
        path = f"/api/{escape(self.credentials.apiversion)}{_entity('actions', name)}?blocking=true"
        self._check_key()
        answer = self._connection.events(path, msgspec.json.encode(arguments))
        if isinstance(answer, Answer):
            return _invoked(answer, is_blocking=True, is_result=False)
        id = ""
        for event, data in answer:
            if event == "activation":
                id = documents.text(documents.value(data), "activationId")
            elif event == "part":
                value = documents.value(data)
                on_part(value.encode("utf-8", "replace") if isinstance(value, str) else data + b"\n")
            elif event == "bytes":
                on_part(base64.b64decode(data))
            elif event == "record":
                if _is_failure(data):
                    raise ActivationFailed(502, _error_of(data), data, id)
                return Invocation(id, data)
            elif event == "error":
                raise _refusal(Answer(503, {}, data))
        raise StillRunning(b"", id)

    def fire(
        self, name: FullyQualifiedName, arguments: Mapping[str, msgspec.Raw], terms: Terms = AT_ONCE
    ) -> Invocation:
        """Fires a trigger; the activation id is empty when no active rule is attached, and nothing was started."""
        answer = self._call(
            "POST",
            _entity("triggers", name),
            {"delay": terms.delay, "at": terms.at},
            msgspec.json.encode(arguments),
            terms.headers,
        )
        _check(answer)
        document = documents.value(answer.body)
        return Invocation(answer.activation_id or documents.text(document, "activationId"), answer.body)

    def fire_lines(self, name: FullyQualifiedName, lines: bytes, batch: str | None = None) -> Sequence[bytes]:
        """Fires a trigger once for each line of JSON; what the server says to each, as it came.

        `batch` is `SOURCE/N`: lines are `{"key", "value"}`, and a batch that is sent again fires each key once. Raises
        `ApiError` with `newest_batch` for one that is over.
        """
        query: Query = {} if batch is None else {"keyed": True, "batch": batch}
        told = self._ask("POST", _entity("triggers", name), query, lines, {"Content-Type": LINES})
        return told.splitlines()

    def follow(
        self,
        namespace: str = CALLERS_NAMESPACE,
        *,
        name: str | None = None,
        since_ms: int | None = None,
        last: str | None = None,
    ) -> Iterator[tuple[str, bytes]]:
        """Records as they are finished: events `record` with each, `lost` with how many could not be told.

        It ends when the server ends it: with the id of the `last` record that was seen the next one goes on.
        """
        self._check_key()
        path = f"/api/{escape(self.credentials.apiversion)}/namespaces/{escape(namespace)}/activations"
        given = {"name": name, "since": since_ms}
        if any(value is not None for value in given.values()):
            path += "?" + urlencode({key: value for key, value in given.items() if value is not None})
        answer = self._connection.events(path, None, {} if last is None else {"Last-Event-ID": last})
        if isinstance(answer, Answer):
            _check(answer)
            raise ApiError(answer.status, "the server has no stream of records")
        return answer

    def interrupt(self) -> None:
        """Ends what another thread follows."""
        self._connection.interrupt()

    def activation(
        self,
        id: str,
        namespace: str = CALLERS_NAMESPACE,
        *,
        has_phases: bool = False,
        wait_s: float | None = None,
    ) -> bytes:
        """`has_phases` asks for when the activation reached what; a server that does not know leaves that out.

        `wait_s` asks the server to wait for the record; `waiting.wait_for` goes on when it does not wait that long.
        """
        query: Query = {"phases": True} if has_phases else {}
        if wait_s is not None:
            query["wait"] = f"{wait_s:.3f}"
        return self._ask("GET", f"/namespaces/{escape(namespace)}/activations/{escape(id)}", query)

    def activation_logs(self, id: str, namespace: str = CALLERS_NAMESPACE) -> bytes:
        return self._ask("GET", f"/namespaces/{escape(namespace)}/activations/{escape(id)}/logs")

    def activation_result(self, id: str, namespace: str = CALLERS_NAMESPACE) -> bytes:
        return self._ask("GET", f"/namespaces/{escape(namespace)}/activations/{escape(id)}/result")

    def activations(
        self,
        namespace: str = CALLERS_NAMESPACE,
        *,
        name: str | None = None,
        limit: int = 30,
        skip: int = 0,
        since_ms: int | None = None,
        upto_ms: int | None = None,
        is_full: bool = False,
        is_count: bool = False,
    ) -> bytes:
        """Newest first, or how many there are.

        `since_ms` and `upto_ms` bound the start, both inclusive, in milliseconds since the epoch.
        """
        query: Query = {"limit": limit, "skip": skip, "name": name, "since": since_ms, "upto": upto_ms}
        if is_full:
            query["docs"] = True
        if is_count:
            query["count"] = True
        return self._ask("GET", f"/namespaces/{escape(namespace)}/activations", query)

    def deferred(self, method: str, collection: str, id: str) -> bytes:
        """GET, POST (replay) or DELETE of one of `deadletters` or `delayed`."""
        return self._ask(method, f"/namespaces/{escape(CALLERS_NAMESPACE)}/{collection}/{escape(id)}")

    # ── feeds of triggers ───────────────────────────────────────────────────────────────────────────────────────

    def feeds(self) -> bytes:
        """Of the namespace, with how they stand."""
        return self._ask("GET", f"/namespaces/{escape(CALLERS_NAMESPACE)}/feeds")

    def feed(self, method: str, trigger: FullyQualifiedName, *, state: str | None = None) -> bytes:
        """GET of a trigger's feed; POST with a `state`: `paused` or `live`."""
        return self._ask(method, _entity("feeds", trigger), {"state": state})

    # ── the platform ────────────────────────────────────────────────────────────────────────────────────────────

    def namespaces(self) -> bytes:
        return self._ask("GET", "/namespaces")

    def info(self) -> bytes:
        """The API's own description: build, version. Needs no key."""
        answer = self._connection.request("GET", f"/api/{escape(self.credentials.apiversion)}")
        _check(answer)
        return answer.body

    # ── one call ────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        answer = self._call(method, path, query, body, headers)
        _check(answer)
        return answer.body

    def _call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        hear: Callable[[bytes], None] | None = None,
    ) -> Answer:
        self._check_key()
        if not path.startswith(TENANTS):
            path = f"/api/{escape(self.credentials.apiversion)}{path}"
        if given := {key: _parameter(value) for key, value in (query or {}).items() if value is not None}:
            path += "?" + urlencode(given)
        return self._connection.request(method, path, body, headers, hear)

    def _check_key(self) -> None:
        if not self.credentials.auth:
            raise Misused(
                f"there is no key for {self.credentials.apihost}: `visp property set --auth KEY`, WHISK_AUTH or --auth"
            )


class _Last(msgspec.Struct):
    """The last line of an answer in lines."""

    status: int
    body: msgspec.Raw
    build: str = ""


def _last(answer: Answer) -> Answer:
    """The answer that stands in the last line; raises `BuildFailed`, `ApiError` where the server ended before it."""
    try:
        last = msgspec.json.decode(answer.body, type=_Last)
    except msgspec.DecodeError:
        raise ApiError(answer.status, "the server ended before it had answered", "", None) from None
    if last.build:
        raise BuildFailed(documents.text(documents.value(bytes(last.body)), "error"))
    return Answer(last.status, answer.headers, bytes(last.body))


def _invoked(answer: Answer, *, is_blocking: bool, is_result: bool) -> Invocation:
    """What an invocation came to. Raises as `Client.invoke` does."""
    activation_id = answer.activation_id or documents.text(documents.value(answer.body), "activationId")
    if not answer.is_success:
        raise _failure(answer, activation_id)
    if is_blocking and answer.status == 202:
        raise StillRunning(answer.body, activation_id)
    if is_blocking and not is_result and _is_failure(answer.body):
        raise ActivationFailed(502, _error_of(answer.body), answer.body, activation_id)
    return Invocation(activation_id, answer.body)


def _entity(collection: str, name: FullyQualifiedName) -> str:
    package = "" if name.package is None else f"{escape(name.package)}/"
    return f"/namespaces/{escape(name.namespace)}/{collection}/{package}{escape(name.name)}"


def _parameter(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# ── telling errors apart: `code` is the platform's, without it the answer is the action's ───────────────────────────


def _check(answer: Answer) -> None:
    if not answer.is_success:
        raise _refusal(answer)


def _failure(answer: Answer, activation_id: str) -> ApiError | ActivationFailed:
    """What an invocation's answer outside of 2xx means.

    A body without `code` is the action's own when the status is 502 (as `wsk` has it), or when the answer names the
    activation it comes from, which it does for internal errors too.
    """
    document = documents.value(answer.body)
    is_refusal = isinstance(document, dict) and "code" in document and "activationId" not in document
    if document is None or (is_refusal and not answer.activation_id) or not (answer.status == 502 or activation_id):
        return _refusal(answer)
    return ActivationFailed(answer.status, _error_of(answer.body), answer.body, activation_id)


def _refusal(answer: Answer) -> ApiError:
    document = documents.value(answer.body)
    error = document.get("error", document.get("message")) if isinstance(document, dict) else None
    if not isinstance(error, str):
        error, code = f"The connection failed, or timed out. (HTTP status code {answer.status})", None
    else:
        code = document.get("code") if isinstance(document, dict) else None
    later = answer.headers.get("retry-after", "")
    retry_after_s = int(later) if later.isascii() and later.isdecimal() else None
    newest = answer.headers.get("x-visp-batch", "")
    newest_batch = int(newest) if newest.isascii() and newest.isdecimal() else None
    return ApiError(answer.status, error, "" if code is None else str(code), retry_after_s, newest_batch)


def _is_failure(record: bytes) -> bool:
    document = documents.value(record)
    response = document.get("response") if isinstance(document, dict) else None
    return isinstance(response, dict) and response.get("success") is False


def _error_of(body: bytes) -> str:
    """What a failed activation's record, or its result, says: one line, the body has the whole."""
    line, *more = _whole_error_of(body).splitlines() or [""]
    is_cut = more or len(line) > ERROR_LIMIT
    return f"{line[:ERROR_LIMIT]} …" if is_cut else line


def _whole_error_of(body: bytes) -> str:
    document = documents.value(body)
    response = document.get("response") if isinstance(document, dict) and "activationId" in document else None
    result = response.get("result") if isinstance(response, dict) else document
    error = result.get("error") if isinstance(result, dict) else None
    if isinstance(error, dict) and isinstance(error.get("error"), str):
        error = error["error"]
    if isinstance(error, str) and error.strip():
        return error.strip()
    status = documents.text(response, "status") or "application error"
    return status if error is None else f"{status}: {msgspec.json.encode(error).decode()}"
