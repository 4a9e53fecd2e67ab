"""What is shipped: every package can be read, described, and made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from visp import catalog, premises
from visp.catalog import ROOT
from visp.entity import action as actions
from visp.entity import package as packages
from visp.entity.execs import INLINE_CODE_BYTES
from visp.settings import Settings

FEEDS = """
alarms/alarm alarms/interval alarms/once cloudant/changes messaging/kafkaFeed messaging/messageHubFeed mqtt/feed
postgres/notify postgres/changes redis/stream nats/subject nats/stream s3/objects files/watch rss/entries email/inbox
http/hook cloudevents/receive slack/events slack/command github/webhook pushnotifications/webhook
"""
ACTIONS = """
utils/echo utils/cat utils/split utils/sort utils/head utils/date utils/namespace utils/smash utils/hosturl
samples/greeting samples/helloWorld samples/helloPromises samples/wordCount samples/wordCountAsync samples/printParams
samples/curl samples/countdown samples/cat samples/head samples/invoke slack/post github/create-issue github/comment
github/set-commit-status github/get-contents github/create-release github/dispatch messaging/kafkaProduce
messaging/messageHubProduce mqtt/publish postgres/query redis/command nats/publish s3/get s3/put s3/list email/send
http/request cloudevents/send weather/forecast weather/open websocket/send combinators/eca combinators/forwarder
combinators/retry combinators/trycatch pushnotifications/sendMessage watson-translator/translator
watson-translator/languageId watson-speechToText/speechToText watson-textToSpeech/textToSpeech
cloudant/create-database cloudant/read-database cloudant/delete-database cloudant/list-all-databases
cloudant/read-updates-feed cloudant/create-document cloudant/read cloudant/read-document cloudant/write
cloudant/update-document cloudant/delete-document cloudant/list-documents cloudant/list-design-documents
cloudant/create-query-index cloudant/list-query-indexes cloudant/delete-query-index cloudant/exec-query-find
cloudant/exec-query-search cloudant/exec-query-view cloudant/delete-view cloudant/manage-bulk-documents
cloudant/read-changes-feed cloudant/create-attachment cloudant/update-attachment cloudant/read-attachment
cloudant/delete-attachment
"""
ALL = [catalog.read(name) for name in catalog.names()]
ENTRIES = {f"{shipped.name}/{entry.name}": entry for shipped in ALL for entry in shipped.actions}


def annotation(body: dict[str, object], key: str) -> object:
    pairs = body["annotations"]
    assert isinstance(pairs, list)
    return next((pair["value"] for pair in pairs if pair["key"] == key), None)


def test_all_that_is_promised_is_there_and_nothing_else() -> None:
    feeds = {name for name, entry in ENTRIES.items() if annotation(entry.body, "feed") is True}
    assert feeds == set(FEEDS.split())
    assert ENTRIES.keys() - feeds == set(ACTIONS.split())


@pytest.mark.parametrize("shipped", ALL, ids=lambda shipped: shipped.name)
def test_each_is_a_package_that_others_may_read(shipped: catalog.Shipped) -> None:
    put = packages.parse_put(msgspec.json.encode(shipped.body), "whisk.system")
    assert put.publish is True
    assert annotation(shipped.body, "description")


@pytest.mark.parametrize("name", ENTRIES)
def test_each_action_is_described_and_small(name: str) -> None:
    manifest = premises.read_manifest(Settings())
    put = actions.parse_put(msgspec.json.encode(ENTRIES[name].body), manifest, "whisk.system")
    made = actions.create(None, put, 0)  # type: ignore[arg-type]
    assert made.exec.code is not None
    assert made.exec.code.inline is not None
    assert len(made.exec.code.inline.encode()) <= INLINE_CODE_BYTES, "it would be a blob, which nobody puts there"
    described = annotation(ENTRIES[name].body, "parameters")
    assert isinstance(described, list)
    names = [one["name"] for one in described]
    assert len(names) == len(set(names))
    for one in described:
        assert one["description"], one
        assert isinstance(one["required"], bool)
        assert one["type"] in ("string", "number", "boolean", "array", "object")
        assert one.keys() <= {"name", "required", "type", "description", "bindTime", "updatable"}
    assert annotation(ENTRIES[name].body, "description")


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if "python" in entry.body["exec"]["kind"]])
def test_each_text_of_python_stands_alone(name: str) -> None:
    exec_ = ENTRIES[name].body["exec"]
    shared = "|".join(path.stem for path in (ROOT / "shared").glob("*.py"))
    assert not re.search(rf"^\s*(from|import) ({shared})\b", exec_["code"], re.MULTILINE)
    space: dict[str, object] = {"__name__": "main__"}
    exec(compile(exec_["code"], name, "exec"), space)
    assert callable(space[exec_.get("main", "main")])


def test_every_file_is_used() -> None:
    used = {
        (package.parent / action["file"]).resolve()
        for package in ROOT.glob("*/package.json")
        for action in json.loads(package.read_text())["actions"].values()
    }
    lying = {path for path in ROOT.glob("*/*") if path.suffix in (".py", ".js") and path.parent.name != "shared"}
    assert lying <= used, sorted(lying - used)


def test_a_digest_is_of_all_that_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalog, "ROOT", tmp_path)
    (tmp_path / "shared").mkdir()
    (tmp_path / "p").mkdir()

    def digests() -> tuple[str, str]:
        catalog.source.cache_clear()
        shipped = catalog.read("p")
        return shipped.digest, shipped.actions[0].digest

    told = {"description": "d", "parameters": [], "actions": {}}
    act = {"description": "d", "kind": "python:default", "file": "a.py", "parameters": []}
    (tmp_path / "shared" / "common.py").write_text('"""Told away."""\nX = 1\n')
    (tmp_path / "p" / "a.py").write_text("from common import X\nimport os\n")
    (tmp_path / "p" / "package.json").write_text(json.dumps(told | {"actions": {"a": act}}))
    assert catalog.read("p").actions[0].body["exec"]["code"] == "X = 1\nimport os\n"
    seen = {digests()}
    (tmp_path / "shared" / "common.py").write_text("X = 2\n")
    seen.add(digests())
    (tmp_path / "p" / "package.json").write_text(json.dumps(told | {"actions": {"a": act | {"timeout": 5}}}))
    seen.add(digests())
    assert len({one for one, _ in seen}) == len({other for _, other in seen}) == 3
    (tmp_path / "p" / "package.json").write_text(json.dumps(told | {"actions": {"a": act}, "description": "e"}))
    assert digests()[0] not in {one for one, _ in seen}
    assert digests()[1] in {other for _, other in seen}
