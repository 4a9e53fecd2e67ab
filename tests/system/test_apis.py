"""The management of APIs over the wire, as `wsk api` and deployment tools send it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.system.conftest import GUEST, Answer, Api
from tests.system.places import TRUSTING, Place, opened

from visp.client import running
from visp.entity.subject import GUEST_UUID

WEB = "/api/v1/web/whisk.system/apimgmt"
TENANT = {"accesstoken": "DUMMY TOKEN", "spaceguid": GUEST_UUID}
PARAMETER = {
    "name": "isbn",
    "in": "path",
    "required": True,
    "type": "string",
    "description": "Default description for 'isbn'",
}


class Apis:
    """`wsk api` with one key."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def create(self, apidoc: Any, response_type: str = "json") -> Answer:
        query = urlencode(TENANT | {"responsetype": response_type})
        return self.api.request("POST", f"{WEB}/createApi.http?{query}", {"apidoc": apidoc})

    def add(
        self, base_path: str, path: str, verb: str, action: str, response_type: str = "json", **more: Any
    ) -> Answer:
        """`wsk api create BASE_PATH PATH VERB ACTION`."""
        package, _, name = action.rpartition("/")
        url = f"{self.api.url}/api/v1/web/_/{package or 'default'}/{name}.http"
        found = {"name": action, "namespace": "_", "backendMethod": verb, "backendUrl": url, "authkey": self.api.auth}
        apidoc = {
            "namespace": "_",
            "gatewayBasePath": base_path,
            "gatewayPath": path,
            "gatewayMethod": verb,
            "id": f"API:_:{base_path}",
            "action": found | more.pop("action_fields", {}),
        }
        return self.create(apidoc | more, response_type)

    def swagger(self, document: Any) -> Answer:
        """`wsk api create --config-file`."""
        return self.create({"namespace": "_", "swagger": json.dumps(document)})

    def get(self, **query: str) -> Answer:
        return self.api.get(f"{WEB}/getApi.http?{urlencode(query | TENANT)}")

    def found(self, **query: str) -> list[Any]:
        """What `wsk api get` and `list` print from."""
        answer = self.get(**query)
        assert answer.status == 200, answer
        for entry in answer.json["apis"]:
            for path, operations in entry["value"]["apidoc"]["paths"].items():
                for verb, operation in operations.items():
                    action = operation.get("x-openwhisk") if isinstance(operation, dict) else None
                    if action is not None:  # what the Go client insists on
                        told = (operation["operationId"], action["namespace"], action["action"], action["url"])
                        assert all(told), (path, verb)
        return [entry["value"] for entry in answer.json["apis"]]

    def delete(self, base_path: str, path: str = "", verb: str = "") -> Answer:
        query = {"basepath": base_path, "relpath": path, "operation": verb}
        return self.api.delete(f"{WEB}/deleteApi.http?{urlencode({k: v for k, v in query.items() if v} | TENANT)}")


@pytest.fixture
def apis(server: running.Server) -> Iterator[Apis]:
    apis = Apis(Api(server.url))
    yield apis
    for api in apis.found():
        apis.delete(api["apidoc"]["basePath"])


def refused(answer: Answer, text: str) -> None:
    assert (answer.status, answer.headers["content-type"]) == (502, "application/json"), answer
    assert answer.json == {"error": text}


def test_create(apis: Apis) -> None:
    answer = apis.add("/hello", "/world", "GET", "hello")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.body.startswith(b'{\n  "namespace": "Not Used",\n  "gwApiActivated": true,\n')
    made = answer.json
    assert made["gwApiUrl"] == f"{apis.api.url}/gw/guest/hello"
    operation = made["apidoc"]["paths"]["/world"]["get"]
    assert operation["operationId"] == "getWorld"
    assert operation["x-openwhisk"] == {
        "url": f"{apis.api.url}/api/v1/web/guest/default/hello.json",
        "namespace": "guest",
        "package": "",
        "action": "hello",
    }
    assert apis.get(basepath="/hello").json == {"apis": [{"id": "Not Used", "key": "Not Used", "value": made}]}


def test_book_club(apis: Apis) -> None:
    """OpenWhisk's own example: five operations of one API."""
    path = "/books/{isbn}"
    club = {"apiName": "Book Club"}
    assert apis.add("/club", "/books", "GET", "books", "http", **club).status == 200
    assert apis.add("/club", "/books", "POST", "books", "http", apiName="Other").status == 200
    for verb in ("GET", "PUT", "DELETE"):
        assert apis.add("/club", path, verb, "book", "http", pathParameters=[PARAMETER]).status == 200
    (api,) = apis.found(limit="30", skip="0")
    assert api["apidoc"]["info"]["title"] == "Book Club"
    assert sum(map(len, api["apidoc"]["paths"].values())) == 5
    assert apis.found(basepath="Book Club") == [api]
    assert apis.found(basepath="/club", relpath="/nothing", operation="GET") == [api]  # the client filters
    assert apis.add("Book Club", "/books", "PATCH", "books").status == 200
    assert set(apis.found()[0]["apidoc"]["paths"]["/books"]) == {"get", "post", "patch"}
    refused(
        apis.add("/club", path, "PATCH", "book", "json", pathParameters=[PARAMETER]),
        "API creation failure: The action must use a response type of '.http' in order to receive the path parameters.",
    )


def test_delete(apis: Apis) -> None:
    for path, verb in (("/a", "GET"), ("/a", "PUT"), ("/b", "GET")):
        apis.add("/gone", path, verb, "x", apiName="Gone API")
    answer = apis.delete("/gone", "/a", "GET")
    assert (answer.status, answer.json, answer.headers["content-type"]) == (200, {}, "application/json")
    refused(
        apis.delete("/gone", "/a", "GET"),
        "API deletion failure: path '/a' with operation 'get' does not exist in the API",
    )
    refused(apis.delete("/gone", "/c"), "API deletion failure: path '/c' does not exist in the API")
    refused(apis.delete("/gone", verb="GET"), "When specifying an operation, the path is required.")
    refused(apis.delete(""), "basepath is required.")
    assert apis.delete("Gone API", "/a").json == {}
    assert apis.delete("/gone", "/b", "get").json == {}
    refused(apis.delete("/gone"), "API deletion failure: API '/gone' does not exist.")
    assert apis.found() == []


@pytest.mark.parametrize("name", ["/back", "My API"])
def test_what_was_shown_makes_it_again(apis: Apis, name: str) -> None:
    apis.add("/back", "/a b/{isbn}", "PUT", "kit/put", "http", apiName="My API", pathParameters=[PARAMETER])
    (before,) = apis.found(basepath=name)
    apis.delete(name)
    assert apis.found() == []
    assert apis.swagger(before["apidoc"]).json == before
    assert apis.found(basepath=name) == [before]


def test_openapi_comes_and_goes(apis: Apis) -> None:
    action = {"namespace": "guest", "package": "kit", "action": "put"}
    given = {
        "openapi": "3.1.0",
        "info": {"title": "Shop", "version": "1"},
        "servers": [{"url": "/shop"}],
        "paths": {"/items": {"get": {"x-openwhisk": action, "responses": {"200": {"description": "All."}}}}},
    }
    made = apis.swagger(given).json["apidoc"]
    assert (made["swagger"], made["basePath"]) == ("2.0", "/shop")
    (shown,) = apis.found(basepath="/shop", format="openapi")
    assert shown["apidoc"]["openapi"] == "3.1.0"
    assert shown["apidoc"]["servers"] == [{"url": f"{apis.api.url}/gw/guest/shop"}]
    apis.delete("/shop")
    assert apis.swagger(shown["apidoc"]).json["apidoc"] == made


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"paths": {}, "info": {}}, "swagger is missing the basePath field."),
        (
            {"basePath": "/{a}", "paths": {}, "info": {}},
            "API creation failure: The base path (/{a}) cannot have parameters. Only the relative path supports path "
            "parameters.",
        ),
    ],
)
def test_documents_that_are_refused(apis: Apis, document: Any, text: str) -> None:
    refused(apis.swagger(document), text)


def test_what_the_gateway_refuses(apis: Apis) -> None:
    before = "API creation failure: Unable to configure the API Gateway (status code 400): "
    for path, verb, text in (
        ("a", "GET", "Resource path must begin with '/'."),
        ("/a", "BREW", "Resource verb 'brew' not supported."),
    ):
        refused(apis.add("/no", path, verb, "x"), f'{before}{{"status":400,"message":"Error: {text}"}}')
    assert apis.found() == []


def test_operations_without_an_action_are_taken(apis: Apis) -> None:
    document = {
        "swagger": "2.0",
        "basePath": "/bare",
        "info": {"title": "Bare", "version": "1"},
        "paths": {"/a": {"get": {"operationId": ""}, "parameters": [PARAMETER]}},
        "x-ibm-configuration": {"assembly": {"execute": []}},
    }
    assert apis.swagger(document).status == 200
    assert apis.found(basepath="/bare")[0]["apidoc"] == document


def test_pages_are_of_whole_apis(apis: Apis) -> None:
    for path in ("/p1", "/p2", "/p3"):
        apis.add(path, "/a", "GET", "x")
    paths = [
        [api["apidoc"]["basePath"] for api in apis.found(skip=skip, limit=limit)]
        for skip, limit in (("0", "30"), ("1", "1"), ("undefined", "undefined"), ("0", "0"))
    ]
    assert paths == [["/p1", "/p2", "/p3"], ["/p2"], ["/p1", "/p2", "/p3"], []]


def test_many_at_once_make_one_api(apis: Apis) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: apis.add("/many", f"/{n}", "GET", "x"), range(16)))
    assert {answer.status for answer in answers} == {200}
    assert len(apis.found(basepath="/many")[0]["apidoc"]["paths"]) == 16


# ── who may ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("auth", [None, GUEST[:-1] + "!", "a:b"])
def test_without_a_key(server: running.Server, auth: str | None) -> None:
    nobody = Apis(Api(server.url, auth))
    refused(nobody.add("/x", "/a", "GET", "x"), "A valid auth key is required.")
    refused(nobody.get(), "Invalid authentication.")
    refused(nobody.get(namespace="guest"), "Invalid authentication.")
    refused(nobody.delete("/x"), "Invalid authentication.")


def test_each_has_its_own(server: running.Server, apis: Apis) -> None:
    """Whatever tenant a request names."""
    apis.add("/mine", "/a", "GET", "x")
    other = Apis(Api(server.url, key_of(server, "whisk.system")))
    assert other.found() == []
    refused(other.delete("/mine"), "API deletion failure: API '/mine' does not exist.")
    assert other.add("/mine", "/b", "GET", "x").json["gwApiUrl"] == f"{server.url}/gw/whisk.system/mine"
    assert other.delete("/mine").status == 200
    assert list(apis.found()[0]["apidoc"]["paths"]) == ["/a"]


def key_of(server: running.Server, namespace: str) -> str:
    argv = [sys.executable, "-m", "visp", "admin", "user", "get", namespace, "--data-dir", str(server.data_dir)]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_as_web_actions(apis: Apis) -> None:
    """Extensions, methods, CORS and what is not a request's to set are as of any of them."""
    api = apis.api
    asked = api.request("OPTIONS", f"{WEB}/getApi", headers={"Access-Control-Request-Headers": "X-Mine"})
    assert (asked.status, asked.headers["access-control-allow-headers"]) == (200, "X-Mine")
    assert api.request("POST", f"{WEB}/getApi", {"limit": 5}).json == {"apis": []}
    assert api.get(f"{WEB}/getApi.json").json["body"] == {"apis": []}
    assert api.request("TRACE", f"{WEB}/getApi").status == 405
    assert api.get(f"{WEB}/getApi?__ow_user=other").status == 400
    assert api.get(f"{WEB}/noApi").status == 404
    assert api.request("POST", f"{WEB}/createApi", b"{").status == 400
    refused(api.request("POST", f"{WEB}/createApi", b""), "apidoc is required.")
    refused(
        api.request("POST", f"{WEB}/createApi", {"apidoc": "{"}),
        "apidoc field cannot be parsed. Ensure it is valid JSON.",
    )
    assert api.request("POST", f"{WEB}/createApi", {"apidoc": "x" * 1_200_000}).status == 413


def test_as_actions(server: running.Server, apis: Apis) -> None:
    """By the owner of `whisk.system`, for whatever namespace."""
    system = Api(server.url, key_of(server, "whisk.system"))

    def call(name: str, query: str = "blocking=true&result=true", **fields: Any) -> Answer:
        path = f"/api/v1/namespaces/whisk.system/actions/apimgmt/{name}?{query}"
        return system.request("POST", path, TENANT | fields)

    document = {"basePath": "/s", "info": {}, "paths": {}, "x-ibm-configuration": {"assembly": {"execute": []}}}
    made = call("createApi", __ow_user="guest", apidoc={"namespace": "_", "swagger": document})
    assert (made.status, made.json["apidoc"]) == (200, document)
    assert apis.found() == [made.json]
    assert call("getApi", __ow_user="guest").json["apis"][0]["value"] == made.json
    assert call("getApi", namespace="guest", basepath="/other").json == {"apis": []}
    refused = call("createApi", apidoc={})
    assert (refused.status, refused.json) == (502, {"error": "A valid auth key is required."})
    refused = call("deleteApi", __ow_user="guest", basepath="/no")
    assert (refused.status, refused.json) == (502, {"error": "API deletion failure: API '/no' does not exist."})
    record = call("getApi", "blocking=true", __ow_user="guest").json
    assert record["response"]["result"]["apis"][0]["value"] == made.json
    assert call("deleteApi", "", __ow_user="guest", basepath="/s").status == 202
    assert apis.found() == []
    forbidden = "/api/v1/namespaces/whisk.system/actions/apimgmt/getApi?blocking=true"
    assert apis.api.request("POST", forbidden, {"__ow_user": "guest"}).status == 403


# ── what stays ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow  # servers are started
@pytest.mark.parametrize("workers", [1, 2])
def test_apis_are_there_after_a_restart_and_on_every_shard(workers: int) -> None:
    with opened(Place) as place:
        server = place.start(*TRUSTING, workers=workers)
        apis = Apis(Api(server.url))
        for number in range(8):
            assert apis.add("/kept", f"/{number}", "GET", "x").status == 200
            for _ in range(4):  # each a connection of its own, to either shard
                assert len(apis.found(basepath="/kept")[0]["apidoc"]["paths"]) == number + 1
        server.stop()
        server = place.start(*TRUSTING, workers=workers)
        assert len(Apis(Api(server.url)).found()[0]["apidoc"]["paths"]) == 8
