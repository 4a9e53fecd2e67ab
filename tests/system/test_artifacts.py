"""The gateway's own management API over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from tests.system.conftest import Api
from tests.system.test_gateway import APIMGMT, PLAIN, WEB

from visp.client import running
from visp.entity.subject import GUEST_UUID

OTHER = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module", autouse=True)
def actions(server: running.Server) -> Iterator[None]:
    api = Api(server.url)
    api.action("gw-plain", PLAIN, "python:3.11", annotations=[{"key": "web-export", "value": True}])
    yield
    for one in api.get("/v2/_/apis").json:
        api.delete(f"/v2/_/apis/{one['artifact_id']}")


def document(base_path: str, **fields: Any) -> dict[str, Any]:
    invoke = {"invoke": {"target-url": f"{WEB}/gw-plain.json", "verb": "keep"}}
    return {
        "swagger": "2.0",
        "info": {"title": f"title of {base_path}", "version": "1.0"},
        "basePath": base_path,
        "paths": {"/x": {"get": {"operationId": "x", "responses": {}}}},
        "x-gateway-configuration": {"assembly": {"execute": [invoke]}},
    } | fields


def test_a_document_is_made_read_changed_and_deleted(api: Api) -> None:
    made = api.request("POST", "/v2/guest/apis", document("l2/"))
    assert made.status == 200, made
    id, url = made.json["artifact_id"], made.json["managed_url"]
    assert made.json["open_api_doc"] == document("l2/")
    anyone = Api(api.url, None)
    assert anyone.get(url.removeprefix(api.url) + "/x?a=1").json["a"] == "1"
    assert anyone.get(f"/api/{GUEST_UUID}/l2/x").status == 200
    assert api.get(f"/v2/{GUEST_UUID}/apis/{id}").json == made.json
    (listed,) = api.get(f"{APIMGMT}/getApi.http?basepath=/l2").json["apis"]
    assert listed["value"]["apidoc"] == document("l2/")
    changed = document("/l2", paths={"/y": {"get": {"operationId": "y", "responses": {}}}})
    assert api.request("PUT", f"/v2/_/apis/{id}", changed).json["artifact_id"] == id
    assert anyone.get("/gw/guest/l2/x").status == 404
    assert anyone.get("/gw/guest/l2/y").status == 200
    assert api.request("POST", "/v2/_/subscriptions", {"artifact_id": id, "client_id": "c"}).status == 200
    assert api.get(f"/v2/_/subscriptions?artifact_id={id}").json == ["c"]
    assert api.get("/v2/_/subscriptions?artifact_id=/l2").json == ["c"]
    moved = api.request("PUT", f"/v2/_/apis/{id}", document("/l2moved"))
    assert moved.json["artifact_id"] != id
    gone = api.get(f"/v2/_/apis/{id}")
    assert (gone.status, gone.json) == (404, {"status": 404, "message": f"Error: Unknown API id {id}"})
    deleted = api.delete(f"/v2/_/apis/{moved.json['artifact_id']}")
    assert (deleted.status, deleted.body) == (204, b"")
    assert anyone.get("/gw/guest/l2moved/x").status == 404
    assert api.delete(f"/v2/_/apis/{moved.json['artifact_id']}").status == 404


def test_lists(api: Api) -> None:
    for base_path in ("/list1", "/list2"):
        assert api.request("PUT", "/v2/_/apis", document(base_path)).status == 200

    def titles(query: str) -> list[str]:
        found = [one["open_api_doc"]["info"]["title"] for one in api.get(f"/v2/_/apis?{query}").json]
        return [title for title in found if "/list" in title]

    assert titles("") == ["title of /list1", "title of /list2"]
    assert titles("basePath=list2") == ["title of /list2"]
    assert titles(f"title={quote('title of /list1')}") == ["title of /list1"]
    assert titles("limit=0") == []


def test_a_tenant_is_the_caller(api: Api) -> None:
    for method, path, body in (
        ("GET", f"/v2/{OTHER}/apis", None),
        ("POST", "/v2/other/apis", document("/x")),
        ("GET", "/v2/whisk.system/apis", None),
    ):
        assert api.request(method, path, body).status == 403
    assert Api(api.url, None).get("/v2/guest/apis").status == 401
    assert Api(api.url, None).get("/v1/apis").status == 401


def test_what_is_refused(api: Api) -> None:
    for body, sentence in (
        (b"", "Missing request body"),
        (b"[]", "The request body is no JSON object."),
        (document("/x", info={}), "Missing field 'name' in request body."),
        (document("/x", paths={"x": {}}), "Resource path must begin with '/'."),
        (document("/x", paths={"/x": {"trace": {}}}), "Resource verb 'trace' not supported."),
    ):
        answer = api.request("POST", "/v2/_/apis", body)
        assert (answer.status, answer.json) == (400, {"status": 400, "message": f"Error: {sentence}"})


def test_the_first_form(api: Api) -> None:
    operation = {
        "backendMethod": "GET",
        "backendUrl": f"{WEB}/gw-plain.json",
        "policies": [],
        "security": [{"type": "apiKey", "scope": "resource"}],
    }
    body = {
        "name": "first",
        "basePath": "/first",
        "tenantId": GUEST_UUID,
        "resources": {"/x": {"cors": {"origin": "true"}, "operations": {"get": operation}}},
    }
    made = api.request("PUT", "/v1/apis", body)
    assert made.status == 200, made
    id = made.json["id"]
    assert made.json["resources"]["/x"]["operations"]["get"]["security"] == operation["security"]
    assert api.get(f"/v1/apis/{id}").json == made.json
    assert [one["id"] for one in api.get("/v1/apis?filter[where][name]=first").json] == [id]
    assert id in [one["id"] for one in api.get(f"/v1/tenants/{GUEST_UUID}/apis").json]
    tenant = {"id": GUEST_UUID, "namespace": "guest", "instance": ""}
    assert api.get(f"/v1/apis/{id}/tenant").json == tenant
    assert api.request("PUT", f"/v1/apis/{id}", body | {"tenantId": OTHER}).json["message"].endswith(OTHER)
    anyone = Api(api.url, None)

    def status() -> int:
        return anyone.request("GET", "/gw/guest/first/x", headers={"X-Api-Key": "k"}).status

    assert status() == 401
    key = {"key": "k", "scope": "resource", "tenantId": GUEST_UUID, "resource": "first/x"}
    added = api.request("PUT", "/v1/subscriptions", key)
    assert (added.status, added.body) == (200, b"Subscription created.")
    assert status() == 200
    assert api.request("DELETE", "/v1/subscriptions", key).body == b"Subscription deleted."
    assert status() == 401
    for wrong, sentence in (
        ({"scope": "other"}, "Invalid scope"),
        ({"resource": None}, '"resource" missing from request body.'),
        ({"scope": "api"}, '"apiId" missing from request body.'),
        ({"key": None}, "Missing field 'key' in request body."),
    ):
        assert api.request("PUT", "/v1/subscriptions", key | wrong).json["message"] == f"Error: {sentence}"
    assert api.request("DELETE", f"/v1/apis/{id}").json == {}
    assert api.get(f"/v1/apis/{id}").status == 404


def test_tenants(api: Api) -> None:
    tenant = {"id": GUEST_UUID, "namespace": "guest", "instance": ""}
    assert api.get("/v1/tenants").json == [tenant]
    assert api.get("/v1/tenants?filter[where][namespace]=other").json == []
    assert api.get(f"/v1/tenants/{GUEST_UUID}").json == tenant
    assert api.request("PUT", "/v1/tenants", {"namespace": "guest", "instance": "i"}).json == tenant
    assert api.request("PUT", "/v1/tenants", {"namespace": "other", "instance": "i"}).status == 403
    assert api.request("PUT", "/v1/tenants", {"namespace": "guest"}).status == 400
    assert api.get(f"/v1/tenants/{OTHER}").status == 404
    assert api.delete(f"/v1/tenants/{GUEST_UUID}").status == 403


def test_what_is_open(api: Api) -> None:
    anyone = Api(api.url, None)
    assert anyone.get("/v1/health-check").body == b"Status: Gateway ready."
    assert (anyone.get("/api").status, anyone.get("/api/v1").json["description"]) == (405, "OpenWhisk API")
