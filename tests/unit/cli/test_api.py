from __future__ import annotations

import json

import pytest

MANAGED = "/web/whisk.system/apimgmt"
OPERATION = {
    "operationId": "getBooks",
    "x-openwhisk": {"namespace": "guest", "package": "", "action": "books", "url": "http://h/x"},
}
DOCUMENT = {"swagger": "2.0", "info": {"title": "Club"}, "basePath": "/club", "paths": {"/books": {"get": OPERATION}}}
SHOWN = {"apidoc": DOCUMENT, "gwApiUrl": "http://h/gw/guest/club"}
LISTED = {"apis": [{"id": "Not Used", "key": "Not Used", "value": SHOWN}]}
EXPORTED = {"annotations": [{"key": "web-export", "value": True}, {"key": "require-whisk-auth", "value": "s"}]}


def test_what_wsk_sends_is_sent(api, visp):
    api.answer("GET /namespaces/_/actions/kit/books", body=EXPORTED)
    api.answer(f"POST {MANAGED}/createApi.http", body=SHOWN)
    done = visp("api", "create", "/club", "/books/{id}", "put", "kit/books", "-n", "Club", "--response-type", "http")
    assert done.exit_code == 0, done.output
    request = api.requests[1]
    assert (request.query["accesstoken"], request.query["responsetype"]) == ("DUMMY TOKEN", "http")
    told = request.body["apidoc"]
    assert told["pathParameters"][0]["name"] == "id"
    assert told["action"].pop("authkey")
    assert told["action"] == {
        "name": "kit/books",
        "namespace": "_",
        "backendMethod": "PUT",
        "backendUrl": f"{api.url}/api/v1/web/_/kit/books.http",
        "secureKey": "s",
    }
    assert (told["gatewayBasePath"], told["gatewayPath"], told["gatewayMethod"]) == ("/club", "/books/{id}", "PUT")
    assert told["apiName"] == "Club"


def test_what_was_made_is_said(api, visp):
    api.answer("GET /namespaces/_/actions/books", body=EXPORTED)
    api.answer(f"POST {MANAGED}/createApi.http", body=SHOWN)
    done = visp("api", "create", "/club", "/books", "get", "books")
    assert done.stdout == "ok: created API /club/books GET for action /guest/books\nhttp://h/gw/guest/club/books\n"


@pytest.mark.parametrize("name", ["club.json", "club.yaml"])
def test_a_description_replaces_the_whole(api, visp, tmp_path, name):
    import yaml

    (tmp_path / name).write_text(json.dumps(DOCUMENT) if name.endswith("json") else yaml.safe_dump(DOCUMENT))
    api.answer(f"POST {MANAGED}/createApi.http", body=SHOWN)
    done = visp("api", "create", "-c", name)
    assert done.stdout.splitlines()[0] == "ok: created API /club/books get for action /guest/books"
    assert json.loads(api.requests[0].body["apidoc"]["swagger"]) == DOCUMENT


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("/books", "get"), "[BASE_PATH] PATH VERB ACTION"),
        (("books", "get", "a"), "must begin with '/'"),
        (("/{x}", "/books", "get", "a"), "cannot have parameters"),
        (("/books", "fetch", "a"), "is no verb"),
        (("/books/{id}", "get", "a"), "--response-type http"),
        (("-c", "there.json"), "lacks basePath"),
        (("-c", "no.json"), "is no JSON"),
        (("-c", "no.yaml"), "is no YAML"),
        (("/a", "get", "b", "-c", "there.json"), "no other arguments"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(api, visp, tmp_path, words, said):
    (tmp_path / "there.json").write_text('{"swagger":"2.0","info":{},"paths":{}}')
    (tmp_path / "no.json").write_text("{")
    (tmp_path / "no.yaml").write_text("a: [")
    done = visp("api", "create", *words)
    assert done.exit_code == 2
    assert said in done.output
    assert not api.requests


def test_only_web_actions_are_taken(api, visp):
    api.answer("GET /namespaces/_/actions/books", body={"annotations": []})
    done = visp("api", "create", "/books", "get", "books")
    assert done.exit_code == 1
    assert "is no web action" in done.output


def test_one_is_shown(api, visp):
    api.answer(f"GET {MANAGED}/getApi.http", body=LISTED)
    assert json.loads(visp("api", "get", "/club").stdout) == DOCUMENT
    assert json.loads(visp("api", "get", "/club", "--full").stdout) == SHOWN
    assert "basePath: /club" in visp("api", "get", "/club", "--format", "yaml").stdout


def test_none_is_said(api, visp):
    api.answer(f"GET {MANAGED}/getApi.http", body={"apis": []})
    done = visp("api", "get", "/club")
    assert (done.exit_code, "API does not exist for basepath /club" in done.output) == (1, True)


def test_operations_are_listed(api, visp):
    api.answer(f"GET {MANAGED}/getApi.http", body=LISTED)
    title, row = visp("api", "list").stdout.splitlines()
    assert title == "APIs"
    assert row.split() == ["/guest/books", "get", "Club", "http://h/gw/guest/club/books"]
    assert visp("api", "list", "/club", "/other").stdout == "APIs\n"
    assert "API name:  Club" in visp("api", "list", "/club", "/books", "GET", "--full").stdout


def test_what_is_deleted_is_said(api, visp):
    api.answer(f"DELETE {MANAGED}/deleteApi.http", body={})
    assert visp("api", "delete", "/club").stdout == "ok: deleted API /club\n"
    assert visp("api", "delete", "/club", "/books", "get").stdout == "ok: deleted /books GET from /club\n"
    assert api.requests[1].query["operation"] == "GET"


def test_errors_are_told(api, visp):
    api.answer(f"DELETE {MANAGED}/deleteApi.http", 502, {"error": "API deletion failure: API 'x' does not exist."})
    done = visp("api", "delete", "x")
    assert (done.exit_code, "API 'x' does not exist." in done.output) == (246, True)


def test_clients_of_an_api(api, visp):
    api.answer("POST /v2/_/subscriptions", body={"message": "Subscription 'a key' created for API '/club'"})
    done = visp("api", "subscribe", "/club", "a key", "--secret", "-", input="s3cret\n")
    assert done.stdout == "ok: subscribed a key to /club\n"
    told = {"artifact_id": "/club", "client_id": "a key", "client_secret": "s3cret"}
    assert api.requests[0].body == told
    api.answer("GET /v2/_/subscriptions", body=["a key", "other"])
    assert visp("api", "subscriptions", "/club").stdout.split("\n", 1)[1].split() == ["a", "key", "other"]
    assert api.requests[1].query == {"artifact_id": "/club"}
    api.answer("DELETE /v2/_/subscriptions/a%20key", 204)
    assert visp("api", "unsubscribe", "/club", "a key").stdout == "ok: unsubscribed a key from /club\n"


def test_clients_of_a_path_and_of_all_apis(api, visp):
    api.answer("POST /v2/_/subscriptions", body={"message": ""})
    assert visp("api", "subscribe", "/club", "k", "--path", "/books").exit_code == 0
    assert visp("api", "subscribe", "/club", "k", "--all").exit_code == 0
    told = {"artifact_id": "/club", "client_id": "k"}
    assert api.requests[0].body == told | {"scope": "resource", "resource": "/books"}
    assert api.requests[1].body == told | {"scope": "tenant"}
    assert visp("api", "subscribe", "/club", "k", "--all", "--path", "/books").exit_code != 0
    api.answer("GET /v2/_/subscriptions", body=[])
    assert visp("api", "subscriptions", "/club", "--path", "/books").exit_code == 0
    assert api.requests[2].query == {"artifact_id": "/club", "scope": "resource", "resource": "/books"}
    api.answer("DELETE /v2/_/subscriptions/k", 204)
    assert visp("api", "unsubscribe", "/club", "k", "--all").exit_code == 0
    assert api.requests[3].query == {"artifact_id": "/club", "scope": "tenant"}


def test_domains_of_an_api(api, visp):
    document = {"basePath": "/club", "info": {"title": "Club"}, "paths": {}, "x-visp-domains": ["A.example"]}
    api.answer(f"GET {MANAGED}/getApi.http", body={"apis": [{"value": {"apidoc": document}}]})
    api.answer("PUT /v2/_/apis", body={})
    assert visp("api", "domain", "list", "/club").stdout.split("\n", 1)[1].split() == ["a.example"]
    assert visp("api", "domain", "add", "/club", "B.example").stdout == "ok: B.example is a domain of /club\n"
    assert visp("api", "domain", "remove", "/club", "a.example").exit_code == 0
    sent = [request.body for request in api.requests if request.method == "PUT"]
    assert sent == [document | {"x-visp-domains": names} for names in (["a.example", "b.example"], [])]


def test_a_domain_of_no_api(api, visp):
    api.answer(f"GET {MANAGED}/getApi.http", body={"apis": []})
    done = visp("api", "domain", "add", "/none", "a.example")
    assert (done.exit_code != 0, "API does not exist for basepath /none" in done.output) == (True, True)


def test_what_the_gateway_refuses_is_said(api, visp):
    refusal = {"status": 404, "message": "Error: Subscription doesn't exist"}
    api.answer("DELETE /v2/_/subscriptions/x", 404, refusal)
    done = visp("api", "unsubscribe", "/club", "x")
    assert done.exit_code != 0
    assert "Unable to unsubscribe from API '/club': Error: Subscription doesn't exist" in done.output
