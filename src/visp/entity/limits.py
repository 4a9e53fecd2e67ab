"""Limits of an action: how long, how much memory, how much log, how many at once.

Source: the limits table of Apache OpenWhisk's reference; checks and their order as its controller makes them.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from visp import wording
from visp.errors import BadRequest, Malformed

KIB = 1024
MIB = 1024 * 1024

CODE_LIMIT_BYTES = 48 * MIB
PARAMETERS_LIMIT_BYTES = MIB
PAYLOAD_LIMIT_BYTES = MIB
RESULT_LIMIT_BYTES = MIB
SEQUENCE_LIMIT = 50
LIST_DEFAULT = 30
LIST_MAXIMUM = 200


_BYTE_SIZE = re.compile(r"\s*(\d{1,15})\s*(B|KB?|MB?|GB?)\s*\Z", re.ASCII | re.IGNORECASE)
_UNIT_BYTES = {"B": 1, "K": KIB, "M": MIB, "G": 1024 * MIB}


def parse_byte_size(text: str) -> int:
    """Bytes of a size as operators write it (`1048576 B`, `64 KB`, `1m`); raises `ValueError`."""
    match = _BYTE_SIZE.match(text)
    if match is None:
        raise ValueError(f"no size: {text}")
    return int(match[1]) * _UNIT_BYTES[match[2][0].upper()]


def render_byte_size(size: int) -> str:
    return f"{size} B"


class Range(msgspec.Struct, frozen=True):
    """Smallest, largest and default value of one limit."""

    low: int
    high: int
    default: int


TIMEOUT_MS = Range(100, 300_000, 60_000)
MEMORY_MB = Range(128, 512, 256)
LOGS_MB = Range(0, 10, 10)
CONCURRENCY = Range(1, 1, 1)
"""Runs at once in one container; an operator may allow more."""


class ActionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`limits` of an action on the wire: `{"timeout": ms, "memory": MB, "logs": MB, "concurrency": n, "instances"?:
    n}`.
    """

    timeout_ms: int = msgspec.field(name="timeout", default=TIMEOUT_MS.default)
    memory_mb: int = msgspec.field(name="memory", default=MEMORY_MB.default)
    logs_mb: int = msgspec.field(name="logs", default=LOGS_MB.default)
    concurrency: int = CONCURRENCY.default
    instances: int | None = None

    def render(self) -> dict[str, int]:
        out = {
            "concurrency": self.concurrency,
            "logs": self.logs_mb,
            "memory": self.memory_mb,
            "timeout": self.timeout_ms,
        }
        if self.instances is not None:
            out["instances"] = self.instances
        return out


class AnswerLimits(msgspec.Struct, frozen=True, array_like=True):
    """How long an action's answer may be, and how much of a longer one is shown; in bytes."""

    whole: int = RESULT_LIMIT_BYTES
    shown: int = RESULT_LIMIT_BYTES


PLATFORM = AnswerLimits()
"""Unless an operator set a namespace's own."""


class LimitRanges(msgspec.Struct, frozen=True, kw_only=True):
    """What a namespace may ask for; the platform's own ranges unless an operator narrowed them."""

    timeout_ms: Range = TIMEOUT_MS
    memory_mb: Range = MEMORY_MB
    logs_mb: Range = LOGS_MB
    concurrency: Range = CONCURRENCY


# (wire field, name in "limit malformed", name in "must be whole number")
_FIELDS = (
    ("timeout", "time", "time"),
    ("memory", "memory", "memory"),
    ("logs", "log", "log"),
    ("concurrency", "concurrency", "intra concurrency"),
    ("instances", "instance concurrency", "instance concurrency"),
)


def parse_limits(value: Any) -> dict[str, int]:
    """The limits that a PUT body names, by their wire field.

    Raises `Malformed` for what is no object, no number or no whole number. Ranges are checked by `check_ranges`, after
    the merge with the stored limits.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(wording.object_expected_in("timeout"))
    out: dict[str, int] = {}
    for field, noun, whole_noun in _FIELDS:
        given = value.get(field)
        if given is None:
            continue
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise Malformed(wording.limit_malformed(noun))
        if given != int(given):
            raise Malformed(wording.limit_not_whole(whole_noun))
        out[field] = int(given)
    if out.get("instances", 0) < 0:
        raise Malformed(wording.INSTANCES_NEGATIVE)
    return out


def merge_limits(old: ActionLimits | None, given: dict[str, int]) -> ActionLimits:
    """Given fields over the old ones (on update) or the defaults (on create)."""
    fields = (old or ActionLimits()).render() | given
    return ActionLimits(
        timeout_ms=fields["timeout"],
        memory_mb=fields["memory"],
        logs_mb=fields["logs"],
        concurrency=fields["concurrency"],
        instances=fields.get("instances"),
    )


def range_violation(limits: ActionLimits, ranges: LimitRanges) -> str | None:
    """The sentence for the first limit that is out of range, in OpenWhisk's order: memory, timeout, logs,
    concurrency.
    """
    checks = (
        (limits.memory_mb, ranges.memory_mb, wording.memory_out_of_range),
        (limits.timeout_ms, ranges.timeout_ms, wording.duration_out_of_range),
        (limits.logs_mb, ranges.logs_mb, wording.logs_out_of_range),
        (limits.concurrency, ranges.concurrency, wording.concurrency_out_of_range),
    )
    for value, allowed, sentence in checks:
        if value > allowed.high:
            return sentence(value, allowed.high, is_above=True)
        if value < allowed.low:
            return sentence(value, allowed.low, is_above=False)
    return None


def check_ranges(limits: ActionLimits, ranges: LimitRanges) -> None:
    """Raises `BadRequest` when a limit is outside of what the namespace may ask for."""
    sentence = range_violation(limits, ranges)
    if sentence is not None:
        raise BadRequest(wording.requirement_failed(sentence))
