"""A trigger: a named channel of events, and the rules that hang on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from visp import wording
from visp.entity import version
from visp.entity.action import parse_publish, raw_fields
from visp.entity.follow import Follow
from visp.entity.names import FullyQualifiedName, is_name, split_path
from visp.entity.parameters import Parameters, render_parameters, text
from visp.entity.payload import parse_document
from visp.errors import BadRequest


class RuleStatus(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"


class RuleLink(msgspec.Struct, frozen=True):
    """A rule as its trigger knows it: the status lives here, so that firing reads one document.

    `follow` is what the rule's annotations say of failures.
    """

    action: FullyQualifiedName
    status: RuleStatus
    follow: Follow | None = None


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """One stored trigger; `rules` maps `ns/rule` to its link, None until a rule was ever attached."""

    name: FullyQualifiedName
    parameters: Parameters = {}
    annotations: Parameters = {}
    rules: dict[str, RuleLink] | None = None
    version: str = version.INITIAL
    publish: bool = False
    updated_ms: int = 0
    revision: int = 0


class TriggerPut(msgspec.Struct, frozen=True, kw_only=True):
    """A PUT body, parsed: None where the caller said nothing."""

    parameters: Parameters | None
    annotations: Parameters | None
    version: str | None
    publish: bool | None


def parse_put(body: bytes) -> TriggerPut:
    """Raises `Malformed`."""
    fields = parse_document(body, "parameters")
    parameters, annotations = raw_fields(body)
    return TriggerPut(
        parameters=parameters,
        annotations=annotations,
        version=version.parse_version(fields.get("version")),
        publish=parse_publish(fields.get("publish")),
    )


def create(name: FullyQualifiedName, put: TriggerPut, now_ms: int) -> Trigger:
    """A new trigger; raises `BadRequest` for a `feed` annotation that names no feed."""
    annotations = put.annotations or {}
    if "feed" in annotations and not _is_feed(text(annotations, "feed")):
        raise BadRequest(wording.FEED_INVALID)
    return Trigger(
        name=name,
        parameters=put.parameters or {},
        annotations=annotations,
        version=put.version or version.INITIAL,
        publish=put.publish or False,
        updated_ms=now_ms,
    )


def _is_feed(path: str | None) -> bool:
    segments = split_path(path or "")
    return bool(segments) and all(is_name(segment) for segment in segments)


def update(old: Trigger, put: TriggerPut, now_ms: int) -> Trigger:
    """Parameters and annotations are replaced as a whole where given; rules stay."""
    return msgspec.structs.replace(
        old,
        parameters=old.parameters if put.parameters is None else put.parameters,
        annotations=old.annotations if put.annotations is None else put.annotations,
        version=put.version or version.next_version(old.version),
        publish=old.publish if put.publish is None else put.publish,
        updated_ms=now_ms,
    )


def link(trigger: Trigger, rule_id: str, rule_link: RuleLink) -> Trigger:
    """The trigger with this rule attached or changed; neither `version` nor `updated` moves."""
    return msgspec.structs.replace(trigger, rules=(trigger.rules or {}) | {rule_id: rule_link})


def unlink(trigger: Trigger, rule_id: str) -> Trigger:
    return msgspec.structs.replace(trigger, rules={k: v for k, v in (trigger.rules or {}).items() if k != rule_id})


def render(trigger: Trigger) -> dict[str, Any]:
    """The trigger as GET, PUT and DELETE answer it."""
    out = render_summary(trigger) | {"parameters": render_parameters(trigger.parameters), "limits": {}}
    if trigger.rules is not None:
        out["rules"] = {
            id: {"action": entry.action.render(), "status": entry.status} for id, entry in trigger.rules.items()
        }
    return out


def render_summary(trigger: Trigger) -> dict[str, Any]:
    """The trigger as a list shows it."""
    return {
        "namespace": trigger.name.path,
        "name": trigger.name.name,
        "annotations": render_parameters(trigger.annotations),
        "version": trigger.version,
        "publish": trigger.publish,
        "updated": trigger.updated_ms,
    }
