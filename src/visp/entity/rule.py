"""A rule: this trigger runs that action. Its status lives in the trigger."""

from __future__ import annotations

from typing import Any

import msgspec

from visp import wording
from visp.entity import version
from visp.entity.action import parse_publish, raw_fields
from visp.entity.names import FullyQualifiedName, parse_qualified
from visp.entity.parameters import Parameters, render_parameters
from visp.entity.payload import encode, parse_document
from visp.entity.trigger import RuleStatus
from visp.errors import BadRequest, Malformed

_STATUSES = frozenset(RuleStatus)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One stored rule."""

    name: FullyQualifiedName
    trigger: FullyQualifiedName
    action: FullyQualifiedName
    annotations: Parameters = {}
    version: str = version.INITIAL
    publish: bool = False
    updated_ms: int = 0
    revision: int = 0


class RulePut(msgspec.Struct, frozen=True, kw_only=True):
    """A PUT body, parsed: None where the caller said nothing."""

    trigger: FullyQualifiedName | None
    action: FullyQualifiedName | None
    annotations: Parameters | None
    version: str | None
    publish: bool | None


def parse_put(body: bytes, namespace: str) -> RulePut:
    """`_` in names becomes `namespace`; raises `Malformed`."""
    fields = parse_document(body, "trigger")
    _, annotations = raw_fields(body)
    trigger, action = fields.get("trigger"), fields.get("action")
    return RulePut(
        trigger=None if trigger is None else parse_qualified(trigger).resolve(namespace),
        action=None if action is None else parse_qualified(action).resolve(namespace),
        annotations=annotations,
        version=version.parse_version(fields.get("version")),
        publish=parse_publish(fields.get("publish")),
    )


def parse_status(body: bytes) -> RuleStatus:
    """`{"status": "active" | "inactive"}`; raises `Malformed` with OpenWhisk's words. Other fields are ignored."""
    fields = parse_document(body, "status")
    if "status" not in fields:
        raise Malformed(wording.STATUS_MISSING)
    given = fields["status"]
    if isinstance(given, str) and given in _STATUSES:
        return RuleStatus(given)
    raise Malformed(wording.bad_rule_status(given if isinstance(given, str) else encode(given).decode()))


def create(name: FullyQualifiedName, put: RulePut, now_ms: int) -> Rule:
    """A new rule; raises `BadRequest` unless it names both trigger and action."""
    if put.trigger is None or put.action is None:
        raise BadRequest(wording.RULE_INCOMPLETE)
    return Rule(
        name=name,
        trigger=put.trigger,
        action=put.action,
        annotations=put.annotations or {},
        version=put.version or version.INITIAL,
        publish=put.publish or False,
        updated_ms=now_ms,
    )


def update(old: Rule, put: RulePut, now_ms: int) -> Rule:
    """Missing fields are kept; annotations are replaced as a whole where given."""
    return msgspec.structs.replace(
        old,
        trigger=put.trigger or old.trigger,
        action=put.action or old.action,
        annotations=old.annotations if put.annotations is None else put.annotations,
        version=put.version or version.next_version(old.version),
        publish=old.publish if put.publish is None else put.publish,
        updated_ms=now_ms,
    )


def render(rule: Rule, status: RuleStatus | None) -> dict[str, Any]:
    """The rule as answered; a list shows it without `status` (None)."""
    out: dict[str, Any] = {
        "namespace": rule.name.path,
        "name": rule.name.name,
        "trigger": rule.trigger.render(),
        "action": rule.action.render(),
        "annotations": render_parameters(rule.annotations),
        "version": rule.version,
        "publish": rule.publish,
        "updated": rule.updated_ms,
    }
    if status is not None:
        out["status"] = status
    return out
