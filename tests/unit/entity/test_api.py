"""What an API is: documents made by operations, and what is refused of a document."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from visp.entity import api as apis
from visp.entity.api import Api, Endpoint
from visp.errors import ApiRefused

URL = "http://H:3233/api/v1/web/guest/kit/put"
P = {"name": "id", "in": "path", "required": True, "type": "string", "description": "Default description for 'id'"}
SHOP = {
    "swagger": "2.0",
    "info": {"title": "/shop", "version": "1.0.0"},
    "basePath": "/shop",
    "paths": {
        "/items/{id}": {
            "put": {
                "operationId": "putItemsId",
                "parameters": [P],
                "x-openwhisk": {"url": f"{URL}.http", "namespace": "guest", "package": "kit", "action": "put"},
                "responses": {"default": {"description": "Default response"}},
            }
        }
    },
    "x-ibm-configuration": {
        "cors": {"enabled": True},
        "assembly": {
            "execute": [
                {
                    "operation-switch": {
                        "case": [
                            {
                                "operations": ["putItemsId"],
                                "execute": [{"invoke": {"target-url": f"{URL}.http$(request.path)", "verb": "keep"}}],
                            }
                        ]
                    }
                }
            ]
        },
    },
}


def endpoint(path: str = "/a", verb: str = "get", **fields: Any) -> Endpoint:
    given: dict[str, Any] = {"base_path": "/shop", "title": None, "url": f"{URL}.json", "is_http": False}
    return Endpoint(path=path, verb=verb, namespace="guest", package="kit", action="put", **given | fields)


def document(*endpoints: Endpoint) -> dict[str, Any]:
    made: dict[str, Any] | None = None
    for one in endpoints or (endpoint(),):
        made = apis.with_endpoint(made, one)
    assert made is not None
    return made


def cases(made: dict[str, Any]) -> list[Any]:
    found: list[Any] = made["x-ibm-configuration"]["assembly"]["execute"][0]["operation-switch"]["case"]
    return found


def refusal(act: Any, *given: Any) -> str:
    with pytest.raises(ApiRefused) as caught:
        act(*given)
    assert caught.value.status == 502
    return caught.value.sentence


# ── operations ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_example_of_openwhisk() -> None:
    put = endpoint("/items/{id}", "put", url=f"{URL}.http", is_http=True, parameters=[P])
    assert apis.with_endpoint(None, put) == SHOP
    apis.check_swagger(SHOP)


@pytest.mark.parametrize(
    ("verb", "path", "id"),
    [
        ("GET", "/path/with/sub_paths/in/it", "getPathWithSub_pathsInIt"),
        ("put", "/items/{id}", "putItemsId"),
        ("get", "/", "get"),
        ("delete", "/UPPER-case/ö", "deleteUpper-case"),
        ("post", "/a.b//c", "postABC"),
    ],
)
def test_operation_ids(verb: str, path: str, id: str) -> None:
    assert apis.operation_id(verb, path) == id


def test_operations_come_together_and_the_title_stays() -> None:
    first = document(endpoint(title="Shop"))
    made = apis.with_endpoint(first, endpoint(verb="post", title="Other"))
    assert made["info"]["title"] == "Shop"
    assert list(made["paths"]["/a"]) == ["get", "post"]
    assert [case["operations"] for case in cases(made)] == [["getA"], ["postA"]]
    assert list(first["paths"]["/a"]) == ["get"]  # what was given is as it was


def test_an_operation_is_replaced() -> None:
    made = document(endpoint(), endpoint(verb="post"), endpoint(url="http://H/new.json", secret=True))
    assert made["paths"]["/a"]["get"]["x-openwhisk"]["url"] == "http://H/new.json"
    assert sorted(case["operations"][0] for case in cases(made)) == ["getA", "postA"]
    assert apis.target_of(made, "getA") == "http://H/new.json"


def test_a_secret_is_sent_along() -> None:
    assert cases(document(endpoint(secret="s3")))[0]["execute"][1] == {
        "set-variable": {"actions": [{"set": "message.headers.X-Require-Whisk-Auth", "value": "s3"}]}
    }


def test_paths_that_make_one_id_are_told_apart() -> None:
    made = document(endpoint("/a/b"), endpoint("/a.b", url="http://H/other.json"))
    assert made["paths"]["/a.b"]["get"]["operationId"] == "getAB2"
    assert apis.target_of(made, "getAB") != apis.target_of(made, "getAB2") == "http://H/other.json"


def test_an_operation_joins_a_document_with_one_call_for_all() -> None:
    one = {"invoke": {"target-url": "http://all", "verb": "keep"}}
    own = {"assembly": {"execute": [one]}}
    before = SHOP | {"x-ibm-configuration": own}
    made = apis.with_endpoint(before, endpoint())
    assert apis.target_of(made, "putItemsId") == "http://all"
    assert apis.target_of(made, "getA") == f"{URL}.json"


def test_only_the_first_that_calls_counts() -> None:
    execute = [
        {"set-variable": {"actions": []}},
        {"operation-switch": {"case": [{"operations": ["x"], "execute": [{"invoke": {"target-url": "one"}}]}]}},
        {"invoke": {"target-url": "two"}},
    ]
    made = {"x-gateway-configuration": {"assembly": {"execute": execute}}}
    assert apis.target_of(made, "x") == "one"
    assert apis.target_of(made, "other") is None
    assert apis.policies_for(made, "x")[0] == {"set-variable": {"actions": []}}


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (endpoint("items"), "Resource path must begin with '/'."),
        (endpoint("x-items"), "Resource path must begin with '/'."),
        (endpoint(verb="brew"), "Resource verb 'brew' not supported."),
        (endpoint(verb="parameters"), "Resource verb 'parameters' not supported."),
    ],
)
def test_what_the_gateway_refuses_of_an_operation(one: Endpoint, text: str) -> None:
    assert refusal(apis.with_endpoint, None, one) == (
        f'Unable to configure the API Gateway (status code 400): {{"status":400,"message":"Error: {text}"}}'
    )


# ── taking away ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_taking_away() -> None:
    made = document(endpoint(), endpoint(verb="post"), endpoint("/b"))
    left = apis.without(made, "/a", "get")
    assert left is not None
    assert list(left["paths"]["/a"]) == ["post"]
    assert [case["operations"] for case in cases(left)] == [["postA"], ["getB"]]
    left = apis.without(left, "/a", "post")
    assert left is not None
    assert list(left["paths"]) == ["/b"]
    assert apis.without(left, "/b", None) is None
    assert list(made["paths"]) == ["/a", "/b"]


def test_a_path_goes_with_its_parameters() -> None:
    made = document(endpoint(), endpoint("/b"))
    made["paths"]["/a"]["parameters"] = [P]
    left = apis.without(made, "/a", "get")
    assert left is not None
    assert list(left["paths"]) == ["/b"]


def test_what_is_not_there_is_not_taken_away() -> None:
    assert refusal(apis.without, document(), "/b", None) == "path '/b' does not exist in the API"
    assert refusal(apis.without, document(), "/a", "put") == "path '/a' with operation 'put' does not exist in the API"


# ── which are meant ─────────────────────────────────────────────────────────────────────────────────────────────

FOUND = [apis.api_of("ns", apis.empty_document(path, title), 1) for path, title in (("/a", None), ("/b", "Book"))]


@pytest.mark.parametrize(
    ("name", "paths"),
    [("/a", ["/a"]), ("/a/", ["/a"]), ("Book", ["/b"]), ("/Book", []), ("a", []), ("/", [])],
)
def test_by_base_path_or_title(name: str, paths: list[str]) -> None:
    assert [api.base_path for api in apis.named(FOUND, name)] == paths


@pytest.mark.parametrize(
    ("skip", "limit", "paths"),
    [
        (None, None, ["/a", "/b"]),
        ("undefined", "undefined", ["/a", "/b"]),
        ("0", "30", ["/a", "/b"]),
        ("1", None, ["/b"]),
        ("-1", "1", ["/a"]),
        (None, "0", []),
        (None, "-3", []),
    ],
)
def test_pages(skip: str | None, limit: str | None, paths: list[str]) -> None:
    assert [api.base_path for api in apis.page(FOUND, skip, limit)] == paths


@pytest.mark.parametrize(
    ("given", "kept"), [("/", "/"), ("", "/"), ("shop", "/shop"), ("/shop/", "/shop"), ("/a/b", "/a/b")]
)
def test_base_paths(given: str, kept: str) -> None:
    assert apis.normal_base_path(given) == kept


def test_no_entity_has_the_id_of_an_api() -> None:
    assert apis.id_of("ns", "/shop") == "ns//shop"
    assert [apis.namespace_of(id) for id in ("ns//shop", "ns//", "ns/a", "ns/pkg/a")] == ["ns", "ns", None, None]


# ── checks of a whole document ──────────────────────────────────────────────────────────────────────────────────


def changed(**parts: Any) -> dict[str, Any]:
    """The example with other parts: of its one operation `url`, `parameters` and `target`, and those of its head."""
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(SHOP))
    operation = made["paths"]["/items/{id}"]["put"]
    if "url" in parts:
        operation["x-openwhisk"]["url"] = parts.pop("url")
    if "parameters" in parts:
        operation["parameters"] = parts.pop("parameters")
    if "target" in parts:
        cases(made)[0]["execute"][0]["invoke"]["target-url"] = parts.pop("target")
    return made | {name.replace("_", "-"): value for name, value in parts.items()}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (
            changed(basePath="/{x}"),
            "The base path (/{x}) cannot have parameters. Only the relative path supports path parameters.",
        ),
        (
            changed(url=f"{URL}.json"),
            "The action must use a response type of '.http' in order to receive the path parameters.",
        ),
        (
            changed(target=f"{URL}.http"),
            "The target-url for operationId 'putItemsId' must end in '$(request.path)' in order for actions to receive "
            "the path parameters.",
        ),
        (
            changed(parameters=[P | {"name": "other"}]),
            "The parameter 'id' defined in path '/items/{id}' does not match any of the parameters defined for the "
            "path in the swagger file.",
        ),
        (changed(x_ibm_configuration={}), "The swagger file is missing x-ibm-configuration.assembly.execute."),
        (changed(paths={"/a": 7}), "The paths of the swagger file and the operations of each must be objects."),
        (
            changed(paths={"/a": {"get": 7}}),
            "The paths of the swagger file and the operations of each must be objects.",
        ),
    ],
)
def test_what_is_checked_of_a_document(made: dict[str, Any], says: str) -> None:
    assert refusal(apis.check_swagger, made) == says


def test_parameters_may_be_the_paths_or_shared() -> None:
    made = changed(parameters=[])
    made["paths"]["/items/{id}"]["parameters"] = [P]
    apis.check_swagger(made)
    apis.check_swagger(changed(parameters=[{"$ref": "#/parameters/id"}]) | {"parameters": {"id": P}})


@pytest.mark.parametrize(
    "operation", [{}, {"operationId": ""}, {"operationId": "x", "responses": {}}, {"parameters": [P]}]
)
def test_an_operation_without_an_action_is_taken(operation: dict[str, Any]) -> None:
    made = changed(
        paths={"/a": {"get": operation, "parameters": [P]}}, x_ibm_configuration={"assembly": {"execute": []}}
    )
    apis.check_swagger(made)
    assert apis.api_of("ns", made, 1).base_path == "/shop"


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (changed(paths={"a": {}}), "Resource path must begin with '/'."),
        (changed(paths={"/a'b": {}}), 'resource path contains illegal character \\"\'\\".'),
        (changed(basePath="/it's"), 'basePath contains illegal character \\"\'\\".'),
        (changed(paths={"/a": {"BREW": {}}}), "Resource verb 'brew' not supported."),
    ],
)
def test_what_the_gateway_refuses_of_a_document(made: dict[str, Any], text: str) -> None:
    said = refusal(apis.api_of, "ns", made, 1)
    assert said == f'Unable to configure the API Gateway (status code 400): {{"status":400,"message":"Error: {text}"}}'


def test_what_cannot_be_kept() -> None:
    large = changed(description="x" * apis.DOCUMENT_BYTES)
    assert f"more than {apis.DOCUMENT_BYTES}" in refusal(apis.api_of, "ns", large, 1)
    assert "too large" in refusal(apis.api_of, "ns", changed(x_number=10**5000), 1)
    deep: Any = []
    for _ in range(apis.DEPTH_LIMIT):
        deep = [deep, 1]
    assert f"more than {apis.DEPTH_LIMIT} deep" in refusal(apis.api_of, "ns", changed(x_deep=deep), 1)


# ── how it is shown ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("namespace", "base_path", "url"),
    [
        ("guest", "/shop", "http://h:1/gw/guest/shop"),
        ("guest", "/", "http://h:1/gw/guest"),
        ("a b@c", "/my api/v1", "http://h:1/gw/a%20b@c/my%20api/v1"),
    ],
)
def test_where_it_answers(namespace: str, base_path: str, url: str) -> None:
    api = Api(namespace=namespace, base_path=base_path, title="", document={})
    assert apis.gateway_url("http://h:1", api) == url


def test_as_clients_read_it() -> None:
    assert apis.render_listed(apis.render(FOUND[0], "http://u")) == {
        "id": "Not Used",
        "key": "Not Used",
        "value": {
            "namespace": "Not Used",
            "gwApiActivated": True,
            "tenantId": "Not Used",
            "gwApiUrl": "http://u",
            "apidoc": FOUND[0].document,
        },
    }
