"""What the REST tests share: entities to work on, and what a refusal looks like."""

from __future__ import annotations

from typing import Any

from tests.system.conftest import Answer, Api

API = "/api/v1/namespaces"
CODE = "function main(args) { return args }"
ACTION = {"exec": {"kind": "nodejs:20", "code": CODE}}
MALFORMED = "The request content was malformed:\n"
UNEXPECTED = MALFORMED + "Unexpected"
NAME_INCOMPLETE = (
    MALFORMED
    + "requirement failed: The fully qualified name of the entity must contain at least the namespace and the name "
    "of the entity."
)


def prepare(api: Api) -> None:
    """An action, a trigger, and a rule between them."""
    put(api, "actions/rest-echo", ACTION)
    put(api, "triggers/rest-trigger", {})
    put(api, "rules/rest-rule", {"trigger": "/_/rest-trigger", "action": "/_/rest-echo"})


def put(api: Api, path: str, body: Any) -> Any:
    answer = api.request("PUT", f"{path}?overwrite=true", body)
    assert answer.status == 200, answer
    return answer.json


def is_routed(answer: Answer) -> bool:
    """Whether the answer carries the headers that a route of the API sets."""
    return answer.headers.get("access-control-allow-origin") == "*"


def refused(answer: Answer, status: int, sentence: str, *, routed: bool) -> None:
    assert answer.status == status, answer
    assert answer.json["error"] == sentence
    assert answer.json["code"] == answer.headers["x-request-id"]
    assert set(answer.json) == {"error", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert is_routed(answer) is routed


def bad_query(name: str, reason: str) -> str:
    return f"The query parameter '{name}' was malformed:\n{reason}"


def keys(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Parameters or annotations as a mapping."""
    return {entry["key"]: entry["value"] for entry in entries}
