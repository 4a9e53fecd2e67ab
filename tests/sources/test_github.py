"""`github/webhook` as clients use it: a hook at a stand-in of GitHub, and what GitHub sends, signed, as fires.

The payloads are those of GitHub's documentation, as `@octokit/webhooks-examples` has them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tests.system.conftest import GUEST, Answer, Api, has_sandbox
from tests.system.traces import until
from tests.unit.catalog.conftest import Heard, StandIn
from tests.unit.catalog.conftest import standin as standin

from visp.client import running

EXAMPLES = Path(__file__).parent / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"
FEED = "/api/v1/namespaces/whisk.system/actions/github/webhook"
TOLD = ["push", "issues", "pull_request", "star", "release", "ping"]

if not EXAMPLES.exists():
    pytest.skip("GitHub's examples are missing: npm ci --prefix tests/sources", allow_module_level=True)


class GitHub:
    """One repository's hooks, in the stand-in."""

    def __init__(self, standin: StandIn) -> None:
        self.url = standin.url
        self.hooks: dict[int, dict[str, Any]] = {}
        self.refuses = False
        standin.answer = self.answer

    def answer(self, heard: Heard) -> tuple[int, Any]:
        if heard.headers["authorization"] != "Bearer tok" or self.refuses:
            return 401, {"message": "Bad credentials"}
        place, _, number = heard.path.removeprefix("/repos/octo/repo/hooks").partition("/")
        assert not place
        match heard.method:
            case "POST":
                id = len(self.hooks) + 1
                self.hooks[id] = heard.json
                return 201, {"id": id, **heard.json}
            case "DELETE":
                return (204, b"") if self.hooks.pop(int(number), None) else (404, {"message": "Not Found"})
        masked = [{"id": id, "config": hook["config"] | {"secret": "********"}} for id, hook in self.hooks.items()]
        return 200, masked if heard.query["page"] == "1" else []

    def send(self, event: str, payload: Any, secret: str | None = None) -> int:
        """As GitHub delivers: the status of the answer."""
        (hook,) = self.hooks.values()
        config = hook["config"]
        body = json.dumps(payload, separators=(",", ":")).encode()
        digest = hmac.new((secret or config["secret"]).encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/044aadd",
            "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
            "X-GitHub-Event": event,
            "X-Hub-Signature-256": f"sha256={digest}",
        }
        try:
            with urlopen(Request(config["url"], body, headers), timeout=20) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code


@pytest.fixture
def github(standin: StandIn) -> GitHub:
    return GitHub(standin)


@pytest.fixture
def api(github: GitHub) -> Iterator[Api]:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    port = github.url.rpartition(":")[2]
    relays = f"{port}=127.0.0.1:{port} guest"
    with running.running({"catalog.packages": "github", "network.relays": relays}) as server:
        api = Api(server.url)
        until(lambda: api.get(FEED).status == 200, 20.0)
        api.action("heard", "def main(args):\n    return args", "python:3.11")
        assert api.request("PUT", "triggers/told", {}).status == 200
        rule = {"trigger": "/_/told", "action": "/_/heard"}
        assert api.request("PUT", "rules/told-rule", rule).status == 200
        yield api


def tell(api: Api, github: GitHub, event: str, **parameters: Any) -> Answer:
    told = {"lifecycleEvent": event, "triggerName": "/_/told", "authKey": GUEST, "baseUrl": github.url}
    hook = {"username": "octo", "repository": "repo", "accessToken": "tok", "events": ",".join(TOLD)}
    return api.request("POST", f"{FEED}?blocking=true", told | hook | parameters)


def fired(api: Api) -> list[Any]:
    records = api.get("activations?name=told&docs=true&limit=200").json
    return [record["response"]["result"] for record in records]


def examples() -> list[tuple[str, Any]]:
    """One of each event."""
    told = {one["name"]: one["examples"][0] for one in json.loads(EXAMPLES.read_text())}
    return [(name, told[name]) for name in TOLD]


def test_what_github_tells_is_fired(api: Api, github: GitHub) -> None:
    made = tell(api, github, "CREATE")
    assert made.status == 200, made.json
    (hook,) = github.hooks.values()
    assert hook["events"] == TOLD
    assert hook["config"]["url"].startswith(f"{api.url}/hooks/")
    secret = hook["config"]["secret"]
    password = GUEST.partition(":")[2]
    assert len(secret) == 64
    assert not any(
        hidden in json.dumps(shown) for hidden in (secret, password) for shown in (made.json, hook["events"])
    )
    assert password not in hook["config"]["url"]
    for name, payload in examples():
        assert github.send(name, payload) == 200
    assert github.send(*examples()[0]) == 200
    assert github.send(*examples()[0], secret="another") == 401
    until(lambda: len(fired(api)) >= len(TOLD), 20.0)
    assert sorted(map(json.dumps, fired(api))) == sorted(json.dumps(payload) for _, payload in examples())
    config = api.get("feeds/told").json["config"]
    assert (config["repository"], config["events"]) == ("octo/repo", ",".join(TOLD))
    assert secret not in json.dumps(config)
    assert tell(api, github, "READ").json["response"]["result"] == {}
    assert tell(api, github, "DELETE").json["response"]["result"] == {"deleted": 1}
    assert (github.hooks, api.get("feeds/told").status) == ({}, 404)
    error = tell(api, github, "DELETE").json["response"]["result"]["error"]
    assert error.startswith("Found no existing webhooks for trigger URL ")


def test_a_hook_that_github_refuses_leaves_nothing(api: Api, github: GitHub) -> None:
    answer = tell(api, github, "CREATE", accessToken="stale")
    assert answer.json["response"]["result"] == {"error": "401 from GitHub: Bad credentials"}
    assert api.get("feeds/told").status == 404
    assert tell(api, github, "CREATE").status == 200
    github.refuses = True
    assert tell(api, github, "DELETE").json["response"]["result"] == {"error": "401 from GitHub: Bad credentials"}
    assert api.get("feeds/told").status == 404


def test_another_hook_takes_the_place_of_the_first(api: Api, github: GitHub) -> None:
    public = "https://visp.example.com/at/"
    assert tell(api, github, "CREATE", apihost=public).status == 200
    (first,) = github.hooks.values()
    assert first["config"]["url"].startswith("https://visp.example.com/at/hooks/")
    assert tell(api, github, "CREATE", apihost=public, events="push").status == 200
    (second,) = github.hooks.values()
    assert second["events"] == ["push"]
    assert first["config"]["url"] != second["config"]["url"]
