"""An action: code, its parameters, its limits. Pure parsing, merging and rendering.

Source: OpenWhisk's action documents and the merge rules of its PUT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from visp import wording
from visp.entity import execs, version
from visp.entity.execs import Exec, SequenceExec
from visp.entity.hook import COMPLETION_HOOK
from visp.entity.limits import ActionLimits, merge_limits, parse_limits
from visp.entity.names import FullyQualifiedName
from visp.entity.parameters import Parameters, parse_parameters, plain, render_parameters
from visp.entity.payload import encode, parse_document
from visp.errors import BadRequest, Malformed

if TYPE_CHECKING:
    from visp.entity.runtime_manifest import Manifest


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One stored action. `revision` is the store's; the rest is what a client sees."""

    name: FullyQualifiedName
    exec: Exec
    parameters: Parameters = {}
    annotations: Parameters = {}
    limits: ActionLimits = ActionLimits()
    version: str = version.INITIAL
    publish: bool = False
    updated_ms: int = 0
    revision: int = 0


class ActionPut(msgspec.Struct, frozen=True, kw_only=True):
    """A PUT body, parsed: None where the caller said nothing."""

    exec: Exec | None
    parameters: Parameters | None
    annotations: Parameters | None
    removed_annotations: tuple[str, ...]
    limits: dict[str, int]
    version: str | None
    publish: bool | None


class _Raw(msgspec.Struct):
    parameters: msgspec.Raw = msgspec.Raw(b"null")
    annotations: msgspec.Raw = msgspec.Raw(b"null")


_decode_raw = msgspec.json.Decoder(_Raw).decode


def raw_fields(body: bytes) -> tuple[Parameters | None, Parameters | None]:
    """Parameters and annotations of a PUT body that is known to be a JSON object, their values as they were sent."""
    raw = _decode_raw(body)
    return parse_parameters(bytes(raw.parameters)), parse_parameters(bytes(raw.annotations))


def parse_put(body: bytes, manifest: Manifest, namespace: str) -> ActionPut:
    """Raises `Malformed` with OpenWhisk's reason, `TooLarge`."""
    fields = parse_document(body, "exec", execs.code_bytes(body))
    parameters, annotations = raw_fields(body)
    exec = execs.parse_exec(fields.get("exec"), manifest, namespace)
    return ActionPut(
        exec=exec,
        parameters=parameters,
        annotations=annotations,
        removed_annotations=_parse_keys(fields.get("delAnnotations")),
        limits=parse_limits(fields.get("limits")),
        version=version.parse_version(fields.get("version")),
        publish=parse_publish(fields.get("publish")),
    )


def parse_publish(value: Any) -> bool | None:
    """`publish` of a PUT body; raises `Malformed` for what is no boolean."""
    if value is None or isinstance(value, bool):
        return value
    raise Malformed(wording.boolean_expected(encode(value).decode()))


def _parse_keys(value: Any) -> tuple[str, ...]:
    """`delAnnotations`: an array of strings, or nothing."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Malformed(wording.array_expected(encode(value).decode()))
    for key in value:
        if not isinstance(key, str):
            raise Malformed(wording.string_expected(encode(key).decode()))
    return tuple(value)


def create(name: FullyQualifiedName, put: ActionPut, now_ms: int) -> Action:
    """A new action; raises `BadRequest` without an exec."""
    if put.exec is None:
        raise BadRequest(wording.EXEC_UNDEFINED)
    annotations = plain("provide-api-key", False) | (put.annotations or {}) | plain("exec", put.exec.kind)
    return Action(
        name=name,
        exec=put.exec,
        parameters=_parameters(put.exec, put.parameters, {}),
        annotations=annotations,
        limits=merge_limits(None, put.limits),
        version=put.version or version.INITIAL,
        publish=put.publish or False,
        updated_ms=now_ms,
    )


def update(old: Action, put: ActionPut, now_ms: int) -> Action:
    """The action after an overwrite: parameters replaced as a whole, annotations merged by key, limits field by
    field.
    """
    exec = put.exec or old.exec
    kept = old.parameters
    if isinstance(old.exec, SequenceExec) and not isinstance(exec, SequenceExec):
        kept = {}
    removed = () if isinstance(put.exec, SequenceExec) else put.removed_annotations
    annotations = {key: value for key, value in old.annotations.items() if key not in removed}
    return Action(
        name=old.name,
        exec=exec,
        parameters=_parameters(exec, put.parameters, kept),
        annotations=annotations | (put.annotations or {}) | plain("exec", exec.kind),
        limits=merge_limits(old.limits, put.limits),
        version=put.version or version.next_version(old.version),
        publish=old.publish if put.publish is None else put.publish,
        updated_ms=now_ms,
    )


def _parameters(exec: Exec, given: Parameters | None, kept: Parameters) -> Parameters:
    """A sequence's parameters are always its components, under `_actions`."""
    if isinstance(exec, SequenceExec):
        return plain("_actions", ["/" + component.id for component in exec.components])
    return kept if given is None else given


def render(action: Action, code: str | None, parameters: Parameters | None = None) -> dict[str, Any]:
    """The action as GET and PUT answer it.

    `code` is its code's text or None to leave it out, `parameters` may be merged ones.
    """
    return {
        "namespace": action.name.path,
        "name": action.name.name,
        "exec": execs.render_exec(action.exec, code),
        "parameters": render_parameters(action.parameters if parameters is None else parameters),
        "annotations": render_parameters(action.annotations),
        "limits": action.limits.render(),
        "version": action.version,
        "publish": action.publish,
        "updated": action.updated_ms,
    }


def seen_from(action: Action, namespace: str) -> Action:
    """The action as a namespace may see it: the secret of a web hook is its owner's."""
    if action.name.namespace == namespace or COMPLETION_HOOK not in action.annotations:
        return action
    shown = {key: value for key, value in action.annotations.items() if key != COMPLETION_HOOK}
    return msgspec.structs.replace(action, annotations=shown)


def render_summary(action: Action) -> dict[str, Any]:
    """The action as a list shows it: neither code nor parameters."""
    is_binary = (
        not isinstance(action.exec, SequenceExec) and action.exec.code is not None and action.exec.code.is_binary
    )
    return {
        "namespace": action.name.path,
        "name": action.name.name,
        "exec": {"binary": is_binary},
        "annotations": render_parameters(action.annotations),
        "limits": action.limits.render(),
        "version": action.version,
        "publish": action.publish,
        "updated": action.updated_ms,
    }
