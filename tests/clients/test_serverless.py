"""The Serverless Framework with `serverless-openwhisk`: a service is deployed, shown, used and removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest
from tests.clients.conftest import HERE, MODULES, can_run, node
from tests.system.answers import keys
from tests.system.conftest import GUEST, Api
from tests.system.traces import until

from visp.client import running

pytestmark = can_run

Serverless = Callable[..., str]


@pytest.fixture(scope="module")
def sls(server: running.Server, tmp_path_factory: pytest.TempPathFactory) -> Serverless:
    """The command, in the folder of a service that is deployed."""
    folder = tmp_path_factory.mktemp("hello")
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(HERE / "hello", folder, dirs_exist_ok=True)
    (folder / "node_modules").symlink_to(MODULES)
    variables = {
        "HOME": str(home),
        "OW_APIHOST": server.url,
        "OW_AUTH": GUEST,
        "OW_NAMESPACE": "_",
        "CI": "1",
        "SLS_TELEMETRY_DISABLED": "1",
        "SLS_NOTIFICATIONS_MODE": "off",
    }

    def run(*words: str) -> str:
        program = str(MODULES / "serverless/bin/serverless.js")
        return node(server, program, *words, folder=folder, **variables)

    run("deploy")
    return run


def test_what_was_deployed(sls: Serverless, api: Api) -> None:
    greet = api.get("actions/hello-dev-greet").json
    assert greet["exec"]["kind"].startswith("nodejs:")
    assert greet["exec"]["binary"]
    assert (greet["limits"]["memory"], greet["limits"]["timeout"]) == (128, 30_000)
    assert keys(greet["parameters"]) == {"greeting": "Hello"}
    assert keys(greet["annotations"])["description"] == "says hello"
    assert api.get("actions/hello-dev-loudly").json["exec"] == {
        "kind": "sequence",
        "components": ["/guest/hello-dev-greet", "/guest/hello-dev-shout"],
    }
    assert keys(api.get("packages/hello-shared").json["parameters"]) == {"language": "English"}
    rule = api.get("rules/hello_hello-called_to_greet").json
    assert (rule["trigger"]["name"], rule["action"]["name"], rule["status"]) == (
        "hello-called",
        "hello-dev-greet",
        "active",
    )


def test_deploying_again_replaces(sls: Serverless, api: Api) -> None:
    assert api.get("actions/hello-dev-greet").json["version"] == "0.0.1"
    told = sls("deploy")
    assert api.get("actions/hello-dev-greet").json["version"] == "0.0.2"
    for name in ("hello-dev-greet", "hello-dev-shout", "hello-dev-loudly", "hello-called", "hello-shared"):
        assert name in told


def test_info(sls: Serverless) -> None:
    assert "hello-dev-greet" in sls("info")


def test_invoke_and_logs(sls: Serverless, api: Api) -> None:
    assert json.loads(sls("invoke", "-f", "greet", "-d", '{"name": "you"}').partition("\n\n")[0]) == {
        "message": "Hello, you!"
    }
    assert api.run("hello-dev-loudly") == {"message": "HELLO, STRANGER!"}
    until(lambda: len(api.get("activations?name=hello-dev-greet").json) == 2)
    lines = [line.partition(" greeting ")[2] for line in sls("logs", "-f", "greet").splitlines()]
    assert [line for line in lines if line] == ["you", "stranger"]


def test_the_trigger_greets(sls: Serverless, api: Api) -> None:
    before = len(api.get("activations?name=hello-dev-greet").json)
    assert api.request("POST", "triggers/hello-called", {"name": "trigger"}).status == 202
    until(lambda: len(api.get("activations?name=hello-dev-greet").json) > before)
    newest = api.get("activations?name=hello-dev-greet&limit=1&docs=true").json[0]
    assert newest["response"]["result"] == {"message": "Hello, trigger!"}


def test_remove(sls: Serverless, api: Api) -> None:
    """The last of the story."""
    sls("remove")
    for path in ("actions", "rules", "triggers", "packages"):
        assert [entry["name"] for entry in api.get(f"{path}?limit=200").json if "hello" in entry["name"]] == []
