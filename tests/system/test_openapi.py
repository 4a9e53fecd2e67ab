"""The API is what its document says: requests made from it are answered as it says, and none breaks the server.

Requests are drawn by schemathesis from a fixed seed, half of them right and half wrong, and aimed at what is there.
"""

from __future__ import annotations

import io
import re
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.system.callers import AUTH
from tests.system.conftest import Api
from tests.system.places import Place, opened

from visp.api import openapi, schemas
from visp.entity.artifact import id_of
from visp.entity.subject import GUEST_UUID

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
RIGHT, WRONG = 8, 5
"""Requests for each operation."""
FAKE = ("--driver", "visp.container.fake:FakeDriver")
WITHIN_S = 30.0


@schemathesis.serializer("application/zip")
def zipped(context: Any, value: Any) -> bytes:
    """What is right is an archive, of whatever was drawn; what is wrong is none."""
    if not isinstance(value, (str, bytes)):
        return repr(value).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("drawn.txt", value)
    return out.getvalue()


SCHEMA = schemathesis.openapi.from_dict(openapi.document())
FOUND = [found.ok() for found in SCHEMA.get_all_operations()]
OPERATIONS = {operation.definition.raw["operationId"]: operation for operation in FOUND}
WITH_INPUT = [id for id, operation in OPERATIONS.items() if operation.definition.raw.get("parameters")]

NAMESPACES = ("_", "_", "_", "_", "guest", "other")
NAMES = {
    "actions/{package}/": ("works", "works", "works"),
    "actions": ("works", "works", "fails", "both"),
    "packages": ("pack", "bound", "empty"),
    "triggers": ("event", "quiet"),
    "rules": ("link",),
    "feeds": ("event", "event"),
}
PACKAGES = ("pack", "pack", "pack", "bound", "event", "absent")
OTHER_NAMES = ("pack", "event", "new", "new one", "absent")
CODE = '{"answer": {"works": true}}'
EXECS = (
    {"kind": "nodejs:20", "code": CODE},
    {"kind": "python:default", "code": CODE, "main": "main"},
    {"kind": "sequence", "components": ["/_/works", {"path": "_/bound", "name": "works"}]},
    {"kind": "blackbox", "image": "some/image:1"},
    {"kind": "cobol:60", "code": CODE},
)
APIS = "/api/v1/web/whisk.system/apimgmt"
SHOP: dict[str, Any] = {
    "basePath": "/shop",
    "info": {"title": "Shop", "version": "1"},
    "paths": {},
    "x-ibm-configuration": {"assembly": {"execute": []}},
}
APIDOC = {"namespace": "_", "swagger": SHOP}
SUBSCRIPTION = {"artifact_id": "/shop", "client_id": "reader"}
DOCUMENT: dict[str, Any] = SHOP | {"paths": {"/x": {"get": {"operationId": "x", "responses": {}}}}}
RESOURCES = {"/x": {"operations": {"get": {"backendMethod": "GET", "backendUrl": "https://api.example/"}}}}
TENANT = {"namespace": "guest", "instance": "", "id": GUEST_UUID}
KEY = {"key": "k", "scope": "api", "tenantId": GUEST_UUID, "apiId": id_of("/shop")}
FIRST = {"name": "Shop", "basePath": "/shop", "tenantId": GUEST_UUID, "resources": RESOURCES}
ONCE = {"feed": "alarms/once", "parameters": {"date": 4_102_444_800_000}}
BODIES: dict[str, Any] = {
    **dict.fromkeys(("create_feed", "change_feed"), ONCE),
    **dict.fromkeys(("add_document", "put_document", "replace_document"), DOCUMENT),
    **dict.fromkeys(("put_first", "replace_first"), FIRST),
    **dict.fromkeys(("put_tenant", "replace_tenant"), TENANT),
    **dict.fromkeys(("put_first_subscription", "drop_first_subscription"), KEY),
}
"""Right ones of the gateway's own management."""
REFERENCES = ("/_/event", "/_/works", "/guest/pack/works", {"path": "other", "name": "works"})


class Docs(Place):
    """A server with a little of everything, and the ids of what it did."""

    def open(self) -> None:
        self.server = self.start(*FAKE, limits__blocking_wait_ms=1000, waits__longest_s=0.02)
        self.api = Api(self.server.url)
        self.session = requests.Session()
        self.fill()
        self.ran = self.begin("works")

    def ids(self, path: str) -> tuple[str, ...]:
        """What `id` may be in a path; for each collection something is there."""
        if "/deadletters/" in path:
            self.begin("fails")
            end_s = time.monotonic() + WITHIN_S
            while not (letters := self.api.get("deadletters").json):
                assert time.monotonic() < end_s, "it did not come"
                time.sleep(0.01)
            known = letters[0]["activationId"]
        else:
            known = self.begin("works", "?delay=1h") if "/delayed/" in path else self.ran
        return (known, known, known, "0" * 32)

    def fill(self) -> None:
        """Puts there what earlier requests may have changed or taken away."""
        failing = {"exec": {"kind": "nodejs:20", "code": '{"answer": {"error": "broken"}}'}}
        bodies: dict[str, dict[str, Any]] = {
            "actions/works": {"exec": {"kind": "nodejs:20", "code": CODE}},
            "actions/fails": failing | {"annotations": [{"key": "dead-letter", "value": True}]},
            "actions/both": {"exec": {"kind": "sequence", "components": ["/_/works", "/_/fails"]}},
            "packages/empty": {},
            "packages/pack": {"parameters": [{"key": "a", "value": 1}]},
            "actions/pack/works": {"exec": {"kind": "python:3.11", "code": '{"answer": [1, 2]}'}},
            "packages/bound": {"binding": {"namespace": "_", "name": "pack"}},
            "triggers/event": {},
            "triggers/quiet": {},
            "rules/link": {"trigger": "/_/event", "action": "/_/works"},
        }
        made = self.api.request("POST", f"{APIS}/createApi", {"apidoc": APIDOC})
        assert made.status == 200, made
        made = self.api.request("POST", "/v2/_/subscriptions", SUBSCRIPTION)
        assert made.status == 200, made
        for path, body in bodies.items():
            answer = self.api.request("PUT", f"{path}?overwrite=true", body)
            if answer.status == 409:  # a request made something else of that name
                for collection in ("actions", "packages", "triggers", "rules"):
                    self.api.delete(f"{collection}/{path.partition('/')[2]}?force=true")
                answer = self.api.request("PUT", f"{path}?overwrite=true", body)
            assert answer.status == 200, (path, answer)
        answer = self.api.request("PUT", "feeds/event", ONCE)
        assert answer.status == 200, answer

    def begin(self, action: str, query: str = "") -> str:
        answer = self.api.request("POST", f"actions/{action}{query}", {})
        assert answer.status == 202, answer
        id: str = answer.json["activationId"]
        return id


@pytest.fixture(scope="module")
def place() -> Iterator[Docs]:
    with opened(Docs) as place:
        place.open()
        with place.session:
            yield place


def aim(case: Any, data: st.DataObject, ids: tuple[str, ...]) -> None:
    """Makes what is right in a request mean what is there, mostly: chance alone never does."""
    where = case.path_parameters or {}
    own = next((names for collection, names in NAMES.items() if f"/{collection}" in case.path), ())
    pools = {
        "namespace": NAMESPACES,
        "package": PACKAGES,
        "name": own * 2 + OTHER_NAMES,
        "id": ids,
        "tenant": NAMESPACES,
        "client": ("reader", "reader", "absent"),
        "api": (id_of("/shop"), id_of("/shop"), id_of("/absent")),
    }
    for name, text in where.items():
        if isinstance(text, str) and re.match(schemas.ID if name == "id" else schemas.NAME, text):
            where[name] = data.draw(st.sampled_from(pools[name]))
    body = case.body
    if case.operation.method == "put" and case.meta.generation.mode is GenerationMode.POSITIVE:
        case.query = (case.query or {}) | {"overwrite": data.draw(st.sampled_from((True, True, False)))}
    if isinstance(body, dict) and "apidoc" in body:
        body["apidoc"] = data.draw(st.sampled_from((APIDOC, body["apidoc"])))
    is_right = case.meta.generation.mode is GenerationMode.POSITIVE
    if is_right and (wanted := BODIES.get(case.operation.definition.raw["operationId"])) is not None:
        body = case.body = data.draw(st.sampled_from((wanted, wanted, body)))
    if "/v2/" in case.path and "/subscriptions" in case.path:
        for given in (body, case.query if case.operation.method in ("get", "delete") else None):
            if isinstance(given, dict) and case.meta.generation.mode is GenerationMode.POSITIVE:
                given["artifact_id"] = data.draw(st.sampled_from(("/shop", "/shop", "/absent")))
    if case.path.endswith("Api") and "basepath" in (case.query or {}):
        case.query["basepath"] = data.draw(st.sampled_from(("/shop", "Shop", case.query["basepath"])))
    if isinstance(body, dict) and "Put" in str(case.operation.definition.raw["requestBody"]):
        if isinstance(body.get("exec"), dict) and "kind" in body["exec"]:
            body["exec"] = data.draw(st.sampled_from(EXECS))
        for name in body.keys() & {"trigger", "action"}:
            if isinstance(body[name], str):
                body[name] = data.draw(st.sampled_from(REFERENCES))


def check(place: Docs, id: str, mode: GenerationMode, count: int) -> Counter[int]:
    """Sends so many requests of an operation; how often each status was the answer."""
    operation = OPERATIONS[id]
    ids = place.ids(operation.path)
    seen: Counter[int] = Counter()

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def send(case: Any, data: st.DataObject) -> None:
        aim(case, data, ids)
        answer = case.call(base_url=place.server.url, session=place.session, headers={"Authorization": AUTH})
        seen[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code < 500 or is_outcome(answer), (answer.status_code, answer.text)

    try:
        send()
    finally:
        if operation.method != "get":
            place.fill()
    return seen


def is_outcome(answer: requests.Response) -> bool:
    """Whether it was the action that failed, and not the server."""
    is_of_an_api = "/apimgmt/" in str(answer.request.url)
    return answer.status_code == 502 and (is_of_an_api or "x-openwhisk-activation-id" in answer.headers)


OF_OPERATORS = {"disable", "delete_tenant"}
"""Right only with other credentials than a user's."""
OF_CONNECTIONS = {"say_to_connection", "close_connection"}
"""Right only while somebody is connected."""


@pytest.mark.parametrize("id", OPERATIONS)
def test_right_requests(place: Docs, id: str) -> None:
    seen = check(place, id, GenerationMode.POSITIVE, RIGHT)
    assert any(status < 400 for status in seen) or id in OF_OPERATORS | OF_CONNECTIONS, seen


@pytest.mark.parametrize("id", WITH_INPUT)
def test_wrong_requests(place: Docs, id: str) -> None:
    check(place, id, GenerationMode.NEGATIVE, WRONG)


# ── the document itself ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/api/v1/api-docs", "/api/v1/api-docs/"])
@pytest.mark.parametrize(
    ("query", "accept", "version"),
    [
        ("", "*/*", "2.0"),
        ("", "application/json", "2.0"),
        ("?version=2.0", "application/json", "2.0"),
        ("?version=3.1", "*/*", "3.1.0"),
        ("", "application/vnd.oai.openapi+json, application/json;q=0.5", "3.1.0"),
        ("", "application/json;openapi=3.1", "3.1.0"),
    ],
)
def test_document_in_the_form_that_is_asked_for(place: Docs, path: str, query: str, accept: str, version: str) -> None:
    answer = Api(place.server.url, None).request("GET", path + query, headers={"Accept": accept})
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    assert (answer.json.get("swagger") or answer.json["openapi"]) == version


def test_page_is_where_the_docs_lead_to(place: Docs) -> None:
    nobody = Api(place.server.url, None)
    target = nobody.get("/api/v1/docs").headers["location"]
    answer = nobody.get(urljoin("/api/v1/docs", target))
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/html; charset=UTF-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none';")
    assert b"Invokes an action" in answer.body
