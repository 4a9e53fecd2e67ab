"""OpenWhisk's stored documents: each form that they had, and what is said of those that cannot be taken."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from visp.entity import couch
from visp.errors import Refused

CODE = "def main(p): return p"
ZIP = b"PK\x03\x04\xff\xfe"
BASE64 = base64.b64encode(ZIP).decode()
ACTION = {
    "_id": "ns/a",
    "_rev": "3-abc",
    "entityType": "action",
    "namespace": "ns",
    "name": "a",
    "exec": {"kind": "nodejs:20", "code": CODE, "binary": False},
}


def read(**document: Any) -> tuple[str | None, Any]:
    found = couch.read(json.dumps(document).encode())
    return found.kind, json.loads(found.body) if found.body else None


def code_of(exec: dict[str, Any], attachments: Any = None) -> Any:
    _, body = read(**ACTION | {"exec": exec, "_attachments": attachments})
    assert "_attachments" not in body
    return body["exec"]["code"]


def refused(document: dict[str, Any]) -> str:
    with pytest.raises(Refused) as found:
        couch.read(json.dumps(document).encode())
    return str(found.value)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"_id": "_design/whisks.v2.1.0", "views": {}}, None),
        ({"_id": "ns/a", "_deleted": True}, None),
        (ACTION, "actions"),
        ({"_id": "ns/a", "namespace": "ns", "name": "a", "exec": {"kind": "sequence"}, "parameters": []}, "actions"),
        ({"_id": "ns/r", "namespace": "ns", "name": "r", "trigger": "ns/t", "action": "ns/a"}, "rules"),
        ({"_id": "ns/p", "namespace": "ns", "name": "p", "binding": {}, "parameters": []}, "packages"),
        ({"_id": "ns/t", "namespace": "ns", "name": "t", "parameters": []}, "triggers"),
        ({"_id": "ns/limits", "invocationsPerMinute": 3}, "limits"),
        ({"_id": "ns/limits", "namespace": "ns", "name": "limits", "parameters": []}, "triggers"),
        ({"_id": "ns/" + "a" * 32, "activationId": "a" * 32, "subject": "s", "namespace": "ns"}, "activations"),
        ({"_id": "alice", "subject": "alice", "namespaces": []}, "subjects"),
    ],
)
def test_what_a_document_is(document: dict[str, Any], kind: str | None) -> None:
    assert read(**document)[0] == kind


def test_what_is_none_of_them_is_refused() -> None:
    assert refused({"_id": "x"}) == "it is none of OpenWhisk's documents"
    assert "mystery" in refused({"_id": "x", "entityType": "mystery"})
    assert couch.id_of(b'{"_id":"ns/x"}') == "ns/x"
    assert couch.id_of(b"[") == "a document that cannot be read"


def test_subjects_of_every_age() -> None:
    pair = {"uuid": "u", "key": "k"}
    held = [{"name": "alice", **pair}]
    assert read(_id="alice", subject="alice", namespaces=held, blocked=True)[1] == {
        "subject": "alice",
        "namespaces": held,
        "blocked": True,
    }
    old = {"subject": "alice", "namespaces": held, "blocked": False}
    assert read(_id="alice", _rev="1", subject="alice", **pair)[1] == old


def test_limits_are_named_by_their_id() -> None:
    assert read(_id="my ns/limits", _rev="1-x", firesPerMinute=2)[1] == {
        "namespace": "my ns",
        "limits": {"firesPerMinute": 2},
    }


def test_rules_that_name_by_name_alone() -> None:
    rule = {"_id": "ns/r", "entityType": "rule", "namespace": "ns", "name": "r", "trigger": "t", "action": "a"}
    _, body = read(**rule)
    assert (body["trigger"], body["action"]) == ("ns/t", "ns/a")
    _, body = read(**rule | {"trigger": {"path": "ns", "name": "t"}, "action": "/ns/p/a"})
    assert (body["trigger"], body["action"]) == ({"path": "ns", "name": "t"}, "/ns/p/a")


def test_code_wherever_it_is() -> None:
    text = {"attachmentType": "text/plain; charset=UTF-8"}
    binary = {"attachmentType": "application/octet-stream"}
    inline = base64.urlsafe_b64encode(CODE.encode()).decode()
    attached = {"u-1": {"content_type": "text/plain", "data": base64.b64encode(CODE.encode()).decode()}}
    assert code_of({"kind": "k", "code": CODE}) == CODE
    assert code_of({"kind": "java:8", "jar": BASE64, "main": "M"}) == BASE64
    assert code_of({"kind": "k", "code": {"attachmentName": f"mem:{inline}", **text}}) == CODE
    assert code_of({"kind": "k", "code": {"attachmentName": f"mem:{inline.rstrip('=')}", **text}}) == CODE
    assert code_of({"kind": "k", "code": {"attachmentName": "couch:u-1", "length": 9, **text}}, attached) == CODE
    assert code_of({"kind": "k", "code": {"attachmentName": "codefile", **text}}, {"codefile": attached["u-1"]}) == CODE
    jar = {"jarfile": {"content_type": "application/java-archive", "data": BASE64}}
    reference = {"attachmentName": "jarfile", "attachmentType": "application/java-archive"}
    assert code_of({"kind": "java:8", "jar": reference, "main": "M"}, jar) == BASE64
    held = {"u-2": {"data": BASE64}}
    assert code_of({"kind": "k", "binary": True, "code": {"attachmentName": "couch:u-2", **binary}}, held) == BASE64


@pytest.mark.parametrize(
    ("reference", "attachments", "says"),
    [
        ("couch:u-1", {"u-1": {"stub": True}}, "attachment u-1, which is not in the dump"),
        ("couch:u-1", None, "attachments=true"),
        ("s3:u-1", None, "outside of the database, in s3"),
        ("mem:!", None, "no Base64"),
        ("mem:_w==", None, "is no text"),
        (None, None, "without a name"),
    ],
)
def test_code_that_is_not_there(reference: Any, attachments: Any, says: str) -> None:
    code = {"attachmentName": reference, "attachmentType": "text/plain"}
    document = ACTION | {"exec": {"kind": "k", "code": code}, "_attachments": attachments}
    assert says in refused(document)
