"""What OpenWhisk's databases hold after a while: documents as its CouchDB stores them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

ALICE = "11111111-2222-4333-8444-555555555555:" + "k" * 64
PUBLIC = "23bc46b1-71f6-4ed5-8c54-816aa4f8c502:123zO3xZCLrMN6v2BKK1dXYFpXlPkccOFqm12CdAsMgRU4VrNZ9lyGVCGuMDGIwP"
CODE = "def main(p): return {'n': p.get('n', 0) + 1}"
LARGE = CODE + "\n# " + "y" * 20_000
SEQUENCE_ID, PART_ID, FIRE_ID, RUN_ID = "5" * 32, "6" * 32, "7" * 32, "8" * 32


def subject(name: str, *pairs: tuple[str, str], **fields: Any) -> dict[str, Any]:
    held = [{"name": ns, "uuid": pair.partition(":")[0], "key": pair.partition(":")[2]} for ns, pair in pairs]
    return {"_id": name, "_rev": "1-a", "subject": name, "namespaces": held} | fields


def whisk(kind: str, id: str, **fields: Any) -> dict[str, Any]:
    path, _, name = id.rpartition("/")
    common = {"version": "0.0.3", "publish": False, "annotations": [], "updated": 1_700_000_000_000}
    return {"_id": id, "_rev": "2-b", "entityType": kind, "namespace": path, "name": name} | common | fields


def action(id: str, code: Any = CODE, **fields: Any) -> dict[str, Any]:
    exec = {"kind": "python:3.11", "code": code, "binary": False}
    limits = {"timeout": 60000, "memory": 256, "logs": 10}
    return whisk("action", id, **{"exec": exec, "parameters": [], "limits": limits} | fields)


def attached(code: str, id: str = "d1f5c6a0-3c4b-4f1e-9a59-0f2d6c1b7a11") -> dict[str, Any]:
    reference = {"attachmentName": f"couch:{id}", "attachmentType": "text/plain; charset=UTF-8"}
    entry = {"content_type": "text/plain; charset=UTF-8", "data": base64.b64encode(code.encode()).decode()}
    return {"exec": {"kind": "python:3.11", "code": reference, "binary": False}, "_attachments": {id: entry}}


def activation(id: str, start_ms: int, name: str = "a", **fields: Any) -> dict[str, Any]:
    annotations = [
        {"key": "path", "value": f"alice/{name}"},
        {"key": "kind", "value": fields.pop("kind", "python:3.11")},
        {"key": "limits", "value": {"timeout": 60000, "memory": 256, "logs": 10, "concurrency": 1}},
        {"key": "waitTime", "value": 7},
    ]
    given: dict[str, Any] = {
        "activationId": id,
        "subject": "alice",
        "start": start_ms,
        "end": start_ms + 20,
        "response": {"statusCode": 0, "result": {"n": 1}, "size": 7},
        "logs": [],
        "annotations": annotations,
    }
    document = whisk("activation", f"alice/{id}", **given | fields)
    return document | {"name": name, "version": "0.0.3"}


def subjects() -> list[dict[str, Any]]:
    team = "22222222-2222-4333-8444-555555555555:" + "t" * 64
    return [
        {"_id": "_design/subjects.v2.0.0", "_rev": "1-d", "language": "javascript", "views": {}},
        subject("alice", ("alice", ALICE), ("team", team)),
        subject("blocked", ("gone", "33333333-2222-4333-8444-555555555555:" + "b" * 64), blocked=True),
        subject("guest", ("guest", PUBLIC)),
        {"_id": "ancient", "_rev": "1-c", "subject": "ancient", "uuid": ALICE[:35] + "9", "key": "a" * 64},
        {"_id": "alice/limits", "_rev": "1-e", "invocationsPerMinute": 900, "maxActionInstances": 4},
    ]


def whisks() -> list[dict[str, Any]]:
    link = {"action": {"path": "alice", "name": "a"}, "status": "active"}
    return [
        {"_id": "_design/whisks.v2.1.0", "_rev": "1-d", "language": "javascript", "views": {}},
        action("alice/a", annotations=[{"key": "web-export", "value": True}], updated=1_700_000_000_123),
        action("alice/tools/large", **attached(LARGE), parameters=[{"key": "n", "value": 40}]),
        action("alice/mem", {"attachmentName": f"mem:{_url(CODE)}", "attachmentType": "text/plain"}),
        action("alice/seq", exec={"kind": "sequence", "components": ["/alice/a", "/alice/tools/large"]}),
        action("alice/java", exec={"kind": "java:8", "jar": "UEsDBA==", "main": "Hello", "binary": True}),
        action("alice/wide", limits={"timeout": 60000, "memory": 2048, "logs": 10, "concurrency": 1}),
        action("alice/secret", parameters=[{"key": "k", "value": "c2VhbGVk", "encryption": "aes-128", "init": True}]),
        whisk("package", "alice/tools", binding={}, parameters=[{"key": "p", "value": None}], publish=True),
        whisk("package", "alice/bound", binding={"namespace": "alice", "name": "tools"}, parameters=[]),
        whisk("trigger", "alice/t", parameters=[], limits={}, rules={"alice/r": link}),
        whisk("rule", "alice/r", trigger={"path": "alice", "name": "t"}, action={"path": "alice", "name": "a"}),
        whisk("rule", "alice/old", trigger="t", action="a"),
        action("alice/s3", {"attachmentName": "s3:0b", "attachmentType": "text/plain"}),
        action("alice/stub", {"attachmentName": "couch:0c", "attachmentType": "text/plain"}, _attachments={"0c": {}}),
        action("alice/six", exec={"kind": "nodejs:5", "code": "x"}),
        whisk("trigger", "alice/bad name ", parameters=[]),
    ]


def activations(start_ms: int) -> list[dict[str, Any]]:
    part = activation(PART_ID, start_ms + 1, cause=SEQUENCE_ID, logs=[f"2026 stdout: {RUN_ID}"])
    whole = activation(SEQUENCE_ID, start_ms, "seq", kind="sequence", logs=[PART_ID], duration=20)
    fired = json.dumps({"statusCode": 0, "success": True, "activationId": RUN_ID, "rule": "alice/r"})
    return [
        {"_id": "_design/activations", "_rev": "1-d", "views": {}},
        part,
        whole,
        activation(FIRE_ID, start_ms + 2, "t", end=0, annotations=[], logs=[fired], response={"statusCode": 0}),
        activation(RUN_ID, start_ms + 3, response={"statusCode": 2, "result": {"error": "no"}}),
        activation("z" * 32, start_ms + 4),
    ]


def all_docs(path: Path, documents: list[dict[str, Any]]) -> Path:
    """As CouchDB answers."""
    rows = [json.dumps({"id": doc["_id"], "key": doc["_id"], "value": {"rev": "1"}, "doc": doc}) for doc in documents]
    path.write_text("\n".join((f'{{"total_rows":{len(rows)},"offset":0,"rows":[', ",\n".join(rows), "]}", "")))
    return path


def _url(code: str) -> str:
    return base64.urlsafe_b64encode(code.encode()).decode()
