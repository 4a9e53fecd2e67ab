"""Managed endpoints of the gateway over the wire: routing, requests, CORS, keys, limits."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.system.conftest import GUEST, Api

from visp.client import running
from visp.entity.subject import GUEST_UUID

ECHO = """
def main(args):
    headers = {'Access-Control-Allow-Origin': 'mine', 'X-Own': '1'}
    return {'statusCode': 203, 'headers': headers, 'body': args}
"""
PLAIN = "def main(args):\n    return args"
FAILING = "def main(args):\n    return {'statusCode': 503, 'body': 'mine'}"
STREAMED = """
def main(args):
    yield {'statusCode': 201}
    yield 'a'
    yield 'b'
"""
WEB = "http://elsewhere:1/api/v1/web/guest/default"
APIMGMT = "/api/v1/web/whisk.system/apimgmt"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
NOT_FOUND = {"status": 404, "message": "Error: Not found."}


@pytest.fixture(scope="module", autouse=True)
def actions(server: running.Server) -> Iterator[None]:
    """Other modules use the same server: they find no API of these."""
    api = Api(server.url)
    exported = [{"key": "web-export", "value": True}]
    for name, code in (("gw-echo", ECHO), ("gw-plain", PLAIN), ("gw-failing", FAILING), ("gw-streamed", STREAMED)):
        api.action(name, code, "python:3.11", annotations=exported)
    secured = [*exported, {"key": "require-whisk-auth", "value": "open sesame"}]
    api.action("gw-secured", PLAIN, "python:3.11", annotations=secured)
    api.action("gw-closed", PLAIN, "python:3.11")
    yield
    for one in api.get(f"{APIMGMT}/getApi.http").json["apis"]:
        api.delete(f"{APIMGMT}/deleteApi.http?basepath={quote(one['value']['apidoc']['basePath'])}")


class Clients:
    """What `wsk api create` does, and calls of what it made."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.api = Api(url)
        self.anyone = Api(url, None)

    def create(self, base: str, path: str, verb: str, action: str, kind: str = "json", **action_fields: Any) -> str:
        """Adds an operation; the URL that is printed."""
        backend = {
            "name": action,
            "namespace": "_",
            "backendMethod": verb,
            "backendUrl": f"{self.url}/api/v1/web/_/default/{action}.http",
            "authkey": GUEST,
        }
        document = {
            "namespace": "_",
            "gatewayBasePath": base,
            "gatewayPath": path,
            "gatewayMethod": verb,
            "id": f"API:_:{base}",
            "action": backend | action_fields,
        }
        if "{" in path:
            names = [piece.partition("}")[0] for piece in path.split("{")[1:]]
            document["pathParameters"] = [
                {"name": name, "in": "path", "required": True, "type": "string", "description": ""} for name in names
            ]
        query = f"?accesstoken=DUMMY%20TOKEN&responsetype={kind}&spaceguid={GUEST_UUID}"
        answer = self.api.request("POST", f"{APIMGMT}/createApi.http{query}", {"apidoc": document})
        assert answer.status == 200, answer
        return str(answer.json["gwApiUrl"]).removeprefix(self.url).rstrip("/") + path

    def load(self, base: str, operations: dict[str, dict[str, Any]], **fields: Any) -> str:
        """An API of a document; operations by path and verb say `target`, and what is beside it."""
        paths: dict[str, Any] = {}
        cases = []
        for place, told in operations.items():
            verb, path = place.split()
            id = f"{verb}{path}"
            own = {name: value for name, value in told.items() if name not in ("target", "verb", "steps")}
            paths.setdefault(path, {})[verb.lower()] = {"operationId": id, "responses": {}} | own
            if "target" in told:
                invoke = {"invoke": {"target-url": told["target"], "verb": told.get("verb", "keep")}}
                cases.append({"operations": [id], "execute": [invoke, *told.get("steps", ())]})
        assembly = {"execute": [{"operation-switch": {"case": cases}}]}
        document = {
            "swagger": "2.0",
            "info": {"title": base, "version": "1.0.0"},
            "basePath": base,
            "paths": paths,
            "x-ibm-configuration": {"assembly": assembly} | fields.pop("configuration", {}),
        }
        body = {"apidoc": {"namespace": "_", "swagger": document | fields}}
        answer = self.api.request("POST", f"{APIMGMT}/createApi.http", body)
        assert answer.status == 200, answer
        return str(answer.json["gwApiUrl"]).removeprefix(self.url).rstrip("/")

    def delete(self, base: str) -> None:
        answer = self.api.request("DELETE", f"{APIMGMT}/deleteApi.http?basepath={quote(base)}")
        assert answer.status == 200, answer

    def subscribe(self, base: str, client: str, secret: str | None = None) -> None:
        body = {"artifact_id": base, "client_id": client} | ({} if secret is None else {"client_secret": secret})
        answer = self.api.request("POST", "/v2/_/subscriptions", body)
        assert answer.json == {"message": f"Subscription '{client}' created for API '{base}'"}


@pytest.fixture
def clients(server: running.Server) -> Clients:
    return Clients(server.url)


# ── routing and requests ────────────────────────────────────────────────────────────────────────────────────────


def test_created_and_called(clients: Clients) -> None:
    url = clients.create("/hello", "/world", "GET", "gw-plain")
    assert url == "/gw/guest/hello/world"
    answer = clients.anyone.get(f"{url}?name=x")
    assert answer.status == 200
    assert answer.json["name"] == "x"
    assert answer.json["__ow_path"] == ""
    assert clients.create("/hello", "/world", "GET", "gw-echo", "http") == url
    answer = clients.anyone.get(f"{url}?name=y")
    assert (answer.status, answer.headers["x-own"]) == (203, "1")
    assert answer.json["name"] == "y"
    assert answer.json["__ow_path"] == "/hello/world"
    assert "x-openwhisk-activation-id" in answer.headers


def test_both_addresses_answer(clients: Clients) -> None:
    clients.create("/both", "/x", "GET", "gw-plain")
    assert clients.anyone.get("/gw/guest/both/x").status == 200
    assert clients.anyone.get(f"/api/{GUEST_UUID}/both/x").status == 200
    assert clients.anyone.get("/api/guest/both/x").status == 405
    assert clients.anyone.get("/api/v1").json["description"] == "OpenWhisk API"


def test_paths_with_parameters(clients: Clients) -> None:
    for verb in ("GET", "DELETE"):
        clients.create("/club", "/books/{isbn}", verb, "gw-echo", "http")
    clients.create("/club", "/books", "GET", "gw-echo", "http")
    for verb, path in (
        ("GET", "/club/books/978-0596517748"),
        ("DELETE", "/club/books/a%20b/c"),
        ("GET", "/club/books"),
    ):
        answer = clients.anyone.request(verb, f"/gw/guest{path}")
        assert answer.status == 203, answer
        assert (answer.json["__ow_path"], answer.json["__ow_method"]) == (path, verb.lower())
    assert clients.anyone.request("PUT", "/gw/guest/club/books/1").json == {
        "status": 404,
        "message": "Error: Whoops. Verb not supported.",
    }


def test_what_follows_a_path_goes_on(clients: Clients) -> None:
    url = clients.create("/rest", "/x", "GET", "gw-plain")
    assert clients.anyone.get(f"{url}/more/of%20it").json["__ow_path"] == "/more/of%20it"


@pytest.mark.parametrize(
    "path", ["/gw/guest/none", "/gw/guest", "/gw/nobody/x", "/gw/", f"/api/{UNKNOWN}/x", f"/api/{GUEST_UUID}", "/gw//x"]
)
def test_what_is_not_there(clients: Clients, path: str) -> None:
    answer = clients.anyone.get(path)
    assert (answer.status, answer.json) == (404, NOT_FOUND)
    assert answer.headers["x-request-id"]


def test_a_deleted_api_is_gone_at_once(clients: Clients) -> None:
    url = clients.create("/soon gone", "/x", "GET", "gw-plain").replace(" ", "%20")
    assert clients.anyone.get(url).status == 200
    clients.delete("/soon gone")
    assert clients.anyone.get(url).json == NOT_FOUND


def test_the_request_as_the_action_sees_it(clients: Clients) -> None:
    url = clients.create("/seen", "/x", "POST", "gw-plain")
    sent = {"X-Request-ID": "mine-1", "X-Forwarded-For": "6.6.6.6", "X-Own": "v", "Content-Type": "application/json"}
    answer = clients.anyone.request("POST", f"{url}?a=1", {"b": [1.0, 10**20]}, sent)
    headers = answer.json["__ow_headers"]
    host = clients.url.removeprefix("http://")
    assert answer.headers["x-request-id"] == headers["x-request-id"] == "mine-1"
    assert headers["x-forwarded-url"] == f"{clients.url}{url}?a=1"
    assert (headers["x-forwarded-host"], headers["x-forwarded-port"]) == (host, host.partition(":")[2])
    assert (headers["x-forwarded-for"], headers["x-real-ip"]) == ("127.0.0.1", "127.0.0.1")
    assert (headers["x-forwarded-proto"], headers["x-own"]) == ("http", "v")
    assert (answer.json["a"], answer.json["b"]) == ("1", [1.0, 10**20])


def test_mapping_and_verbs(clients: Clients) -> None:
    variables = [
        {"set": "message.headers.X-Set", "value": 7},
        {"set": "message.query.q", "value": "set"},
        {"set": "message.body.b", "value": True},
    ]
    target = {"target": f"{WEB}/gw-plain.json", "verb": "put", "steps": [{"set-variable": {"actions": variables}}]}
    url = clients.load("/mapped", {"POST /x": target})
    answer = clients.anyone.request("POST", f"{url}/x?q=given&r=2", {"a": 1})
    seen = answer.json
    assert seen["__ow_headers"]["x-set"] == "7"
    assert {name: seen[name] for name in ("__ow_method", "q", "r", "a", "b")} == {
        "__ow_method": "put",
        "q": "set",
        "r": "2",
        "a": 1,
        "b": True,
    }


def test_a_secured_action_is_called_without_knowing_its_secret(clients: Clients) -> None:
    url = clients.create("/secured", "/x", "GET", "gw-secured", secureKey="open sesame")
    other = clients.create("/secured", "/y", "GET", "gw-secured")
    assert clients.anyone.get("/api/v1/web/guest/default/gw-secured.json").status == 401
    assert clients.anyone.get(url).status == 200
    assert clients.anyone.request("GET", url, headers={"X-Require-Whisk-Auth": "wrong"}).status == 200
    assert clients.anyone.get(other).status == 401


def test_failures(clients: Clients) -> None:
    operations = {
        "GET /none": {},
        "GET /elsewhere": {"target": "http://127.0.0.1:1/other"},
        "GET /gone": {"target": f"{WEB}/gw-gone.json"},
        "GET /closed": {"target": f"{WEB}/gw-closed.json"},
        "GET /failing": {"target": f"{WEB}/gw-failing.http"},
    }
    url = clients.load("/failures", operations)
    for path, code in (("/none", 500), ("/elsewhere", 502)):
        answer = clients.anyone.get(url + path)
        message = "Oops. Something went wrong. Check your URI and try again."
        assert (answer.status, answer.json) == (500, {"code": code, "message": message})
        assert {"x-request-id", "x-gateway-host"} <= answer.headers.keys()
    assert clients.anyone.get(f"{url}/gone").status == 404
    assert clients.anyone.get(f"{url}/closed").status == 404
    answer = clients.anyone.get(f"{url}/failing")
    assert (answer.status, answer.body) == (503, b"mine")


def test_a_body_may_have_five_mebibytes(clients: Clients) -> None:
    url = clients.create("/body", "/x", "POST", "gw-plain")
    answer = clients.anyone.request("POST", url, b"x" * (5 * 1024 * 1024 + 1))
    assert answer.status == 413
    assert answer.json["status"] == 413
    assert "5242880" in answer.json["message"]


def test_results_in_parts(clients: Clients) -> None:
    url = clients.create("/parts", "/x", "GET", "gw-streamed", "http")
    answer = clients.anyone.get(url)
    assert (answer.status, answer.body) == (201, b"ab")
    assert answer.headers["access-control-allow-credentials"] == "true"


# ── from memory ─────────────────────────────────────────────────────────────────────────────────────────────────

KEYED = {"securityDefinitions": {"k": {"type": "apiKey", "name": "X-Key"}}}
SECRET = {"securityDefinitions": {"client_id": {"name": "X-Id"}, "client_secret": {"name": "X-Secret"}}}
INSERTED = {"set-variable": {"actions": [{"set": "message.headers.X-Require-Whisk-Auth", "value": "open sesame"}]}}
TO_BODY = {"action": "insert", "from": {"location": "query", "name": "q"}, "to": {"location": "body", "name": "moved"}}
CALLED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"target": f"{WEB}/gw-plain.json"}, {}),
    "whole answers": ({"target": f"{WEB}/gw-echo.http"}, {}),
    "the path goes on": ({"target": f"{WEB}/gw-echo.http$(request.path)"}, {}),
    "no cors": ({"target": f"{WEB}/gw-echo.http"}, {"configuration": {"cors": {"enabled": False}}}),
    "cors": ({"target": f"{WEB}/gw-echo.http"}, {"configuration": {"cors": {"enabled": True}}}),
    "in parts": ({"target": f"{WEB}/gw-streamed.http"}, {"configuration": {"cors": {"enabled": True}}}),
    "failing": ({"target": f"{WEB}/gw-failing.http"}, {}),
    "not of the type": ({"target": f"{WEB}/gw-plain.svg"}, {}),
    "secured": ({"target": f"{WEB}/gw-secured.json", "steps": [INSERTED]}, {}),
    "secret not known": ({"target": f"{WEB}/gw-secured.json"}, {}),
    "another verb": ({"target": f"{WEB}/gw-plain.json", "verb": "put"}, {}),
    "mapped": ({"target": f"{WEB}/gw-plain.json", "x-visp-mapping": [TO_BODY]}, {}),
    "a key": ({"target": f"{WEB}/gw-plain.json"}, KEYED),
    "a secret": ({"target": f"{WEB}/gw-plain.json"}, SECRET),
    "a limit": ({"target": f"{WEB}/gw-plain.json", "x-visp-quota": {"rate": 10**6, "unit": "day"}}, KEYED),
    "used up": ({"target": f"{WEB}/gw-plain.json", "x-visp-quota": {"rate": 0, "unit": "day"}}, KEYED),
}


def content(body: bytes) -> Any:
    """What an answer says, but for the mark that led a request through the application."""
    try:
        said = json.loads(body)
    except ValueError:
        return body
    if isinstance(said, dict):
        said.get("__ow_headers", {}).pop("x-ow-extra-logging", None)
    return said


@pytest.mark.parametrize("case", CALLED)
def test_calls_from_memory_are_as_those_through_the_application(clients: Clients, case: str) -> None:
    operation, fields = CALLED[case]
    base = f"/memory-{case.replace(' ', '-')}"
    url = clients.load(base, {"POST /x": operation}, **fields)
    if "securityDefinitions" in fields:
        clients.subscribe(base, "me", "my secret")
    sent = {"X-Key": "me", "X-Id": "me", "X-Secret": "my secret", "Origin": "http://page", "X-Request-ID": "mine-2"}
    through = {"X-OW-EXTRA-LOGGING": "on"}
    made = []
    for more in (through, {}, through, {}):
        answer = clients.anyone.request("POST", f"{url}/x/1%20a?q=1&r=2", {"b": [1.0]}, sent | more)
        for name in ("date", "x-openwhisk-activation-id", "content-length"):
            answer.headers.pop(name, None)
        made.append((answer.status, answer.headers, content(answer.body)))
    statuses = {"failing": 503, "not of the type": 400, "secret not known": 401, "used up": 429}
    assert [status for status, _, _ in made] == 4 * [made[0][0]]
    assert case not in statuses or made[0][0] == statuses[case]
    assert made[1] == made[3] == made[0]


def test_a_client_that_is_dropped_is_refused_at_once(clients: Clients) -> None:
    url = clients.load("/dropped", {"GET /x": {"target": f"{WEB}/gw-plain.json"}}, **KEYED)
    clients.subscribe("/dropped", "me")

    def call() -> int:
        return clients.anyone.request("GET", f"{url}/x", headers={"X-Key": "me"}).status

    assert [call() for _ in range(3)] == [200, 200, 200]
    assert clients.api.delete("/v2/_/subscriptions/me?artifact_id=/dropped").status == 204
    assert call() == 401
    clients.subscribe("/dropped", "me")
    assert [call() for _ in range(2)] == [200, 200]


# ── CORS ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cors_is_the_gateways(clients: Clients) -> None:
    url = clients.create("/cors", "/x", "GET", "gw-echo", "http")
    asked = {"Origin": "http://page", "Access-Control-Request-Headers": "X-A, X-B"}
    answer = clients.anyone.request("OPTIONS", url, headers=asked)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["access-control-allow-headers"] == "X-A, X-B"
    for made in (answer, clients.anyone.request("GET", url, headers={"Origin": "http://page"})):
        assert made.headers["access-control-allow-origin"] == "http://page"
        assert made.headers["access-control-allow-methods"] == "GET, POST, PUT, DELETE, PATCH, HEAD, OPTIONS"
        assert made.headers["access-control-allow-credentials"] == "true"
    assert clients.anyone.get(url).headers["access-control-allow-origin"] == "*"


def test_cors_disabled_and_not_said(clients: Clients) -> None:
    operations = {"GET /x": {"target": f"{WEB}/gw-echo.http"}}
    url = clients.load("/nocors", operations, configuration={"cors": {"enabled": False}})
    answer = clients.anyone.get(f"{url}/x")
    assert answer.status == 203
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert clients.anyone.request("OPTIONS", f"{url}/x").status == 404
    url = clients.load("/unsaid", operations)
    assert "mine" in clients.anyone.get(f"{url}/x").headers["access-control-allow-origin"]


# ── who may call, and how often ─────────────────────────────────────────────────────────────────────────────────

OPERATION = {"GET /x": {"target": f"{WEB}/gw-plain.json"}}
UNAUTHORIZED = {"status": 401, "message": "Error: Unauthorized"}


def test_api_keys(clients: Clients) -> None:
    definitions = {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}}
    url = clients.load("/keyed", OPERATION, securityDefinitions=definitions, configuration={"cors": {"enabled": True}})
    call = clients.anyone.request
    assert call("OPTIONS", f"{url}/x").status == 200
    for headers in ({}, {"X-Key": "wrong"}, {"X-Key": ""}):
        answer = call("GET", f"{url}/x", headers=headers)
        assert (answer.status, answer.json) == (401, UNAUTHORIZED)
        assert answer.headers["access-control-allow-origin"] == "*"
    assert call("PUT", f"{url}/x").status == 401
    clients.subscribe("/keyed", "key one")
    assert call("GET", f"{url}/x", headers={"X-Key": "key one"}).status == 200
    assert call("GET", f"{url}/x?x-key=key%20one").status == 200
    listed = clients.api.get("/v2/_/subscriptions?artifact_id=/keyed")
    assert (listed.status, listed.json) == (200, ["key one"])
    dropped = clients.api.delete("/v2/guest/subscriptions/key%20one?artifact_id=/keyed")
    assert (dropped.status, dropped.body) == (204, b"")
    assert call("GET", f"{url}/x", headers={"X-Key": "key one"}).status == 401


def test_clients_with_secrets(clients: Clients) -> None:
    definitions = {
        "client_id": {"type": "apiKey", "in": "header", "name": "X-Client-ID"},
        "client_secret": {"type": "apiKey", "in": "header", "name": "X-Client-Secret"},
    }
    url = clients.load("/secret", OPERATION, securityDefinitions=definitions)
    clients.subscribe("/secret", "one", "s1")
    clients.subscribe("/secret", "keyless")

    def call(**headers: str) -> tuple[int, str]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = clients.anyone.request("GET", f"{url}/x", headers=sent)
        return answer.status, answer.json.get("message", "")

    assert call() == (401, "Error: x-client-id required")
    assert call(x_client_id="one") == (401, "Error: x-client-secret required")
    mismatch = (401, "Error: Secret mismatch or not subscribed to this api.")
    assert call(x_client_id="one", x_client_secret="s2") == mismatch
    assert call(x_client_id="two", x_client_secret="s1") == mismatch
    assert call(x_client_id="keyless", x_client_secret="") == (401, "Error: x-client-secret required")
    assert call(x_client_id="keyless", x_client_secret="s1") == mismatch
    assert call(x_client_id="one", x_client_secret="s1") == (200, "")


def test_a_new_api_begins_without_clients(clients: Clients) -> None:
    definitions = {"key": {"type": "apiKey"}}
    url = clients.load("/again", OPERATION, securityDefinitions=definitions)
    clients.subscribe("/again", "old")
    clients.load("/again", OPERATION, securityDefinitions=definitions)
    assert clients.anyone.request("GET", f"{url}/x", headers={"X-API-Key": "old"}).status == 200
    clients.delete("/again")
    clients.load("/again", OPERATION, securityDefinitions=definitions)
    assert clients.anyone.request("GET", f"{url}/x", headers={"X-API-Key": "old"}).status == 401


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/v2/_/subscriptions", None, 400, "Error: Missing artifact_id"),
        ("GET", "/v2/_/subscriptions?artifact_id=/none", None, 404, "Error: Unknown API id /none"),
        ("DELETE", "/v2/_/subscriptions/a", None, 400, "Error: Missing artifact_id"),
        ("DELETE", "/v2/_/subscriptions/a?artifact_id=/none", None, 404, "Error: Subscription doesn't exist"),
        ("POST", "/v2/_/subscriptions", {}, 400, "Error: Missing field 'artifact_id' in request body."),
        ("PUT", "/v2/_/subscriptions", {"artifact_id": "/a"}, 400, "Error: Missing field 'client_id' in request body."),
    ],
)
def test_wrong_subscriptions(clients: Clients, method: str, path: str, body: Any, status: int, message: str) -> None:
    answer = clients.api.request(method, path, body)
    assert (answer.status, answer.json) == (status, {"status": status, "message": message})


def test_subscriptions_are_their_owners(clients: Clients) -> None:
    assert clients.anyone.get("/v2/_/subscriptions?artifact_id=/x").status == 401
    assert clients.api.get("/v2/whisk.system/subscriptions?artifact_id=/x").status == 403


def test_the_pace_of_calls(clients: Clients) -> None:
    limits = {
        "x-ibm-rate-limit": [{"unit": "hour", "units": 1, "rate": 1}],
        "securityDefinitions": {"k": {"type": "apiKey"}},
    }
    url = clients.load("/paced", OPERATION, **limits)
    for client in ("one", "two"):
        clients.subscribe("/paced", client)
        assert clients.anyone.request("GET", f"{url}/x", headers={"X-API-Key": client}).status == 200
        answer = clients.anyone.request("GET", f"{url}/x", headers={"X-API-Key": client})
        assert (answer.status, answer.json) == (429, {"status": 429, "message": "Error: Rate limit exceeded"})
        assert 0 < int(answer.headers["retry-after"]) <= 3600


def test_quotas_by_key_and_by_route(clients: Clients) -> None:
    operations = {
        "GET /x": OPERATION["GET /x"] | {"x-visp-quota": {"rate": 2, "unit": "day", "by": "key"}},
        "GET /y": OPERATION["GET /x"] | {"x-visp-quota": {"rate": 1, "unit": "day"}},
    }
    url = clients.load("/quotas", operations, securityDefinitions={"k": {"type": "apiKey"}})

    def call(path: str, client: str) -> int:
        return clients.anyone.request("GET", f"{url}{path}", headers={"X-API-Key": client}).status

    for client in ("one", "two"):
        clients.subscribe("/quotas", client)
    assert [call("/x", "one") for _ in range(3)] == [200, 200, 429]
    assert call("/x", "two") == 200
    assert [call("/y", client) for client in ("one", "two")] == [200, 429]


# ── answers that are kept, and other targets ────────────────────────────────────────────────────────────────────


def test_answers_are_kept_where_that_is_asked(clients: Clients) -> None:
    target = {"target": f"{WEB}/gw-plain.json"}
    operations = {
        "GET /kept": target | {"x-visp-cache": {"seconds": 600}},
        "GET /own": target | {"x-visp-cache": {"seconds": 600, "by": "credentials"}},
    }
    url = clients.load("/keeping", operations)

    def activation(path: str, **headers: str) -> str:
        answer = clients.anyone.request("GET", url + path, headers=headers)
        assert answer.status == 200, answer
        return answer.headers["x-openwhisk-activation-id"]

    first = activation("/kept")
    assert activation("/kept") == first
    assert activation("/kept?a=1") != first
    assert len({activation("/kept", Cookie="a=1"), activation("/kept", Cookie="a=1"), first}) == 3
    mine = activation("/own", Cookie="a=1")
    assert activation("/own", Cookie="a=1") == mine
    assert activation("/own", Cookie="a=2") != mine
    clients.load("/keeping", operations)
    assert activation("/kept") != first


def test_a_part_of_the_calls_goes_to_another_action(clients: Clients) -> None:
    def told(percent: int) -> dict[str, Any]:
        split = {"target-url": f"{WEB}/gw-failing.http", "percent": percent}
        return {"target": f"{WEB}/gw-plain.json", "x-visp-split": split}

    url = clients.load("/split", {"GET /none": told(0), "GET /all": told(100), "GET /half": told(50)})
    assert {clients.anyone.get(f"{url}/none").status for _ in range(3)} == {200}
    assert {clients.anyone.get(f"{url}/all").status for _ in range(3)} == {503}
    assert {clients.anyone.get(f"{url}/half").status for _ in range(40)} == {200, 503}


# ── what is shown of an API ─────────────────────────────────────────────────────────────────────────────────────


def test_a_page_and_a_document(clients: Clients) -> None:
    hidden = [{"set-variable": {"actions": [{"set": "message.headers.X-Require-Whisk-Auth", "value": "hidden"}]}}]
    operations = {"GET /x": {"target": f"{WEB}/gw-plain.json", "steps": hidden, "summary": "<b>bold</b>"}}
    url = clients.load("/shown api", operations, securityDefinitions={"k": {"type": "apiKey"}})
    assert url == "/gw/guest/shown%20api"
    page = clients.anyone.get(f"{url}/docs")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=UTF-8")
    assert "script-src 'sha256-" in page.headers["content-security-policy"]
    assert b"&lt;b&gt;bold" in page.body
    document = clients.anyone.get(f"{url}/openapi.json")
    assert document.json["openapi"] == "3.1.0"
    assert document.json["servers"] == [{"url": url}]
    assert list(document.json["paths"]) == ["/x"]
    for answer in (page, document):
        assert b"hidden" not in answer.body
        assert b"gw-plain" not in answer.body
    assert clients.anyone.get(f"/api/{GUEST_UUID}/shown%20api/docs").status == 404
    clients.load("/shown api", operations, **{"x-visp-docs": False})
    assert clients.anyone.get(f"{url}/docs").status == 404


def test_an_apis_own_paths_come_before_its_page(clients: Clients) -> None:
    url = clients.load("/owndocs", {"GET /docs": OPERATION["GET /x"]})
    assert clients.anyone.get(f"{url}/docs").json["__ow_method"] == "get"
    url = clients.load("/prefixed", {"GET /": OPERATION["GET /x"]})
    assert clients.anyone.get(f"{url}/docs").headers["content-type"] == "text/html; charset=UTF-8"
    assert clients.anyone.get(f"{url}/other").json["__ow_path"] == "/other"


LABELS = ("2xx", "4xx", "key", "quota")


def test_calls_are_counted(clients: Clients) -> None:
    def counted() -> dict[str, float]:
        """By class of status, and by reason of a refusal: of all APIs, for not each has a label."""
        found: dict[str, float] = {}
        for line in clients.anyone.get("/metrics").body.decode().splitlines():
            if line.startswith(("visp_gateway_calls_total{", "visp_gateway_refusals_total{")):
                label = next((word for word in line.split('"')[1::2] if word in LABELS), "")
                found[label] = found.get(label, 0) + float(line.rpartition(" ")[2])
        return found

    told = {"target": f"{WEB}/gw-plain.json", "x-visp-quota": {"rate": 1, "unit": "day"}}
    url = clients.load("/counted", {"GET /x": told}, securityDefinitions={"key": {"type": "apiKey", "name": "X-Key"}})
    clients.subscribe("/counted", "k")
    before = counted()
    statuses = [clients.anyone.request("GET", f"{url}/x", headers={"X-Key": key}).status for key in ("wrong", "k", "k")]
    assert statuses == [401, 200, 429]
    after = counted()
    more = {label: after[label] - before.get(label, 0) for label in LABELS}
    assert more == {"2xx": 1, "4xx": 2, "key": 1, "quota": 1}


# ── bearer tokens ───────────────────────────────────────────────────────────────────────────────────────────────

KEY = ec.generate_private_key(ec.SECP256R1())


@contextlib.contextmanager
def issuing() -> Iterator[str]:
    """The address of an issuer's keys."""

    class Keys(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            key = dict(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)) | {"kid": "1"}
            body = json.dumps({"keys": [key]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys) as issuer:
        threading.Thread(target=issuer.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{issuer.server_port}/keys"
        issuer.shutdown()


def bearer(**claims: Any) -> dict[str, str]:
    told = {"iss": "me", "aud": "api", "exp": time.time() + 600, "scope": "read", "sub": "you", "email": "a@b"} | claims
    return {"Authorization": "Bearer " + jwt.encode(told, KEY, "ES256", {"kid": "1"})}


def scheme(url: str) -> dict[str, Any]:
    rule = {"issuer": "me", "audience": "api", "scopes": ["read"], "jwksUri": url}
    return {"mine": {"type": "oauth2", "flow": "implicit", "authorizationUrl": "http://a", "x-visp-token": rule}}


def test_bearer_tokens() -> None:
    with running.running({"hooks.reach": "any"}) as server, issuing() as url:
        clients = Clients(server.url)
        exported = [{"key": "web-export", "value": True}]
        clients.api.action("gw-plain", PLAIN, "python:3.11", annotations=exported)
        api = clients.load("/tokens", OPERATION, securityDefinitions=scheme(url))

        def call(headers: dict[str, str]) -> Any:
            answer = clients.anyone.request("GET", f"{api}/x", headers=headers)
            return answer.json["__ow_headers"] if answer.status == 200 else (answer.status, answer.json["message"])

        seen = call(bearer() | {"X-OIDC-Sub": "forged", "X-OIDC-Scope": "all"})
        assert [seen[f"x-oidc-{name}"] for name in ("sub", "email", "scope")] == ["you", "a@b", "read"]
        assert call({}) == (401, "Error: No Authorization header provided")
        refused = (401, "Error: Token didn't work or provider doesn't support OpenID connect. ")
        assert call({"Authorization": "Basic YTpi"}) == refused
        assert call(bearer(aud="other")) == refused
        assert call(bearer(scope="write")) == refused
        assert call(bearer(exp=time.time() - 60)) == (401, "Error: The access token has expired.")
        token = bearer()["Authorization"]
        forged = token[:-8] + ("AAAAAAAA" if token[-8:] != "AAAAAAAA" else "BBBBBBBB")
        assert call({"Authorization": forged}) == (401, "Error: The token signature did not match any known JWK.")


def test_a_document_cannot_have_this_machine_asked(clients: Clients) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        api = clients.load(
            "/inside", OPERATION, securityDefinitions=scheme(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        )
        assert clients.anyone.request("GET", f"{api}/x", headers=bearer()).status == 401
        with pytest.raises(BlockingIOError):
            listener.accept()
