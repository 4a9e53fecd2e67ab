"""The Swift client of iOS by its requests: actions are invoked and triggers fired, nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tests.system.conftest import Answer, Api

HEADERS = {"Content-Type": "application/json; charset=utf-8"}


@pytest.fixture(autouse=True)
def entities(api: Api) -> None:
    api.request("PUT", "packages/swift-package?overwrite=true", {})
    api.action("swift-package/echo", "const main = (args) => args")
    api.request("PUT", "triggers/swift-trigger?overwrite=true", {})
    rule = {"trigger": "/_/swift-trigger", "action": "/_/swift-package/echo"}
    api.request("PUT", "rules/swift-rule?overwrite=true", rule)


def post(api: Api, path: str, body: Any) -> Answer:
    return api.request("POST", path, body, HEADERS)


@pytest.mark.parametrize("namespace", ["_", "guest"])
def test_invoke_action(api: Api, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/actions/swift-package/echo"
    accepted = post(api, path, {"a": "ß"})
    assert accepted.status == 202
    assert isinstance(accepted.json["activationId"], str)
    answer = post(api, f"{path}?blocking=true", {"a": "ß"}).json
    assert isinstance(answer["activationId"], str)
    assert answer["response"]["result"] == {"a": "ß"}
    assert not {"error", "code"} & set(answer)  # what stands for a failure at the top


def test_fire_trigger(api: Api) -> None:
    fired = post(api, "triggers/swift-trigger", {"a": 1})
    assert fired.status == 202
    assert isinstance(fired.json["activationId"], str)


def test_refusals(api: Api) -> None:
    answer = post(api, "actions/swift-none?blocking=true", {})
    assert answer.status == 404
    assert isinstance(answer.json["error"], str)
