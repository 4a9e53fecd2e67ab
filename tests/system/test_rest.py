"""The REST API rule by rule: headers, routes, names, bodies, query parameters, order of checks."""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any

import pytest
from tests.system.answers import ACTION, API, MALFORMED, UNEXPECTED, bad_query, is_routed, prepare, put, refused
from tests.system.conftest import Api

from visp.client import running


@pytest.fixture(scope="module", autouse=True)
def entities(server: running.Server) -> None:
    prepare(Api(server.url))


# ── conventions ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        ("mine-1", True),
        ("a b", True),
        ("x" * 128, True),
        ("sid_1", False),
        ("x" * 129, False),
        ("", False),
        ("é", False),
    ],
)
def test_request_ids(api: Api, given: str, is_taken: bool) -> None:
    answer = api.request("GET", "actions", headers={"X-Request-ID": given})
    id = answer.headers["x-request-id"]
    assert (id == given) is is_taken
    assert is_taken or (len(id) == 32 and id.isalnum())


@pytest.mark.parametrize("path", ["/", "/ping", "/nothing", "/api/v1", API, f"{API}/_/actions", f"{API}/_/actions/no"])
def test_every_answer_has_a_request_id(api: Api, path: str) -> None:
    assert api.get(path).headers["x-request-id"]


@pytest.mark.parametrize(
    "path", ["/api/v1", f"{API}/_/actions", f"{API}/nosuch/nothing", "/api/v1/nothing", f"{API}/_/actions/$"]
)
def test_options_below_the_api(api: Api, path: str) -> None:
    answer = Api(api.url, None).request("OPTIONS", path)
    assert (answer.status, answer.body) == (200, b"OK")
    assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "GET, DELETE, POST, PUT, HEAD"
    allowed = "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent"
    assert answer.headers["access-control-allow-headers"] == allowed


def test_options_elsewhere(api: Api) -> None:
    answer = api.request("OPTIONS", "/nothing")
    assert answer.status == 200
    assert answer.headers["access-control-allow-methods"] == "OPTIONS, GET, POST"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "actions/rest"),
        ("PATCH", "actions"),
        ("POST", "actions"),
        ("PUT", "actions/"),
        ("DELETE", "triggers"),
        ("POST", "packages/p"),
        ("DELETE", f"activations/{'0' * 32}"),
        ("PUT", f"activations/{'0' * 32}"),
        ("GET", f"activations/{'0' * 32}/other"),
        ("GET", f"activations/{'0' * 32}/logs/"),
        ("POST", "limits"),
        ("PUT", "limits/x"),
        ("GET", "nothing"),
        ("GET", "actions/a/b/c"),
        ("GET", "actions/a/b/"),
        ("GET", "actions//a"),
        ("GET", "triggers/a/"),
        ("GET", "triggers/a/b"),
        ("GET", "rules/a/b"),
        ("GET", "/api/v1/nothing"),
        ("GET", "/api/v1//namespaces"),
        ("GET", f"{API}/_"),
        ("GET", f"{API}/guest"),
        ("GET", f"{API}/_/"),
        ("POST", API),
        ("POST", "/api/v1"),
        ("TRACE", "actions"),
        ("PATCH", "actions/$bad"),
    ],
)
def test_unknown_routes(api: Api, method: str, path: str) -> None:
    refused(api.request(method, path), 404, "The requested resource could not be found.", routed=False)


@pytest.mark.parametrize("path", ["actions", "actions/rest", "nothing"])
def test_head_is_no_get(api: Api, path: str) -> None:
    answer = api.request("HEAD", path)
    assert (answer.status, answer.body, is_routed(answer)) == (404, b"", False)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD", "PATCH"])
@pytest.mark.parametrize("path", ["/api", "/nothing/here", "/api/v2", "/api/v10", "//api/v1"])
def test_outside_of_the_api(api: Api, method: str, path: str) -> None:
    answer = Api(api.url, None).request(method, path)
    assert answer.status == 405
    assert answer.headers["allow"] == "OPTIONS"
    if method != "HEAD":
        refused(answer, 405, "HTTP method not allowed, supported methods: OPTIONS", routed=False)


ILLEGAL = "The name of the entity contains illegal characters."
LONG = "Name segement longer than allowed: 257 > 256."


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("actions/%24bad", ILLEGAL),
        ("actions/a%2fb", ILLEGAL),
        ("actions/..", ILLEGAL),
        ("actions/%2e%2e", ILLEGAL),
        ("actions/a%00", ILLEGAL),
        ("actions/%20a", ILLEGAL),
        ("actions/a%20", ILLEGAL),
        ("actions/g%C3%A9", ILLEGAL),
        ("actions/%ff", ILLEGAL),
        ("actions/a+b", ILLEGAL),
        ("actions/" + "a" * 257, LONG),
        ("actions/%24/a", ILLEGAL),
        ("actions/a/%24", ILLEGAL),
        ("actions/%24/b/c", ILLEGAL),
        ("triggers/%24", ILLEGAL),
        ("triggers/%24/x", ILLEGAL),
        ("rules/%24", ILLEGAL),
        ("packages/%24", ILLEGAL),
        (f"{API}/nosuch/rules/%24", ILLEGAL),
        (f"{API}/%24/rules/a", "The namespace contains illegal characters."),
        (f"{API}/%24/rules/%24", "The namespace contains illegal characters."),
        (f"{API}/{'a' * 257}/rules/a", "Namespace longer than allowed: 257 > 256."),
    ],
)
def test_names_outrank_every_other_rejection(api: Api, method: str, path: str, sentence: str) -> None:
    answer = api.request(
        method, f"{path}?overwrite=maybe&blocking=maybe", b"{bad" if method in ("PUT", "POST") else None
    )
    refused(answer, 400, sentence, routed=False)


@pytest.mark.parametrize("name", ["rest space", "rest@at", "rest.dot", "rest-dash", "rest&and", "r" * 256, "_"])
def test_names_that_are_taken(api: Api, name: str) -> None:
    path = "triggers/" + name.replace(" ", "%20").replace("@", "%40")
    assert put(api, path, {})["name"] == name
    assert api.get(path).json["name"] == name
    assert api.delete(path).json["name"] == name


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────────────────────

WRITES = [
    ("PUT", "actions/rest-body"),
    ("PUT", "triggers/rest-body"),
    ("PUT", "rules/rest-body"),
    ("POST", "actions/rest-echo"),
    ("POST", "triggers/rest-trigger"),
    ("POST", "rules/rest-rule"),
]
DEEP = 100_000
NO_JSON = {
    "half": b'{"a":',
    "bare words": b"{not json",
    "more than one": b"{} {}",
    "not a number": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "a leading zero": b'{"a":01}',
    "a comment": b"{/**/}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "no UTF-8": b'{"a":"\xff"}',
    "no UTF-8 in a key": b'{"\xff":1}',
    "a lone surrogate in a key": b'{"\\ud800":1}',
    "a control character": b'{"a":"\n"}',
    "a NUL": b'{"a":"\x00"}',
    "objects in objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "arrays in a value": b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a hundred thousand digits": b'{"a":' + b"9" * DEEP + b"}",
    "a hundred thousand digits within": b'{"a":[{"b":-' + b"9" * DEEP + b".5}]}",
}


@pytest.mark.parametrize("name", NO_JSON)
@pytest.mark.parametrize(("method", "path"), WRITES)
def test_bodies_that_are_no_json(api: Api, method: str, path: str, name: str) -> None:
    answer = api.request(method, path, NO_JSON[name])
    assert answer.status == 400, answer
    assert answer.json["error"].startswith(UNEXPECTED)
    assert not is_routed(answer)


@pytest.mark.parametrize("body", [b"null", b"5", b'"x"', b"true", b"[]", b"[1]"])
@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("PUT", "actions/rest-body", "Object expected in field 'exec'"),
        ("PUT", "triggers/rest-body", "Object expected in field 'parameters'"),
        ("PUT", "rules/rest-body", "Object expected in field 'trigger'"),
        ("POST", "actions/rest-echo", "JSON object expected"),
        ("POST", "triggers/rest-trigger", "JSON object expected"),
    ],
)
def test_bodies_that_are_no_object(api: Api, method: str, path: str, sentence: str, body: bytes) -> None:
    refused(api.request(method, path, body), 400, MALFORMED + sentence, routed=False)


@pytest.mark.parametrize(
    ("method", "path"), [write for write in WRITES if write[0] == "PUT" or write[1][:5] == "rules"]
)
@pytest.mark.parametrize("body", [None, b"", b"  \n"])
def test_bodies_that_are_missing(api: Api, method: str, path: str, body: bytes | None) -> None:
    answer = api.request(method, path, body)
    assert answer.status == 400
    assert answer.json["error"].startswith(UNEXPECTED + " end-of-input")
    assert not is_routed(answer)


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("text/plain", "text/plain"),
        ("text/plain; charset=utf-8", "text/plain; charset=UTF-8"),
        ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
        ("application/octet-stream", "application/octet-stream"),
        ("nonsense", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_other_content_types(api: Api, method: str, path: str, given: str, shown: str) -> None:
    answer = api.request(method, path, b"{}", {"Content-Type": given})
    sentence = f"The request's Content-Type [{shown}] is not supported. Expected:\napplication/json"
    refused(answer, 415, sentence, routed=False)


@pytest.mark.parametrize(
    "given", ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
)
def test_json_content_types(api: Api, given: str) -> None:
    assert api.request("PUT", "triggers/rest-type?overwrite=true", b"{}", {"Content-Type": given}).status == 200
    assert api.request("POST", "triggers/rest-type", b"{}", {"Content-Type": given}).status == 204


def test_a_body_without_its_length(api: Api) -> None:
    auth = "Basic " + base64.b64encode(str(api.auth).encode()).decode()
    headers = {"Authorization": auth, "Content-Type": "application/json"}
    chunks = iter([b'{"par', b'ameters":[{"key":"a","value":1}]', b"}"])
    connection = http.client.HTTPConnection(api.url.removeprefix("http://"), timeout=10.0)
    try:
        path = f"{API}/_/triggers/rest-chunks?overwrite=true"
        connection.request("PUT", path, chunks, headers, encode_chunked=True)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["parameters"]) == (200, [{"key": "a", "value": 1}])
    finally:
        connection.close()


def test_fields_that_are_not_known_and_nulls(api: Api) -> None:
    body = {"name": "x", "namespace": "y", "status": "", "rules": None, "parameters": None, "version": None}
    stored = put(api, "triggers/rest-unknown", body | {"annotations": None, "publish": None, "updated": 1})
    assert stored["name"] == "rest-unknown"
    assert stored["parameters"] == stored["annotations"] == []
    assert (stored["version"], stored["publish"]) == ("0.0.1", False)
    assert stored["updated"] > 1


SHAPES = [
    ({"parameters": {"a": 1}}, "parameters malformed!"),
    ({"parameters": "x"}, "parameters malformed!"),
    ({"parameters": [1]}, "parameters malformed!"),
    ({"parameters": [{"value": 1}]}, "parameters malformed!"),
    ({"parameters": [{"key": 1, "value": 1}]}, "parameters malformed!"),
    ({"parameters": [{"key": "a"}]}, "parameters malformed!"),
    ({"annotations": {"a": 1}}, "parameters malformed!"),
    ({"annotations": [{"value": 1}]}, "parameters malformed!"),
    ({"version": 1}, "semantic version malformed"),
    ({"version": "x"}, "semantic version malformed"),
    ({"version": "0.0.0"}, "semantic version malformed"),
    ({"version": "1.-1.0"}, "semantic version malformed"),
    ({"version": ""}, "semantic version malformed"),
    ({"publish": "yes"}, 'Expected JsBoolean, but got "yes"'),
]


@pytest.mark.parametrize("collection", ["actions", "triggers", "rules"])
@pytest.mark.parametrize(("body", "sentence"), SHAPES)
def test_fields_of_the_wrong_shape(api: Api, collection: str, body: dict[str, Any], sentence: str) -> None:
    if collection == "rules" and "parameters" in body:
        body = {"annotations": body["parameters"]}
    required = {"actions": ACTION, "triggers": {}, "rules": {"trigger": "/_/rest-trigger", "action": "/_/rest-echo"}}
    answer = api.request("PUT", f"{collection}/rest-shape", required[collection] | body)
    refused(answer, 400, MALFORMED + sentence, routed=False)


# ── query parameters ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "actions", "count"),
        ("GET", "actions/rest-echo", "code"),
        ("GET", "activations", "docs"),
        ("PUT", "actions/rest-echo", "overwrite"),
        ("PUT", "triggers/rest-trigger", "overwrite"),
        ("PUT", "rules/rest-rule", "overwrite"),
        ("POST", "actions/rest-echo", "blocking"),
        ("POST", "actions/rest-echo", "result"),
    ],
)
@pytest.mark.parametrize("value", ["maybe", "2", "truee", "%20"])
def test_values_that_are_no_booleans(api: Api, method: str, path: str, name: str, value: str) -> None:
    body = None if method == "GET" else {}
    given = value.replace("%20", " ")
    answer = api.request(method, f"{path}?{name}={value}", body)
    refused(answer, 400, bad_query(name, f"'{given}' is not a valid Boolean value"), routed=False)


@pytest.mark.parametrize("value", ["true", "TRUE", "Yes", "on", "1"])
def test_values_that_are_true(api: Api, value: str) -> None:
    assert api.get(f"triggers?count={value}").json["triggers"] > 0


@pytest.mark.parametrize("value", ["false", "No", "OFF", "0", ""])
def test_values_that_are_false(api: Api, value: str) -> None:
    assert isinstance(api.get(f"triggers?count={value}").json, list)


@pytest.mark.parametrize("collection", ["actions", "triggers", "rules", "packages", "activations"])
@pytest.mark.parametrize(
    ("query", "name", "reason"),
    [
        ("limit=201", "limit", "The value '201' is not in the range of 0 to 200 for {}."),
        ("limit=-1", "limit", "The value '-1' is not in the range of 0 to 200 for {}."),
        ("limit=2147483647", "limit", "The value '2147483647' is not in the range of 0 to 200 for {}."),
        ("limit=2147483648", "limit", "The value '2147483648' is not an integer for {}."),
        ("limit=abc", "limit", "The value 'abc' is not an integer for {}."),
        ("limit=1.5", "limit", "The value '1.5' is not an integer for {}."),
        ("limit=", "limit", "The value '' is not an integer for {}."),
        ("skip=-1", "skip", "The value '-1' is not greater than or equal to 0 for {}."),
        ("skip=x", "skip", "The value 'x' is not an integer for {}."),
    ],
)
def test_pages_that_cannot_be(api: Api, collection: str, query: str, name: str, reason: str) -> None:
    refused(api.get(f"{collection}?{query}"), 400, bad_query(name, reason.format(collection)), routed=False)


@pytest.mark.parametrize("value", ["0", "-5", "60001", "abc", "1.5", "", "9" * 30])
def test_waits_that_cannot_be(api: Api, value: str) -> None:
    answer = api.request("POST", f"actions/rest-echo?timeout={value}", {})
    refused(answer, 400, bad_query("timeout", "Timeout must be number of milliseconds up to 60000."), routed=False)


@pytest.mark.parametrize("name", ["since", "upto"])
@pytest.mark.parametrize("value", ["abc", "1.5", "", "9" * 30])
def test_times_that_cannot_be(api: Api, name: str, value: str) -> None:
    reason = f"Parameter is not a valid value for epoch seconds: {value}"
    refused(api.get(f"activations?{name}={value}"), 400, bad_query(name, reason), routed=False)


@pytest.mark.parametrize("value", ["$", "a/b/c", "a/$", "/", "a b "])
def test_name_filters_that_cannot_be(api: Api, value: str) -> None:
    reason = f"Parameter may be a 'simple' name or 'package-name/simple' name: {value}"
    answer = api.get(f"activations?name={value.replace(' ', '%20')}")
    refused(answer, 400, bad_query("name", reason), routed=False)


@pytest.mark.parametrize(
    "query", ["public=true", "docs=true", "docs=maybe", "limit=5&limit=abc", "unknown", "a=%ff", ""]
)
def test_query_parameters_that_are_ignored(api: Api, query: str) -> None:
    assert api.get(f"triggers?{query}").status == 200


# ── info, namespaces, limits ────────────────────────────────────────────────────────────────────────────────────


def test_the_info_document(api: Api) -> None:
    answer = Api(api.url, None).get("/")
    info = answer.json
    assert not is_routed(answer)
    assert info["description"] == "OpenWhisk"
    assert info["api_paths"] == ["/api/v1"]
    assert set(info["support"]) == {"github", "slack"}
    limits = info["limits"]
    for prefix in ("", "default_"):
        assert (limits[prefix + "min_action_duration"], limits[prefix + "max_action_duration"]) == (100, 300_000)
        assert (limits[prefix + "min_action_memory"], limits[prefix + "max_action_memory"]) == (134217728, 536870912)
        assert (limits[prefix + "min_action_logs"], limits[prefix + "max_action_logs"]) == (0, 10485760)
    assert limits["sequence_length"] == 50
    assert {"actions_per_minute", "triggers_per_minute", "concurrent_actions"} <= set(limits)
    for kinds in info["runtimes"].values():
        assert [kind["default"] for kind in kinds].count(True) == 1
        for kind in kinds:
            assert set(kind) == {"kind", "image", "deprecated", "default", "attached", "requireMain"}


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/"])
def test_what_the_api_is(api: Api, path: str) -> None:
    answer = Api(api.url, None).get(path)
    about = answer.json
    assert is_routed(answer)
    assert (about["description"], about["api_version"], about["api_version_path"]) == ("OpenWhisk API", "1.0.0", "v1")
    assert about["swagger_paths"] == {"ui": "/docs", "api-docs": "/api-docs"}
    assert isinstance(about["build"], str)
    assert isinstance(about["buildno"], str)


def test_service_routes(api: Api) -> None:
    nobody = Api(api.url, None)
    assert (nobody.get("/ping").status, nobody.get("/ping").body) == (200, b"pong")
    assert nobody.get("/invokers").json == {"invoker0/0": "up"}
    assert nobody.get("/invokers/healthy/count").json == 1
    assert nobody.get("/invokers/ready").json == {"healthy": "1/1"}
    assert nobody.get("/api/v1/api-docs").json["swagger"] == "2.0"
    docs = nobody.get("/api/v1/docs")
    assert (docs.status, docs.headers["location"]) == (308, "docs/index.html?url=/api/v1/api-docs")


@pytest.mark.parametrize("path", [API, API + "/"])
def test_the_namespaces_of_a_key(api: Api, path: str) -> None:
    answer = api.get(path)
    assert (answer.json, is_routed(answer)) == (["guest"], True)


@pytest.mark.parametrize("path", ["limits", "limits/", f"{API}/guest/limits"])
def test_limits(api: Api, path: str) -> None:
    assert api.get(path).json == {
        "invocationsPerMinute": 6_000_000,
        "concurrentInvocations": 100_000,
        "firesPerMinute": 6_000_000,
        "minActionMemory": 128,
        "maxActionMemory": 512,
        "minActionLogs": 0,
        "maxActionLogs": 10,
        "minActionTimeout": 100,
        "maxActionTimeout": 300_000,
        "minActionConcurrency": 1,
        "maxActionConcurrency": 1,
        "maxParameterSize": "1048576 B",
        "maxActionInstances": 100_000,
    }


@pytest.mark.parametrize("path", ["limits/x", "limits/x/y", f"{API}/nosuch/limits/x"])
def test_single_limits(api: Api, path: str) -> None:
    refused(api.get(path), 400, "Inner entity level routes for limits are not yet implemented.", routed=False)


@pytest.mark.parametrize("path", ["packages", "packages/", f"{API}/nosuch/packages"])
def test_there_are_no_packages(api: Api, path: str) -> None:
    assert (api.get(path).json, api.get(path + "?count=true").json) == ([], {"packages": 0})


def test_absent_packages(api: Api) -> None:
    refused(api.get("packages/no"), 404, "The requested resource 'guest/no' does not exist.", routed=True)
    for method, path in (
        ("DELETE", "packages/no"),
        ("GET", "actions/no/"),
        ("GET", "actions/no/a?code=maybe"),
        ("PUT", "actions/no/a?overwrite=maybe"),
        ("POST", "actions/no/a?blocking=maybe"),
        ("DELETE", "actions/default/rest-echo"),
    ):
        body = b"{bad" if method in ("PUT", "POST") else None
        refused(api.request(method, path, body), 404, "The requested resource does not exist.", routed=True)


def test_nothing_of_all_this_was_unforeseen(server: running.Server) -> None:
    assert "Traceback" not in server.read_log()
    assert "api.failed" not in server.read_log()
