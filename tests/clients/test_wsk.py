"""The walk through `wsk`: every command's requests in their order, its exit status, and the types that it reads.

`wsk api` is in `tests/system/test_apis.py`.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.clients.wsk import ALL, PAGE, USER_AGENT, Wsk, check, pairs
from tests.system.answers import keys
from tests.system.conftest import Api
from tests.system.traces import until

from visp.client import running

CODE = "function main(args) { console.log('said'); console.error('shouted'); return args }"
EXEC = {"kind": "nodejs:default", "code": CODE}
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z +(stdout|stderr): (.*)")
BAD, UNKNOWN, FORBIDDEN, ABSENT, CONFLICT, TOO_LARGE, FAILED = 144, 145, 147, 148, 153, 157, 246


@pytest.fixture
def wsk(api: Api) -> Wsk:
    return Wsk(api)


def create(wsk: Wsk, name: str, **fields: Any) -> Any:
    """`wsk action create`."""
    return wsk.put(f"actions/{name}", {"namespace": "_", "name": name, "exec": EXEC, **fields}).ok()


# ── property, namespace, sdk ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/"])
def test_property_get_shows_the_build(server: running.Server, path: str) -> None:
    answer = Wsk(Api(server.url, None)).ask("GET", path).ok()
    assert answer["build"]
    assert answer["buildno"]
    assert not answer["build"].startswith(("2017", "2018"))  # what wskdebug takes for a server of old


def test_property_get_shows_the_namespace(wsk: Wsk) -> None:
    assert wsk.ask("GET", "/api/v1/namespaces").ok() == ["guest"]


def test_namespace_get(wsk: Wsk) -> None:
    create(wsk, "wsk-mine")
    wsk.put("triggers/wsk-mine-trigger", {"name": "wsk-mine-trigger"}).ok()
    wsk.put("rules/wsk-mine-rule", rule("wsk-mine-rule", "wsk-mine-trigger", "wsk-mine")).ok()
    assert "wsk-mine" in names(wsk.list("actions", ALL))
    assert isinstance(wsk.list("packages", ALL), list)
    assert "wsk-mine-trigger" in names(wsk.list("triggers", ALL))
    for entry in wsk.list("rules", ALL):
        assert wsk.get(f"rules/{entry['name']}").ok()["status"] in ("active", "inactive")


def test_what_a_server_is_asked_about_itself(server: running.Server) -> None:
    """wskdeploy takes the runtimes of a server only under this very Content-Type, else those of years ago."""
    asked = Api(server.url, None).request("GET", "/", headers={"Content-Type": "application/json"})
    assert asked.headers["content-type"] == "application/json"
    told = asked.json
    assert told["api_paths"] == ["/api/v1"]
    for name in ("actions_per_minute", "triggers_per_minute", "concurrent_actions"):
        assert type(told["limits"][name]) is int
        assert told["limits"][name] >= 0
    assert all(type(limit) is int for limit in told["limits"].values())
    for family in told["runtimes"].values():
        assert sum(kind["default"] for kind in family) == 1
        for kind in family:
            assert isinstance(kind["kind"], str)
            assert isinstance(kind["image"], str)
            assert {type(kind[flag]) for flag in ("deprecated", "default", "attached", "requireMain")} == {bool}


def test_the_description_of_the_api(server: running.Server) -> None:
    assert Api(server.url, None).get("/api/v1/api-docs").json["swagger"] == "2.0"


@pytest.mark.parametrize("path", ["/blackbox.tar.gz", "/OpenWhiskIOSStarterApp.zip"])
def test_sdk_install(server: running.Server, path: str) -> None:
    answer = Api(server.url, None).get(path)
    assert (answer.status, answer.body) == (301, b"")
    assert answer.headers["location"].startswith("https://github.com/")


# ── action ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_action_create_get_delete(wsk: Wsk) -> None:
    limits = {"timeout": 2000, "memory": 128, "logs": 1, "concurrency": 1}
    create(wsk, "wsk-a", parameters=pairs(p=[1]), annotations=pairs(a={"b": None}), limits=limits)
    assert wsk.put("actions/wsk-a", {"name": "wsk-a", "exec": EXEC}).exit == CONFLICT
    got = wsk.get("actions/wsk-a?code=false").ok()
    assert "code" not in got["exec"]
    assert (keys(got["parameters"]), got["limits"]) == ({"p": [1]}, limits)
    assert keys(got["annotations"]) == {"a": {"b": None}, "exec": got["exec"]["kind"], "provide-api-key": False}
    assert wsk.get("actions/wsk-a?code=true").ok()["exec"]["code"] == CODE  # --save
    assert wsk.delete("actions/wsk-a").exit == 0
    assert wsk.get("actions/wsk-a?code=false").exit == ABSENT
    assert wsk.delete("actions/wsk-a").exit == ABSENT


def test_action_create_copy(wsk: Wsk) -> None:
    create(wsk, "wsk-source", parameters=pairs(p=1), annotations=pairs(a=2))
    source = wsk.get("actions/wsk-source?code=true").ok()
    copied = {name: source[name] for name in ("exec", "parameters", "annotations")}
    copy = create(wsk, "wsk-copy", **copied)
    assert copy["exec"] == source["exec"]
    assert keys(copy["parameters"]) == {"p": 1}
    assert keys(copy["annotations"]) == keys(source["annotations"])


def test_action_create_sequence(wsk: Wsk) -> None:
    create(wsk, "wsk-part")
    components = ["/_/wsk-part", "/_/wsk-part"]
    sequence = create(wsk, "wsk-sequence", exec={"kind": "sequence", "components": components})
    assert sequence["exec"]["components"] == ["/guest/wsk-part"] * 2
    assert wsk.invoke("wsk-sequence", {"a": 1}, result=True).ok() == {"a": 1}


def test_action_update(wsk: Wsk) -> None:
    assert wsk.update_action("wsk-u", {"exec": EXEC}).ok()["version"] == "0.0.1"  # update creates too
    updated = wsk.update_action("wsk-u", {"annotations": pairs(keep=1, drop=2), "parameters": pairs(p=1)}).ok()
    assert (updated["version"], updated["exec"]["code"]) == ("0.0.2", CODE)
    updated = wsk.update_action("wsk-u", {"delAnnotations": ["drop"]}).ok()
    assert set(keys(updated["annotations"])) == {"keep", "exec", "provide-api-key"}
    assert keys(updated["parameters"]) == {"p": 1}


WEB = {"web_export": True, "raw_http": False, "final": True}


@pytest.mark.parametrize(
    ("web", "secure"),
    [
        (WEB, None),
        (WEB | {"raw_http": True}, None),
        ({"web_export": False, "raw_http": False, "final": False}, None),
        (WEB, 1234567890123456789),
        (WEB, "a secret"),
        (WEB, False),
    ],
    ids=["true", "raw", "false", "secure true", "secure text", "secure false"],
)
def test_action_update_web_keeps_other_annotations(wsk: Wsk, web: dict[str, bool], secure: object) -> None:
    given = pairs(other=[1], require_whisk_auth="before")
    assert wsk.update_action("wsk-web", {"exec": EXEC, "annotations": given}).exit == 0
    sent: dict[str, Any] = {"annotations": pairs(**web)}
    if secure is False:
        sent["delAnnotations"] = ["require-whisk-auth"]
    elif secure is not None:
        sent["annotations"] += pairs(require_whisk_auth=secure)
    found = keys(wsk.update_action("wsk-web", sent).ok()["annotations"])
    assert found["other"] == [1]
    assert {name: found[name.replace("_", "-")] for name in web} == web
    assert found.get("require-whisk-auth") == (None if secure is False else secure or "before")


def test_action_list(wsk: Wsk) -> None:
    wsk.put("packages/wsk-listed", {"name": "wsk-listed"}).ok()
    for name in ("wsk-listed/one", "wsk-listed/two", "wsk-three"):
        create(wsk, name)
    assert names(wsk.list("actions", "limit=3&skip=0")) == ["wsk-three", "two", "one"]
    inner = wsk.list("actions/wsk-listed/")
    assert [(entry["namespace"], entry["name"]) for entry in inner] == [
        ("guest/wsk-listed", "two"),
        ("guest/wsk-listed", "one"),
    ]
    assert all(isinstance(keys(entry["annotations"])["exec"], str) for entry in inner)
    assert wsk.ask("GET", f"/api/v1/namespaces/guest/actions?{PAGE}").exit == 0


def test_action_invoke(wsk: Wsk) -> None:
    create(wsk, "wsk-run")
    assert set(wsk.invoke("wsk-run").ok()) == {"activationId"}
    record = wsk.invoke("wsk-run", {"a": "ä"}, blocking=True).ok()
    assert record["response"] == {"status": "success", "success": True, "result": {"a": "ä"}, "size": 9}
    assert wsk.invoke("wsk-run", {"a": 1}, result=True).ok() == {"a": 1}
    answer = wsk.api.request("POST", "/api/v1/namespaces/guest/actions/wsk-run?blocking=true&result=true", {})
    assert answer.json == {}


def test_action_invoke_that_fails(wsk: Wsk) -> None:
    create(wsk, "wsk-fail", exec={"kind": "nodejs:default", "code": "function main() { return {error: 'no'} }"})
    for result in (False, True):
        said = wsk.invoke("wsk-fail", blocking=True, result=result)
        assert said.exit == FAILED
        assert "code" not in said.json  # what tells a failed action from a failing server
    assert said.json == {"error": "no"}


def test_a_blocking_invocation_that_takes_longer(wsk: Wsk) -> None:
    """The wait is cut short here: `wsk` itself waits for as long as the server does."""
    code = "function main() { return new Promise((done) => setTimeout(done, 1000)) }"
    create(wsk, "wsk-slow", exec={"kind": "nodejs:default", "code": code})
    said = wsk.ask("POST", "actions/wsk-slow?blocking=true&result=false&timeout=1", {}, is_blocking=True)
    assert said.exit == 202
    until(lambda: wsk.get(f"activations/{said.json['activationId']}").exit == 0)


def test_names_with_blanks_and_signs(wsk: Wsk) -> None:
    path = "actions/wsk%20na%40me%26.x"
    assert wsk.put(path, {"exec": EXEC}).ok()["name"] == "wsk na@me&.x"
    assert wsk.get(f"{path}?code=false").exit == 0
    assert wsk.delete(path).exit == 0


# ── activation ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_activation_get_logs_result_and_last(wsk: Wsk) -> None:
    create(wsk, "wsk-recorded")
    id = wsk.invoke("wsk-recorded", {"a": 1}, blocking=True).ok()["activationId"]
    until(lambda: wsk.list("activations", "limit=1&skip=0")[0]["activationId"] == id)  # --last
    record = wsk.get(f"activations/{id}").ok()
    logs = wsk.ask("GET", f"activations/{id}/logs").ok()["logs"]
    assert record["logs"] == logs
    assert sorted(stripped(logs)) == [("stderr", "shouted"), ("stdout", "said")]
    assert wsk.ask("GET", f"activations/{id}/result").ok()["result"] == {"a": 1}


def test_activation_get_of_a_failure_is_no_failure(wsk: Wsk) -> None:
    create(wsk, "wsk-failed", exec={"kind": "nodejs:default", "code": "function main() { return {error: 'no'} }"})
    id = wsk.invoke("wsk-failed", blocking=True).json["activationId"]
    record = until(lambda: wsk.get(f"activations/{id}")).ok()
    assert record["response"]["success"] is False


def test_activation_list_has_the_columns(wsk: Wsk) -> None:
    create(wsk, "wsk-columns")
    for _ in range(2):
        wsk.invoke("wsk-columns", blocking=True).ok()
    newest, oldest = until(lambda: len(got := wsk.list("activations", f"{PAGE}&name=wsk-columns")) == 2 and got)
    for entry in (newest, oldest):
        assert entry["statusCode"] == 0
        assert entry["end"] - entry["start"] == entry["duration"]
        assert keys(entry["annotations"])["kind"].startswith("nodejs:")
        assert (entry["namespace"], entry["name"], entry["version"]) == ("guest", "wsk-columns", "0.0.1")
    assert "initTime" in keys(oldest["annotations"])  # cold
    assert "initTime" not in keys(newest["annotations"])  # warm
    for query in (f"{PAGE}&since={newest['start'] + 1}", f"{PAGE}&upto={oldest['start'] - 1}"):
        assert wsk.list("activations", f"{query}&name=wsk-columns") == []
    full = wsk.list("activations", f"{PAGE}&name=wsk-columns&docs=true")  # -f
    assert [len(record["logs"]) for record in full] == [2, 2]


def test_activation_list_of_a_packaged_action(wsk: Wsk) -> None:
    wsk.put("packages/wsk-filter", {"name": "wsk-filter"}).ok()
    create(wsk, "wsk-filter/inner")
    wsk.invoke("wsk-filter/inner", blocking=True).ok()
    until(lambda: len(wsk.list("activations", f"{PAGE}&name=wsk-filter/inner")) == 1)
    assert wsk.list("activations", f"{PAGE}&name=inner") == []


def test_activation_poll_prints_each_once_with_its_logs(wsk: Wsk) -> None:
    create(wsk, "wsk-polled")
    newest = wsk.list("activations", "limit=1&skip=0&docs=true")
    since = newest[0]["start"] + 1 if newest else 0
    called = {wsk.invoke("wsk-polled", {"n": n}).ok()["activationId"] for n in range(5)}
    printed: dict[str, list[str]] = {}

    def poll() -> bool:
        nonlocal since
        for record in reversed(wsk.list("activations", f"docs=true&{ALL}&since={since}&name=wsk-polled")):
            printed.setdefault(record["activationId"], record["logs"])
        return called <= set(printed)

    until(poll)
    for logs in printed.values():
        assert sorted(stripped(logs)) == [("stderr", "shouted"), ("stdout", "said")]


# ── package ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_package_create_update_get_delete(wsk: Wsk) -> None:
    body = {"namespace": "_", "name": "wsk-p", "parameters": pairs(p=1), "annotations": pairs(a=2)}
    assert wsk.put("packages/wsk-p", body).ok()["publish"] is False
    assert wsk.put("packages/wsk-p", body).exit == CONFLICT
    shared = wsk.put("packages/wsk-p", {"name": "wsk-p", "publish": True}, overwrite=True).ok()  # --shared yes
    assert (shared["publish"], keys(shared["parameters"])) == (True, {"p": 1})
    create(wsk, "wsk-p/inner")
    got = wsk.get("packages/wsk-p").ok()
    assert got["binding"] == {}
    for inner in got["actions"]:
        check("actions", inner)
    assert wsk.delete("packages/wsk-p").exit == CONFLICT
    assert wsk.delete("actions/wsk-p/inner").exit == 0
    assert wsk.delete("packages/wsk-p").exit == 0
    assert wsk.get("packages/wsk-p").exit == ABSENT


def test_package_bind_and_list(wsk: Wsk) -> None:
    wsk.put("packages/wsk-provider", {"name": "wsk-provider", "parameters": pairs(a=1, b=2)}).ok()
    create(wsk, "wsk-provider/inner")
    body = {"name": "wsk-bound", "parameters": pairs(b=3), "binding": {"namespace": "_", "name": "wsk-provider"}}
    assert wsk.put("packages/wsk-bound", body).ok()["binding"] == {"namespace": "guest", "name": "wsk-provider"}
    assert wsk.put("packages/wsk-bound", body).exit == CONFLICT
    assert wsk.put("packages/wsk-bound", body, overwrite=True).exit == 0  # -o
    assert keys(wsk.get("packages/wsk-bound").ok()["parameters"]) == {"a": 1, "b": 3}
    assert names(wsk.list("packages", "limit=2&skip=0")) == ["wsk-bound", "wsk-provider"]
    assert names(wsk.list("actions/wsk-bound/")) == ["inner"]
    assert wsk.invoke("wsk-bound/inner", result=True).ok() == {"a": 1, "b": 3}


def test_package_refresh_is_no_route(wsk: Wsk) -> None:
    assert wsk.ask("POST", "packages/refresh").exit == ABSENT


# ── trigger and rule ────────────────────────────────────────────────────────────────────────────────────────────


def test_trigger_commands(wsk: Wsk) -> None:
    body = {"name": "wsk-t", "parameters": pairs(p=1), "annotations": pairs(a=2)}
    assert wsk.get("triggers/wsk-t").exit == ABSENT
    assert wsk.put("triggers/wsk-t", body).exit == 0
    assert wsk.put("triggers/wsk-t", body).exit == CONFLICT
    assert wsk.get("triggers/wsk-t").exit == 0  # update looks for a feed first
    assert wsk.put("triggers/wsk-t", body, overwrite=True).ok()["version"] == "0.0.2"
    assert wsk.list("triggers")[0]["name"] == "wsk-t"
    unheard = wsk.ask("POST", "triggers/wsk-t", {})
    assert (unheard.exit, unheard.answer.status, unheard.answer.body) == (0, 204, b"")
    assert wsk.delete("triggers/wsk-t").exit == 0


def rule(name: str, trigger: str, action: str) -> dict[str, Any]:
    """The body that `wsk rule create` sends."""
    return {"name": name, "trigger": f"/_/{trigger}", "action": f"/_/{action}", "status": ""}


def test_rule_commands(wsk: Wsk) -> None:
    create(wsk, "wsk-heard")
    wsk.put("triggers/wsk-said", {"name": "wsk-said"}).ok()
    body = rule("wsk-r", "wsk-said", "wsk-heard")
    assert wsk.put("rules/wsk-r", body).ok()["status"] == "active"
    assert wsk.put("rules/wsk-r", body).exit == CONFLICT
    assert wsk.put("rules/wsk-r", body, overwrite=True).ok()["version"] == "0.0.2"

    fired = wsk.ask("POST", "triggers/wsk-said", {"a": 1}).ok()["activationId"]
    [log] = until(lambda: wsk.get(f"activations/{fired}")).ok()["logs"]
    assert '"rule":"guest/wsk-r"' in log

    for status in ("inactive", "active", "inactive"):
        answer = wsk.ask("POST", "rules/wsk-r", {"status": status, "trigger": None, "action": None})
        assert answer.exit == 0
        assert wsk.get("rules/wsk-r").ok()["status"] == status
    assert wsk.list("rules")[0]["name"] == "wsk-r"
    switched = wsk.ask("POST", "rules/wsk-r", {"status": "inactive", "trigger": None, "action": None})
    assert (switched.exit, wsk.delete("rules/wsk-r").exit) == (0, 0)  # --disable
    assert wsk.get("rules/wsk-r").exit == ABSENT


def test_trigger_create_with_a_feed(wsk: Wsk) -> None:
    create(wsk, "wsk-feed", annotations=pairs(feed=True), exec={**EXEC, "code": "function main(args) { return args }"})
    wsk.put("triggers/wsk-fed", {"name": "wsk-fed", "annotations": pairs(feed="/_/wsk-feed")}).ok()
    for event in ("CREATE", "READ", "UPDATE", "DELETE"):
        sent = {"lifecycleEvent": event, "triggerName": "/_/wsk-fed", "authKey": wsk.api.auth, "every": 5}
        assert wsk.invoke("wsk-feed", sent, blocking=True).ok()["response"]["result"] == sent
        assert keys(wsk.get("triggers/wsk-fed").ok()["annotations"]) == {"feed": "/_/wsk-feed"}
    assert wsk.delete("triggers/wsk-fed").exit == 0


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────


def test_exit_statuses(wsk: Wsk, server: running.Server) -> None:
    assert wsk.put("actions/wsk-bad", {"exec": {"kind": "cobol:60", "code": ""}}).exit == BAD
    assert Wsk(Api(server.url, None)).ask("GET", f"actions?{PAGE}").exit == UNKNOWN
    assert Wsk(Api(server.url, "nobody:" + "x" * 64)).ask("GET", f"actions?{PAGE}").exit == UNKNOWN
    assert wsk.get("/api/v1/namespaces/wsk-foreign/actions/x?code=false").exit == FORBIDDEN
    assert wsk.put("actions/wsk-large", {"exec": EXEC, "parameters": pairs(p="x" * 1024 * 1024)}).exit == TOO_LARGE
    assert wsk.put("actions/wsk-none/x", {"exec": EXEC}).exit == ABSENT


def test_it_is_known_by_its_name(wsk: Wsk) -> None:
    """A trigger's own action sees who fired, under the names that the client gave."""
    create(wsk, "wsk-told", exec={**EXEC, "code": "function main(args) { return args }"})
    wsk.put("triggers/wsk-telling", {"name": "wsk-telling"}).ok()
    wsk.put("rules/wsk-tells", rule("wsk-tells", "wsk-telling", "wsk-told")).ok()
    wsk.ask("POST", "triggers/wsk-telling", {"a": 1}).ok()
    [record] = until(lambda: wsk.list("activations", f"{PAGE}&name=wsk-told&docs=true"))
    headers = record["response"]["result"]["__ow_headers"]
    assert headers["user-agent"] == USER_AGENT
    assert headers["content-type"] == "application/json"


def names(entries: list[Any]) -> list[str]:
    return [entry["name"] for entry in entries]


def stripped(logs: list[str]) -> list[tuple[str, str]]:
    """Stream and text of each line, as `--strip` tells them apart."""
    found = [LOG_LINE.fullmatch(line) for line in logs]
    assert all(found), logs
    return [(match[1], match[2]) for match in found if match]
