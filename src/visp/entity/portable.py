"""Entities, records and subjects as documents that travel: what the API shows of each, read back whole. Pure.

A PUT says what is to change; such a document says everything, and nothing in it is made anew: version, time of the last
update, annotations and the status of rules are what they were. It is read by the same parsers. Code that is stored
apart stands as `{"sha256": digest}` in the place of its text, files of a package's site as `"site": {path: [digest,
size, digest of the compressed form, its size]}`.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from visp import wording
from visp.entity import activation as activations
from visp.entity import execs, follow, version
from visp.entity import package as packages
from visp.entity import rule as rules
from visp.entity import trigger as triggers
from visp.entity.action import Action, parse_publish, raw_fields
from visp.entity.action import render as render_action
from visp.entity.activation import (
    PHASES,
    PHASES_KEY,
    STATUS_WORDS,
    ActivationHead,
    ActivationRecord,
    Phases,
    Status,
)
from visp.entity.api import Api, api_of
from visp.entity.execs import Code, SequenceExec
from visp.entity.limits import (
    CODE_LIMIT_BYTES,
    PARAMETERS_LIMIT_BYTES,
    ActionLimits,
    LimitRanges,
    merge_limits,
    parse_limits,
    range_violation,
)
from visp.entity.names import CALLERS_NAMESPACE, FullyQualifiedName, is_name, parse_qualified
from visp.entity.package import RESERVED, Package
from visp.entity.parameters import Parameters, check_size, parse_parameters, plain
from visp.entity.payload import encode, one_line, parse_document
from visp.entity.rule import Rule
from visp.entity.site import FILE_LIMIT_BYTES, FILES_LIMIT, SITE_LIMIT_BYTES, Site, clean_path
from visp.entity.subject import AuthKey, check_subject, new_key, parse_pair
from visp.entity.trigger import RuleLink, RuleStatus, Trigger
from visp.errors import BadRequest, Malformed, Refused, RequestError, TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visp.entity.runtime_manifest import Manifest

T = TypeVar("T")
Entity = Action | Trigger | Rule | Package

DIGEST = "sha256"
NO_CODE = ""
ENCRYPTED_LIMIT_BYTES = 64 * PARAMETERS_LIMIT_BYTES
LIMIT_BEYOND = 1 << 31
"""No limit of any platform is that large."""
_Time = Annotated[int, msgspec.Meta(ge=0, lt=1 << 48)]
_Small = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
_Hex = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")]


def reason_of(error: RequestError | Refused) -> str:
    """Why a document cannot be, on one line."""
    return " ".join((error.reason if isinstance(error, Malformed) else str(error)).split())


# ── entities ────────────────────────────────────────────────────────────────────────────────────────────────────


class StoredCode(msgspec.Struct, frozen=True):
    """What is known of code that lies apart, beside its digest."""

    size_bytes: int
    is_binary: bool


class StoredFile(msgspec.Struct, frozen=True):
    """What is known of a site's file beside its digest; `holds` is the digest of what a compressed one unpacks to."""

    size_bytes: int
    holds: str | None = None


def render_entity(entity: Entity) -> bytes:
    """The document of an entity: one line of JSON."""
    if isinstance(entity, Action):
        shown = render_action(entity, None)
        code = None if isinstance(entity.exec, SequenceExec) else entity.exec.code
        if code is not None:
            shown["exec"]["code"] = {DIGEST: code.blob} if code.blob is not None else code.inline
    elif isinstance(entity, Trigger):
        shown = triggers.render(entity)
    elif isinstance(entity, Rule):
        shown = rules.render(entity, None)
    else:
        shown = packages.render(entity)
        if entity.site:
            shown["site"] = dict(sorted(entity.site.items()))
    return one_line(encode(shown))


def parse_entity(
    collection: str,
    body: bytes,
    manifest: Manifest,
    stored: Mapping[str, StoredCode],
    now_ms: int,
    files: Mapping[str, StoredFile] = MappingProxyType({}),
) -> Entity:
    """The entity of a document of this collection; `stored` and `files` are what may be named by a digest.

    Links of a trigger have no `follow` yet: their rules say that. `now_ms` is for what does not say when it was
    updated. Raises `RequestError`.
    """
    fields = parse_document(body, collection, execs.code_bytes(body) if collection == "actions" else 0)
    entity: Entity
    if collection == "actions":
        entity = _parse_action(body, fields, manifest, stored)
    elif collection == "triggers":
        entity = _parse_trigger(body, fields)
    elif collection == "rules":
        entity = _parse_rule(body, fields)
    else:
        entity = _parse_package(body, fields, files)
    return msgspec.structs.replace(entity, updated_ms=_updated(fields, now_ms))


def _parse_action(body: bytes, fields: dict[str, Any], manifest: Manifest, stored: Mapping[str, StoredCode]) -> Action:
    name = _name(fields)
    exec = fields.get("exec")
    code = exec.get("code") if isinstance(exec, dict) else None
    blob: str | None = None
    if isinstance(exec, dict) and isinstance(code, dict):
        blob = code.get(DIGEST) if isinstance(code.get(DIGEST), str) else ""
        exec = exec | {"code": NO_CODE}
    parsed = execs.parse_exec(exec, manifest, name.namespace)
    if parsed is None:
        raise BadRequest(wording.EXEC_UNDEFINED)
    execs.check_size(parsed, CODE_LIMIT_BYTES)
    if blob is not None and not isinstance(parsed, SequenceExec):
        if blob not in stored:
            raise BadRequest(f"its code {blob or 'without a digest'} is not there")
        if stored[blob].size_bytes > CODE_LIMIT_BYTES:
            raise TooLarge(wording.too_large("exec", stored[blob].size_bytes, CODE_LIMIT_BYTES))
        parsed = msgspec.structs.replace(parsed, code=Code(stored[blob].is_binary, blob=blob))
    parameters, annotations = _parameters(body)
    if isinstance(parsed, SequenceExec):
        parameters = plain("_actions", ["/" + component.id for component in parsed.components])
    follow.parse(annotations, name.namespace)
    return Action(
        name=name,
        exec=parsed,
        parameters=parameters,
        annotations=annotations | plain("exec", parsed.kind),
        limits=_limits(fields.get("limits")),
        version=_version(fields),
        publish=parse_publish(fields.get("publish")) or False,
    )


def _limits(value: Any) -> ActionLimits:
    """They may lie outside of the ranges in force, as those of actions that were written under others."""
    given = parse_limits(value)
    if any(not 0 <= number < LIMIT_BEYOND for number in given.values()):
        raise BadRequest(wording.requirement_failed(range_violation(merge_limits(None, given), LimitRanges()) or ""))
    return merge_limits(None, given)


def _parse_trigger(body: bytes, fields: dict[str, Any]) -> Trigger:
    name = _plain_name(fields)
    parameters, annotations = _parameters(body)
    return Trigger(
        name=name,
        parameters=parameters,
        annotations=annotations,
        rules=_parse_links(fields.get("rules")),
        version=_version(fields),
        publish=parse_publish(fields.get("publish")) or False,
    )


def _parse_links(value: Any) -> dict[str, RuleLink] | None:
    """`{"ns/rule": {"action": {"path", "name"}, "status"}}`."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Malformed(wording.object_expected_in("rules"))
    links = {}
    for key, link in value.items():
        rule = parse_qualified(key)
        if not isinstance(link, dict) or rule.package is not None:
            raise Malformed(wording.object_expected_in("rules"))
        status = rules.parse_status(encode({"status": link.get("status")}))
        links[rule.id] = RuleLink(parse_qualified(link.get("action")), status)
    return links


def _parse_rule(body: bytes, fields: dict[str, Any]) -> Rule:
    name = _plain_name(fields)
    if fields.get("trigger") is None or fields.get("action") is None:
        raise BadRequest(wording.RULE_INCOMPLETE)
    _, annotations = _parameters(body)
    follow.parse(annotations, name.namespace)
    return Rule(
        name=name,
        trigger=parse_qualified(fields["trigger"]).resolve(name.namespace),
        action=parse_qualified(fields["action"]).resolve(name.namespace),
        annotations=annotations,
        version=_version(fields),
        publish=parse_publish(fields.get("publish")) or False,
    )


def _parse_package(body: bytes, fields: dict[str, Any], files: Mapping[str, StoredFile]) -> Package:
    name = _plain_name(fields)
    if name.name == RESERVED:
        raise BadRequest(wording.package_reserved(name.name))
    parameters, annotations = _parameters(body)
    put = packages.parse_put(encode({"binding": fields.get("binding")}), name.namespace)
    made = packages.create(name, msgspec.structs.replace(put, annotations=annotations), 0)
    return msgspec.structs.replace(
        made,
        parameters=parameters,
        version=_version(fields),
        publish=parse_publish(fields.get("publish")) or False,
        site=_parse_site(fields.get("site"), made, files),
    )


def _parse_site(value: Any, package: Package, files: Mapping[str, StoredFile]) -> Site:
    """Within the bounds of a site that is uploaded; each file is there, and is what is said of it."""
    if value is None or value == {}:
        return {}
    if package.binding is not None:
        raise BadRequest(wording.NOT_ON_BINDING)
    try:
        found = msgspec.convert(value, Site)
    except msgspec.ValidationError as error:
        raise BadRequest(f"its site: {error}") from None
    if len(found) > FILES_LIMIT:
        raise BadRequest(wording.site_too_many(len(found), FILES_LIMIT))
    if sum(file.size_bytes for file in found.values()) > SITE_LIMIT_BYTES:
        raise BadRequest(wording.site_too_large(SITE_LIMIT_BYTES))
    for path, file in found.items():
        if clean_path(path) is None:
            raise BadRequest(wording.site_path(path))
        if file.size_bytes > FILE_LIMIT_BYTES:
            raise BadRequest(wording.site_file_too_large(path, FILE_LIMIT_BYTES))
        plain_file, smaller = files.get(file.digest), files.get(file.gzip or "")
        is_as_said = plain_file is not None and plain_file.size_bytes == file.size_bytes
        if file.gzip is not None and (smaller is None or smaller != StoredFile(file.gzip_bytes, file.digest)):
            is_as_said = False
        if not is_as_said:
            raise BadRequest(f"the file {path} of its site is not there, or is another")
    return found


def linked(trigger: Trigger, links: Mapping[str, RuleLink], found: Mapping[str, Rule]) -> Trigger:
    """The trigger with these links, each with what its rule says of failures; never None where there is one."""
    whole = {id: _follows(link, found.get(id)) for id, link in links.items()}
    return msgspec.structs.replace(trigger, rules=whole if whole or trigger.rules is not None else None)


def _follows(link: RuleLink, rule: Rule | None) -> RuleLink:
    if rule is None:
        return link
    return msgspec.structs.replace(link, follow=follow.parse(rule.annotations, rule.name.namespace))


def link_of(rule: Rule, status: RuleStatus) -> RuleLink:
    """How its trigger knows a rule."""
    return RuleLink(rule.action, status, follow.parse(rule.annotations, rule.name.namespace))


def _name(fields: dict[str, Any]) -> FullyQualifiedName:
    name = parse_qualified({"path": fields.get("namespace"), "name": fields.get("name")})
    if name.namespace == CALLERS_NAMESPACE:
        raise Malformed(wording.NAMESPACE_ILLEGAL)
    return name


def _plain_name(fields: dict[str, Any]) -> FullyQualifiedName:
    name = _name(fields)
    if name.package is not None:
        raise Malformed(wording.NAMESPACE_ILLEGAL)
    return name


def _parameters(body: bytes) -> tuple[Parameters, Parameters]:
    """Raises `Malformed` and, beyond the platform's limit, `TooLarge`.

    Encrypted values are longer than what the limit was for, small ones a hundred times.
    """
    given, annotations = raw_fields(body)
    parameters = given or {}
    check_size("parameters", {k: v for k, v in parameters.items() if v.encryption is None}, PARAMETERS_LIMIT_BYTES)
    check_size("parameters", parameters, ENCRYPTED_LIMIT_BYTES)
    check_size("annotations", annotations or {}, PARAMETERS_LIMIT_BYTES)
    return parameters, annotations or {}


def _version(fields: dict[str, Any]) -> str:
    return version.parse_version(fields.get("version")) or version.INITIAL


def _updated(fields: dict[str, Any], now_ms: int) -> int:
    given = fields.get("updated")
    return given if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 1 << 48 else now_ms


# ── subjects ────────────────────────────────────────────────────────────────────────────────────────────────────


class HeldNamespace(msgspec.Struct, frozen=True, omit_defaults=True):
    """A namespace of a subject, with its pair: without a key, one is to be made."""

    name: str
    uuid: str | None = None
    key: str | None = None


class SubjectDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """`{"subject", "namespaces": [{"name", "uuid", "key"}], "blocked"?}`, as OpenWhisk has it."""

    subject: str
    namespaces: tuple[HeldNamespace, ...]
    blocked: bool = False


class LimitsDocument(msgspec.Struct, frozen=True):
    """`{"namespace", "limits"}`: what an operator set for a namespace."""

    namespace: str
    limits: msgspec.Raw


class ApiDocument(msgspec.Struct, frozen=True):
    """`{"namespace", "updated", "apidoc"}`: an API of the gateway by its document."""

    namespace: str
    updated: _Time
    apidoc: msgspec.Raw


def parse_api(body: bytes) -> Api:
    """Raises `Refused`, and `RequestError` for what the gateway refuses."""
    found = _decoded(body, ApiDocument)
    if not is_name(found.namespace):
        raise Refused(wording.NAMESPACE_ILLEGAL)
    document = _decoded(bytes(found.apidoc), dict[str, Any])
    if not isinstance(document.get("basePath"), str) or not isinstance(document.get("paths"), dict):
        raise Refused(wording.swagger_lacks("basePath"))
    return api_of(found.namespace, document, found.updated)


class ClientDocument(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`{"namespace", "basePath", "client", "secret"?, "key"?}`: a client of an API, as it is kept.

    `secret` is an HMAC-SHA-256 of its secret, and `key` that under which it was made, both in hex.
    """

    namespace: str
    base_path: str
    client: str
    secret: _Hex = ""
    key: _Hex = ""


def parse_client(body: bytes) -> ClientDocument:
    """Raises `Refused`."""
    found = _decoded(body, ClientDocument)
    if not is_name(found.namespace):
        raise Refused(wording.NAMESPACE_ILLEGAL)
    if found.base_path and not found.base_path.startswith("/"):
        raise Refused(f"of the client {found.client} the base path begins with no slash")
    if bool(found.secret) != bool(found.key):
        raise Refused(f"of the client {found.client} a secret comes without its key, or a key alone")
    return found


def parse_subject(body: bytes) -> SubjectDocument:
    """Raises `Refused`; each of its namespaces is looked at by `pair_of`."""
    return _decoded(body, SubjectDocument)


def pair_of(subject: str, held: HeldNamespace) -> AuthKey:
    """The pair of a subject for a namespace: what is missing of it is made. Raises `Refused`."""
    check_subject(subject, held.name)
    fresh = new_key()
    return parse_pair(f"{held.uuid or fresh.uuid}:{fresh.key if held.key is None else held.key}")


def parse_namespace_limits(body: bytes) -> LimitsDocument:
    """Raises `Refused`; what the limits say is their owner's business."""
    found = _decoded(body, LimitsDocument)
    if not is_name(found.namespace):
        raise Refused(wording.NAMESPACE_ILLEGAL)
    return found


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(str(error)) from None


# ── records ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Record(msgspec.Struct, frozen=True, rename="camel"):
    activation_id: str
    namespace: str
    name: str
    start: _Time
    subject: str
    version: str | None = None
    end: _Time = 0
    duration: _Time | None = None
    cause: str | None = None
    logs: tuple[str, ...] = ()


class _Response(msgspec.Struct, frozen=True, rename="camel"):
    status: str | None = None
    status_code: Annotated[int, msgspec.Meta(ge=0, le=3)] | None = None
    size: _Small | None = None


class _Shown(msgspec.Struct, frozen=True):
    """The annotation of our own."""

    phases_us: dict[str, _Small]
    cold: str | None = None


def render_record(record: ActivationRecord) -> bytes:
    """The document of a record: one line of JSON."""
    return one_line(activations.render(record.head, record.result, record.logs, has_phases=True))


def parse_record(body: bytes) -> ActivationRecord:
    """The record of a document, as the API shows it or as OpenWhisk stores it (`statusCode`, `end` 0 of a trigger).

    Annotations that no record has are left out. Raises `RequestError` and `Refused`.
    """
    fields = fields_of(body)
    kept = {name: fields[name] for name in _Record.__struct_encode_fields__ if name in fields}
    known = _decoded(encode(kept), _Record)
    response = fields_of(bytes(fields.get("response", b"{}")))
    result = bytes(response.pop("result", b"null"))
    said = _decoded(encode(response), _Response)
    id = activations.parse_id(known.activation_id)
    if known.cause is not None:
        activations.parse_id(known.cause)
    if not is_name(known.namespace) or not is_name(known.name):
        raise Malformed(wording.NAME_ILLEGAL)
    duration_ms = known.duration
    if duration_ms is None and known.end:
        duration_ms = max(0, known.end - known.start)
    head = ActivationHead(
        id=id,
        namespace=known.namespace,
        subject=known.subject,
        name=known.name,
        version=version.parse_version(known.version) or version.INITIAL,
        start_ms=known.start,
        end_ms=known.end,
        duration_ms=duration_ms,
        status=_status(said),
        size=said.size,
        cause=known.cause,
    )
    annotations = parse_parameters(bytes(fields.get("annotations", b"[]"))) or {}
    head = msgspec.structs.replace(head, **_annotated(head, {key: one.value for key, one in annotations.items()}))
    try:
        msgspec.msgpack.encode(head)  # as it is going to be kept
    except OverflowError:
        raise Refused("a number is too large") from None
    return ActivationRecord(head=head, result=b"{}" if result == b"null" else result, logs=known.logs)


def _status(said: _Response) -> Status:
    if said.status_code is not None:
        return Status(said.status_code)
    if said.status not in STATUS_WORDS:
        raise Malformed("the response has no status")
    return Status(STATUS_WORDS.index(said.status))


def _annotated(head: ActivationHead, values: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """Those fields of a head that are shown as annotations. What ended and names no path ran in its own namespace."""

    def value(key: str, kind: type[T]) -> T | None:
        return _decoded(bytes(values[key]), kind) if key in values else None

    path = value("path", str)
    if path is None:
        return {} if head.duration_ms is None else {"path": f"{head.namespace}/{head.name}"}
    kind, binding = value("kind", str), value("binding", str)
    return {
        "path": parse_qualified(path).id,
        "kind": None if kind == "unknown" else kind,
        "limits": value("limits", ActionLimits),
        "wait_ms": value("waitTime", int),
        "init_ms": value("initTime", int),
        "is_timeout": value("timeout", bool),
        "is_topmost": value("topmost", bool),
        "is_conductor": value("conductor", bool) or False,
        "binding": None if binding is None else parse_qualified(binding).id,
        "retry_of": value("retryOf", str),
        "attempt": value("attempt", int),
        "phases": _phases(value(PHASES_KEY, _Shown)),
    }


def _phases(shown: _Shown | None) -> Phases | None:
    if shown is None:
        return None
    reached: dict[str, Any] = {name: shown.phases_us.get(name) for name in PHASES}
    if None in (reached["queued"], reached["placed"], reached["stored"]):
        raise Refused("phases are missing")
    return Phases(**reached, cold=shown.cold)


def fields_of(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of an object, as they were sent; raises `Refused`.

    Lone surrogates, which results may hold and strict decoders refuse, are let through by a second, slower reading.
    """
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if b"\\ud" not in body.lower():
            raise Refused(str(error)) from None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from None
    if not isinstance(value, dict):
        raise Refused(wording.JSON_OBJECT_EXPECTED)
    return {key: msgspec.Raw(json.dumps(item, separators=(",", ":")).encode()) for key, item in value.items()}
