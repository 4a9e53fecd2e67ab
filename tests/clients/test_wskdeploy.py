"""`wskdeploy` by its requests: a manifest is deployed, kept in step, exported and undeployed.

Like `wsk`, which it shares its client with, it is published as a program. `apis` of a manifest are sent
as `wsk api` sends them: see `tests/system/test_apis.py`.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.clients.wsk import ALL, Wsk, pairs
from tests.system.answers import keys
from tests.system.conftest import Api

PROJECT = "wp-project"
CODE = "function main(args) { return args }"
EXEC = {"kind": "nodejs:default", "code": CODE}
COLLECTIONS = ("packages", "actions", "triggers", "rules")
MANAGED = "whisk-managed"

Entity = tuple[str, dict[str, Any]]


@pytest.fixture
def wsk(api: Api) -> Wsk:
    return Wsk(api)


def manifest(version: str, *, without: str = "") -> list[Entity]:
    """What a manifest with most keys comes to: paths and bodies, in the order of deployment."""
    managed = {
        "projectName": PROJECT,
        "projectHash": hashlib.sha1(version.encode()).hexdigest(),
        "file": "manifest.yaml",
        "projectDeps": [],
    }
    notes = {"whisk_managed": managed}
    limits = {"timeout": 5000, "memory": 128, "logs": 2, "concurrency": 1}
    web = {"web_export": True, "raw_http": False, "final": True}
    entities: list[Entity] = [
        (
            "packages/wp-package",
            {
                "namespace": "_",
                "name": "wp-package",
                "version": "1.0.0",
                "publish": True,
                "annotations": pairs(**notes),
                "parameters": pairs(shared="by all"),
            },
        ),
        (
            "packages/wp-dependency",
            {"binding": {"namespace": "_", "name": "wp-package"}, "annotations": pairs(**notes)},
        ),
        (
            "actions/wp-package/first",
            {
                "exec": {**EXEC, "main": "main"},
                "annotations": pairs(**notes, **web, description="x"),
                "limits": limits,
                "version": "0.2.0",
                "parameters": pairs(integer=1, float=0.5, boolean=True, json={"a": [None]}, text="${VAR}"),
            },
        ),
        (
            "actions/wp-package/second",
            {
                "exec": {"kind": "python:3.11", "code": "def main(args):\n    return {**args, 'python': True}\n"},
                "annotations": pairs(**notes),
            },
        ),
        (
            "actions/wp-package/all",
            {
                "exec": {"kind": "sequence", "components": ["/_/wp-package/first", "/_/wp-package/second"]},
                "annotations": pairs(**notes),
            },
        ),
        (
            "triggers/wp-trigger",
            {"publish": True, "annotations": pairs(**notes), "parameters": pairs(given="by the trigger")},
        ),
        (
            "rules/wp-rule",
            {
                "name": "wp-rule",
                "trigger": "/_/wp-trigger",
                "action": "/_/wp-package/all",
                "status": "",
                "annotations": pairs(**notes),
            },
        ),
    ]
    return [(path, body) for path, body in entities if path != without]


def deploy(wsk: Wsk, entities: list[Entity]) -> None:
    for path, body in entities:
        assert wsk.put(path, body, overwrite=True).exit == 0, path
        if path.startswith("rules/"):
            active = {"status": "active", "trigger": None, "action": None}
            assert wsk.ask("POST", path, active).exit == 0


def managed(wsk: Wsk) -> dict[str, str]:
    """The hash of each entity of the project, read from what lists say; packaged actions by their path."""
    found = {}
    for collection in COLLECTIONS:
        for entry in wsk.list(collection, ALL):
            mark = keys(entry["annotations"]).get(MANAGED)
            if mark is not None and mark["projectName"] == PROJECT:
                inner = entry["namespace"].partition("/")[2]
                found["/".join(filter(None, (collection, inner, entry["name"])))] = mark["projectHash"]
    return found


def test_a_project_is_deployed_kept_in_step_and_undeployed(wsk: Wsk) -> None:
    deploy(wsk, manifest("one"))
    first = managed(wsk)
    assert set(first) == {path for path, _ in manifest("one")}
    assert wsk.get("packages/wp-package").ok()["publish"] is True
    action = wsk.get("actions/wp-package/first?code=false").ok()
    assert (action["version"], action["limits"]["memory"]) == ("0.2.0", 128)
    assert keys(action["parameters"])["json"] == {"a": [None]}
    result = wsk.invoke("wp-package/all", {"n": 1}, result=True).ok()
    assert (result["n"], result["shared"], result["integer"], result["python"]) == (1, "by all", 1, True)
    assert wsk.get("rules/wp-rule").ok()["status"] == "active"

    deploy(wsk, manifest("two", without="actions/wp-package/second"))
    old = {path for path, digest in managed(wsk).items() if digest == first[path]}
    assert old == {"actions/wp-package/second"}
    assert wsk.delete(old.pop()).exit == 0
    assert set(managed(wsk)) == {path for path, _ in manifest("two", without="actions/wp-package/second")}

    for path, _ in reversed(manifest("two", without="actions/wp-package/second")):
        assert wsk.delete(path).exit == 0, path
    assert managed(wsk) == {}


def test_what_is_exported_can_be_deployed(wsk: Wsk) -> None:
    """`export` reads entities with their code; their fields go into a manifest and come back from it."""
    deploy(wsk, manifest("export"))
    package = wsk.get("packages/wp-package").ok()
    exported = []
    for inner in package["actions"]:
        action = wsk.get(f"actions/wp-package/{inner['name']}?code=true").ok()
        own = {name: action[name] for name in ("exec", "parameters", "annotations", "limits", "version")}
        exported.append((f"actions/wp-package/{inner['name']}", own))
    for path, body in exported:
        assert wsk.put(path, body, overwrite=True).ok()["exec"] == body["exec"]
    for path, _ in reversed(manifest("export")):
        assert wsk.delete(path).exit == 0, path


def test_a_feed_is_created_with_its_trigger(wsk: Wsk) -> None:
    """Where the trigger exists its feed is told to delete first, and may fail at it."""
    fails = "function main(args) { return args.lifecycleEvent === 'DELETE' ? {error: 'not there'} : args }"
    deploy(wsk, [("actions/wp-feed", {"exec": {**EXEC, "code": fails}, "annotations": pairs(feed=True)})])
    told = {"authKey": wsk.api.auth, "triggerName": "/guest/wp-fed"}
    assert wsk.invoke("wp-feed", {**told, "lifecycleEvent": "DELETE"}, blocking=True).exit == 246
    trigger = {"publish": True, "annotations": pairs(feed="/_/wp-feed")}
    assert wsk.put("triggers/wp-fed", trigger, overwrite=True).exit == 0
    sent = {**told, "lifecycleEvent": "CREATE", "cron": "* * * * *"}
    assert wsk.invoke("wp-feed", sent, blocking=True).ok()["response"]["result"] == sent
    assert wsk.delete("triggers/wp-fed").exit == 0


def test_a_lost_write_is_known_by_its_sentence(wsk: Wsk) -> None:
    """It tries again where another write came between, and knows that by this text alone."""
    deploy(wsk, [("actions/wp-contended", {"exec": EXEC})])
    body = {"exec": EXEC, "annotations": pairs(managed=1)}
    with ThreadPoolExecutor(8) as threads:
        said = list(threads.map(lambda _: wsk.put("actions/wp-contended", body, overwrite=True), range(40)))
    lost = [answer.json["error"] for answer in said if answer.exit != 0]
    assert set(lost) <= {"Concurrent modification to resource detected."}
    assert wsk.get("actions/wp-contended").ok()["version"] == f"0.0.{41 - len(lost)}"
