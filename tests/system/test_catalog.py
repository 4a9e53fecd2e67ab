"""The shipped packages on a real server: there soon after it is ready, and their actions in real containers."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.conftest import Api, has_sandbox
from tests.system.traces import until

from visp import catalog
from visp.client import running

PACKAGES = "/api/v1/namespaces/whisk.system/packages"
ACTIONS = "/api/v1/namespaces/whisk.system/actions"


def installed(api: Api, count: int = len(catalog.names())) -> list[Any]:
    """The packages of `whisk.system`, once there are so many."""
    until(lambda: len(api.get(f"{PACKAGES}?limit=200").json) >= count)
    return sorted(api.get(f"{PACKAGES}?limit=200").json, key=lambda one: one["name"])


@pytest.fixture(scope="module")
def shipped() -> Iterator[Api]:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with running.running({"catalog.packages": "all"}) as server:
        api = Api(server.url)
        installed(api)
        yield api


def invoke(api: Api, name: str, args: dict[str, Any] | None = None) -> Any:
    """The result, of a failure too."""
    answer = api.request("POST", f"{ACTIONS}/{name}?blocking=true", args or {})
    assert answer.status in (200, 502), answer
    return answer.json["response"]["result"]


def sequence(api: Api, name: str, *parts: str) -> None:
    components = [f"/whisk.system/{part}" for part in parts]
    body = {"exec": {"kind": "sequence", "components": components}}
    assert api.request("PUT", f"actions/{name}?overwrite=true", body).status == 200


def test_all_of_them_are_there_for_everybody(shipped: Api) -> None:
    packages = installed(shipped)
    assert [one["name"] for one in packages] == list(catalog.names())
    assert all(one["publish"] and not one["binding"] for one in packages)
    held = shipped.get(f"{PACKAGES}/alarms").json
    assert sorted(feed["name"] for feed in held["feeds"]) == ["alarm", "interval", "once"]
    assert held["parameters"] == [{"key": "trigger_payload", "value": ""}]
    assert shipped.request("PUT", f"{ACTIONS}/utils/mine", {}).status == 403


@pytest.mark.parametrize(
    ("name", "args", "result"),
    [
        ("utils/echo", {"a": 1}, {"a": 1}),
        ("utils/cat", {"lines": ["a", "b"]}, {"lines": ["a", "b"], "payload": "a\nb"}),
        ("utils/cat", {}, {"lines": [], "payload": ""}),
        ("utils/split", {"payload": "a,b", "separator": ","}, {"lines": ["a", "b"], "payload": "a,b"}),
        ("utils/split", {"payload": "a\nb"}, {"lines": ["a", "b"], "payload": "a\nb"}),
        ("utils/sort", {"lines": ["b", "10", "9"]}, {"lines": ["10", "9", "b"], "length": 3}),
        ("utils/head", {"lines": ["a", "b"]}, {"lines": ["a"], "num": 1}),
        ("utils/namespace", {}, {"namespace": "guest"}),
        ("utils/smash", {"$fieldName": "all", "x": 1}, {"all": {"x": 1}}),
        ("utils/smash", {}, {"error": "Expected an argument '$fieldName' of type 'string'."}),
        ("samples/greeting", {}, {"payload": "Hello, stranger from somewhere!"}),
        ("samples/helloWorld", {"payload": "Cat"}, {}),
        ("samples/wordCount", {"payload": "Five fuzzy felines frolic freely."}, {"count": 5}),
        ("samples/wordCountAsync", {"payload": "a b"}, {"count": 2}),
        ("samples/printParams", {"b": 1, "a": 2}, {"params": {"a": 2, "b": 1}}),
        ("samples/cat", {"lines": ["x"]}, {"lines": ["x"], "payload": "x"}),
        ("samples/head", {"lines": ["x", "y"], "num": 2}, {"lines": ["x", "y"], "num": 2}),
        ("samples/helloPromises", {"name": "Ann"}, {"lines": ["Hello,", "Ann", "from", "somewhere!"]}),
    ],
)
def test_utils_and_samples(shipped: Api, name: str, args: dict[str, Any], result: Any) -> None:
    assert invoke(shipped, name, args) == result


@pytest.mark.parametrize(
    ("args", "end"),
    [
        ({"path": "p/a"}, "/api/v1/namespaces/guest/actions/p/a"),
        ({"path": "t", "trigger": True}, "/api/v1/namespaces/guest/triggers/t"),
        ({"path": "a", "web": True, "ext": ".json"}, "/api/v1/web/guest/default/a.json"),
        ({"path": "p/a", "web": True}, "/api/v1/web/guest/p/a"),
    ],
)
def test_addresses(shipped: Api, args: dict[str, Any], end: str) -> None:
    assert invoke(shipped, "utils/hosturl", args)["url"].endswith(end)


def test_addresses_that_cannot_be(shipped: Api) -> None:
    wrong = {
        "triggers are not allowed for web actions.": {"trigger": True, "web": True},
        "triggers are not allowed in packages.": {"trigger": True, "path": "p/t"},
        'extension for web action must be one of [".html", ".http", ".json", ".svg", ".text"].': {
            "web": 1,
            "ext": ".x",
        },
    }
    for sentence, args in wrong.items():
        assert invoke(shipped, "utils/hosturl", args) == {"error": sentence}


def test_they_make_sequences(shipped: Api) -> None:
    sequence(shipped, "sorted", "utils/split", "utils/sort", "utils/cat")
    assert shipped.run("sorted", {"payload": "c,a,b", "separator": ","})["payload"] == "a\nb\nc"
    sequence(shipped, "counted", "samples/greeting", "samples/wordCount")
    assert shipped.run("counted", {"name": "Ann", "place": "Bern"}) == {"count": 4}


def test_a_binding_has_parameters_of_its_own(shipped: Api) -> None:
    binding = {"namespace": "whisk.system", "name": "utils"}
    body = {"binding": binding, "parameters": [{"key": "separator", "value": ";"}]}
    assert shipped.request("PUT", "packages/mine", body).status == 200
    assert shipped.run("mine/split", {"payload": "a;b"})["lines"] == ["a", "b"]


def test_actions_that_call_actions(shipped: Api) -> None:
    assert invoke(shipped, "samples/invoke")["date"].endswith("Z")
    shipped.action("fails", "function main () { return { error: 'no' } }")
    args = {"$tryName": "fails", "$catchName": "/whisk.system/utils/smash", "$fieldName": "x"}
    assert "$fieldName" in invoke(shipped, "combinators/trycatch", args)["error"]
    args = {"$conditionName": "fails", "$actionName": "/whisk.system/utils/echo"}
    assert invoke(shipped, "combinators/eca", args) == {"$eca": "Condition was false."}
    args = {"$actionName": "/whisk.system/samples/greeting", "$attempts": 2, "name": "Ann"}
    assert invoke(shipped, "combinators/retry", args) == {"payload": "Hello, Ann from somewhere!"}


def test_counting_down(shipped: Api) -> None:
    assert invoke(shipped, "samples/countdown", {"n": 2})["n"] == 2

    def numbers() -> list[int]:
        records = shipped.get("activations?name=samples/countdown&docs=true&limit=10").json
        return sorted(record["response"]["result"].get("n", -1) for record in records)

    until(lambda: numbers() == [0, 1, 2])


def test_a_protocol_through_a_relay(shipped: Api) -> None:
    """Nothing listens inside: what is asked of the container's own address stays there."""
    error = invoke(shipped, "redis/command", {"url": "redis://127.0.0.1", "command": "PING"})["error"]
    assert error.startswith("cannot reach 127.0.0.1:6379: ")


def test_a_feed_asks_the_platform(shipped: Api) -> None:
    turn = {"lifecycleEvent": "CREATE", "authKey": shipped.auth}
    assert invoke(shipped, "alarms/once", turn) == {"error": "no trigger name parameter was provided"}
    turn = {"lifecycleEvent": "READ", "triggerName": "/_/none", "authKey": shipped.auth}
    assert isinstance(invoke(shipped, "alarms/alarm", turn)["error"], str)


def revisions(data_dir: Path) -> dict[str, int]:
    with sqlite3.connect(f"file:{data_dir}/entities.db?mode=ro", uri=True) as database:
        rows = database.execute("SELECT id, revision FROM documents WHERE id LIKE 'whisk.system/%'")
        found = dict(rows.fetchall())
    database.close()
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_there_is_not_written_again(workers: int) -> None:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        first, second = (started(Path(folder), workers, names) for names in ("utils samples", "utils samples mqtt"))
    assert len(first) == 2 + 9 + 11
    assert {name: second[name] for name in first} == first
    assert len(second) == len(first) + 3


def started(folder: Path, workers: int, packages: str) -> dict[str, int]:
    """The revisions that a server leaves behind which has these packages; one of its processes installs them."""
    settings = {"workers": workers, "container.cells_dir": f"{folder}/cells", "catalog.packages": packages}
    server = running.start(folder / "data", settings)
    try:
        api = Api(server.url)
        assert [one["name"] for one in installed(api, len(packages.split()))] == sorted(packages.split())
        assert invoke(api, "utils/echo", {"a": 1}) == {"a": 1}
        until(lambda: "catalog.installed" in server.read_log())
    finally:
        server.stop()
    assert server.read_log().count("catalog.installed") == 1
    server.log.unlink()
    return revisions(folder / "data")


def test_none_where_none_is_wanted(api: Api) -> None:
    assert api.get(PACKAGES).json == []
