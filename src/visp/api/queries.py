"""Query parameters: parsed once, with OpenWhisk's words for what is wrong with them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from visp import wording
from visp.entity.limits import LIST_DEFAULT, LIST_MAXIMUM
from visp.entity.names import is_name, split_path
from visp.errors import BadQuery, BadRequest
from visp.store.base import ActivationQuery

if TYPE_CHECKING:
    from collections.abc import Mapping

TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})
FIELDS_LIMIT = 100

INT_BITS, LONG_BITS = 32, 64
DELAY_LIMIT_DAYS = 366
_DELAY = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)?\Z", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?\Z")
_DIGITS = re.compile(r"[+-]?[0-9]{1,40}\Z")


def parse_query(raw: bytes) -> dict[str, str]:
    """Fields by name, the first of each; raises `BadRequest` for more than 100 of them."""
    try:
        pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=FIELDS_LIMIT)
    except ValueError:
        raise BadRequest(wording.too_many_fields(FIELDS_LIMIT)) from None
    out: dict[str, str] = {}
    for name, value in pairs:
        out.setdefault(name, value)
    return out


def boolean(query: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """`true/yes/on/1` and `false/no/off/0` in any case; empty is the default. Raises `BadQuery`."""
    text = query.get(name, "")
    if not text:
        return default
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise BadQuery(name, wording.not_boolean(text))


class Page(msgspec.Struct, frozen=True):
    """Which part of a list is wanted, or only how many entries there are."""

    skip: int
    limit: int
    is_count: bool


def page(query: Mapping[str, str], collection: str) -> Page:
    """`limit` (0 to 200, where 0 means 200), `skip` and `count` of a list; raises `BadQuery`."""
    skip = _integer(query, "skip", 0, collection)
    limit = _integer(query, "limit", LIST_DEFAULT, collection)
    if skip < 0:
        raise BadQuery("skip", wording.skip_out_of_range(skip, collection))
    if not 0 <= limit <= LIST_MAXIMUM:
        raise BadQuery("limit", wording.limit_out_of_range(limit, LIST_MAXIMUM, collection))
    return Page(skip, limit or LIST_MAXIMUM, boolean(query, "count"))


def _integer(query: Mapping[str, str], name: str, default: int, collection: str) -> int:
    text = query.get(name)
    if text is None:
        return default
    number = _number(text, INT_BITS)
    if number is None:
        raise BadQuery(name, wording.not_integer(text, collection))
    return number


def _number(text: str, bits: int) -> int | None:
    """A whole number of that many bits with its sign, as Java reads it; None for anything else."""
    match = _DIGITS.match(text)
    number = None if match is None else int(text)
    return number if number is not None and -(1 << bits - 1) <= number < 1 << bits - 1 else None


def wait_ms(query: Mapping[str, str], maximum_ms: int) -> int:
    """`timeout` of a blocking invocation: 1 to the longest wait; raises `BadQuery`."""
    text = query.get("timeout")
    if text is None:
        return maximum_ms
    number = _number(text, INT_BITS)
    if number is None or not 1 <= number <= maximum_ms:
        raise BadQuery("timeout", wording.bad_wait(maximum_ms))
    return number


def due_ms(query: Mapping[str, str], now_ms: int) -> int | None:
    """When a request is to be begun, by `delay` (from now) or `at`; None: at once. Raises `BadQuery`."""
    delay, at = query.get("delay"), query.get("at")
    if delay is not None:
        match = _DELAY.match(delay)
        due = None if match is None else now_ms + round(float(match[1]) * _UNIT_MS[match[2] or "s"])
        if due is None or due > now_ms + DELAY_LIMIT_DAYS * _UNIT_MS["d"]:
            raise BadQuery("delay", wording.bad_delay(DELAY_LIMIT_DAYS))
        return due
    if at is None:
        return None
    number = _number(at, LONG_BITS)
    if number is None:
        try:
            moment = datetime.fromisoformat(at)
        except ValueError:
            raise BadQuery("at", wording.bad_instant(DELAY_LIMIT_DAYS)) from None
        number = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if not 0 <= number <= now_ms + DELAY_LIMIT_DAYS * _UNIT_MS["d"]:
        raise BadQuery("at", wording.bad_instant(DELAY_LIMIT_DAYS))
    return number


def is_build_awaited(query: Mapping[str, str]) -> bool:
    """`build=wait` of a PUT; raises `BadQuery` for any other word."""
    word = query.get("build", "")
    if word and word != "wait":
        raise BadQuery("build", wording.bad_build(word[:100]))
    return bool(word)


def wait_s(query: Mapping[str, str], maximum_s: float) -> float | None:
    """`wait` for a record: seconds, of which no more than the longest wait are taken; raises `BadQuery`."""
    text = query.get("wait")
    if text is None:
        return None
    if not _SECONDS.match(text):
        raise BadQuery("wait", wording.BAD_SECONDS)
    return min(float(text), maximum_s)


def followed(query: Mapping[str, str]) -> tuple[str | None, int | None]:
    """The filters of a stream of records: `name` and `since`, as of a list. Raises `BadQuery`."""
    return _name_filter(query), _epoch(query, "since")


def activations(query: Mapping[str, str], namespace: str) -> tuple[ActivationQuery, Page, bool]:
    """A list of activations: what is asked for, the page, and whether whole records are wanted. Raises `BadQuery`."""
    wanted = page(query, "activations")
    has_docs = boolean(query, "docs")
    built = ActivationQuery(
        namespace=namespace,
        name=_name_filter(query),
        since_ms=_epoch(query, "since"),
        upto_ms=_epoch(query, "upto"),
        skip=wanted.skip,
        limit=wanted.limit,
    )
    if wanted.is_count and has_docs:
        raise BadRequest(wording.DOCS_WITH_COUNT)
    return built, wanted, has_docs


def _epoch(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    number = _number(text, LONG_BITS)
    if number is None:
        raise BadQuery(name, wording.bad_epoch(text))
    return number


def _name_filter(query: Mapping[str, str]) -> str | None:
    text = query.get("name", "")
    if not text.strip():
        return None
    segments = split_path(text)
    if not 1 <= len(segments) <= 2 or not all(is_name(segment) for segment in segments):
        raise BadQuery("name", wording.bad_name_filter(text))
    return "/".join(segments)
