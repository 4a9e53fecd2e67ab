"""OpenWhisk's stored documents, as a dump of its CouchDB databases has them, made into documents that travel. Pure.

Source: Apache OpenWhisk's entities, attachments and `wskadmin`, versions from 2017 on. What changed over time: a
subject once had one pair and no namespaces, `entityType` came later, rules named trigger and action by their names
alone, and code went from the document into attachments (`jarfile` and `codefile`, later `couch:<uuid>`, `s3:…`, and
`mem:<base64>`, which holds the code itself).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from visp.entity.payload import encode
from visp.entity.portable import fields_of
from visp.errors import Refused

COLLECTIONS = {"action": "actions", "package": "packages", "trigger": "triggers", "rule": "rules"}
SUBJECTS, LIMITS, ACTIVATIONS = "subjects", "limits", "activations"
_LIMITS_SUFFIX = "/limits"
_INTERNAL = frozenset({"_id", "_rev", "_attachments", "entityType", "updated"})
ASK = "ask CouchDB for it by attachments=true"

PUBLIC_PAIRS = {
    "23bc46b1-71f6-4ed5-8c54-816aa4f8c502": "123zO3xZCLrMN6v2BKK1dXYFpXlPkccOFqm12CdAsMgRU4VrNZ9lyGVCGuMDGIwP",
    "789c46b1-71f6-4ed5-8c54-816aa4f8c502": "abczO3xZCLrMN6v2BKK1dXYFpXlPkccOFqm12CdAsMgRU4VrNZ9lyGVCGuMDGIwP",
}
"""Of the development deployment's `guest` and `whisk.system`: whoever has read OpenWhisk's documentation knows them."""


class Found(msgspec.Struct, frozen=True):
    """A document of a dump: its `_id`, what it is (a collection, subjects, limits, activations), and what travels.

    `kind` None: it is none of OpenWhisk's data (a view, a document that was deleted).
    """

    id: str
    kind: str | None
    body: bytes = b""


def id_of(raw: bytes) -> str:
    """What a document calls itself, for a sentence about it."""
    try:
        return _text(fields_of(raw), "_id") or "a document without _id"
    except Refused:
        return "a document that cannot be read"


def read(raw: bytes) -> Found:
    """Raises `Refused` with the reason why a document cannot be taken."""
    fields = fields_of(raw)
    id = _text(fields, "_id") or ""
    if id.startswith("_design/") or bytes(fields.get("_deleted", b"")) == b"true":
        return Found(id, None)
    kind = _kind(id, fields)
    if kind == SUBJECTS:
        return Found(id, kind, _subject(fields))
    if kind == LIMITS:
        return Found(id, kind, _limits(id, fields))
    if kind == "actions":
        exec = _exec(fields)
        fields.pop("_attachments", None)
        return Found(id, kind, encode(fields | {"exec": exec}))
    if kind == "rules":
        return Found(id, kind, encode(fields | {name: _reference(fields, name) for name in ("trigger", "action")}))
    return Found(id, kind, raw if kind == ACTIVATIONS else encode(fields))


def _kind(id: str, fields: dict[str, msgspec.Raw]) -> str:
    """By its type or, where that is missing, by the fields that its views look for."""
    told = _text(fields, "entityType")
    if told == "activation" or (told is None and "activationId" in fields):
        return ACTIVATIONS
    if told is not None:
        if told not in COLLECTIONS:
            raise Refused(f"its entityType is {told}, which is none of OpenWhisk's")
        return COLLECTIONS[told]
    if "subject" in fields:
        return SUBJECTS
    if id.endswith(_LIMITS_SUFFIX) and "namespace" not in fields:
        return LIMITS
    for name, kind in (("exec", "actions"), ("trigger", "rules"), ("binding", "packages"), ("parameters", "triggers")):
        if name in fields and "namespace" in fields:
            return kind
    raise Refused("it is none of OpenWhisk's documents")


def _subject(fields: dict[str, msgspec.Raw]) -> bytes:
    held: Any = fields.get("namespaces")
    if held is None:  # one pair, of a namespace by the subject's own name
        held = [{"name": fields["subject"], "uuid": fields.get("uuid"), "key": fields.get("key")}]
    is_blocked = bytes(fields.get("blocked", b"false")) == b"true"
    return encode({"subject": fields["subject"], "namespaces": held, "blocked": is_blocked})


def _limits(id: str, fields: dict[str, msgspec.Raw]) -> bytes:
    own = {name: value for name, value in fields.items() if name not in _INTERNAL}
    return encode({"namespace": id.removesuffix(_LIMITS_SUFFIX), "limits": own})


def _reference(fields: dict[str, msgspec.Raw], name: str) -> Any:
    """The trigger or action of a rule; a bare name is one of the rule's own namespace."""
    value = _decoded(fields.get(name))
    return f"{_text(fields, 'namespace')}/{value}" if isinstance(value, str) and "/" not in value else value


# ── code ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _exec(fields: dict[str, msgspec.Raw]) -> Any:
    """`exec` with its code in its place; raises `Refused` when that lies elsewhere."""
    exec = _decoded(fields.get("exec"))
    if not isinstance(exec, dict):
        return exec
    code = exec.get("code", exec.get("jar"))
    if isinstance(code, dict):
        code = _attached(code, _decoded(fields.get("_attachments")))
    return {name: value for name, value in exec.items() if name != "jar"} | ({} if code is None else {"code": code})


def _attached(reference: dict[str, Any], attachments: Any) -> str:
    """The text of code that is an attachment: Base64 unless it is of a type that is text."""
    name, type = reference.get("attachmentName"), reference.get("attachmentType")
    if not isinstance(name, str):
        raise Refused("its code is an attachment without a name")
    scheme, _, path = name.rpartition(":")
    if scheme == "mem":
        content = _base64(path.replace("-", "+").replace("_", "/"), name)
    elif scheme in ("", "couch"):
        entry = attachments.get(path) if isinstance(attachments, dict) else None
        data = entry.get("data") if isinstance(entry, dict) else None
        if not isinstance(data, str):
            raise Refused(f"its code is the attachment {path}, which is not in the dump: {ASK}")
        content = _base64(data, name)
    else:
        raise Refused(f"its code is kept outside of the database, in {scheme}: update the action with its code instead")
    if isinstance(type, str) and type.startswith("text/"):
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise Refused(f"its code, the attachment {path}, is no text") from None
    return base64.b64encode(content).decode()


def _base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(f"its code, the attachment {name[:60]}, is no Base64") from None


def _decoded(raw: msgspec.Raw | None) -> Any:
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(str(error)) from None


def _text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    value = _decoded(fields.get(name))
    return value if isinstance(value, str) else None
