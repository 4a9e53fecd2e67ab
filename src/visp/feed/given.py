"""What CREATE and UPDATE were given, read one by one; each raises `FeedRefused` with a sentence. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from visp import wording
from visp.feed.base import FeedRefused, Json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

TEXT_LENGTH = 8_000
LIST_LENGTH = 100


def text(given: Mapping[str, Json], name: str, default: str = "") -> str:
    """`default` where there is none; a number is its digits, as clients make one of a text of digits."""
    value = given.get(name)
    if value is None:
        return default
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > TEXT_LENGTH:
        raise FeedRefused(wording.feed_needs_text(name))
    return value


def required(given: Mapping[str, Json], name: str) -> str:
    found = text(given, name)
    if not found:
        raise FeedRefused(wording.feed_lacks(name))
    return found


def flag(given: Mapping[str, Json], name: str, *, default: bool = False) -> bool:
    """Also of the texts `true` and `false`."""
    value = given.get(name)
    if value is None or value == "":
        return default
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower())
    if not isinstance(value, bool):
        raise FeedRefused(wording.feed_needs_flag(name))
    return value


def integer(given: Mapping[str, Json], name: str, default: int, low: int, high: int) -> int:
    """Also of a text of digits."""
    value = given.get(name)
    if value is None or value == "":
        return default
    found = whole(value)
    if found is None or not low <= found <= high:
        raise FeedRefused(wording.feed_needs_integer(name, low, high))
    return found


def whole(value: Json) -> int | None:
    """The whole number that a value or its text is; None for anything else."""
    if isinstance(value, str) and len(value) <= 20:
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def one_of(given: Mapping[str, Json], name: str, known: Collection[str], default: str) -> str:
    found = text(given, name, default)
    if found not in known:
        raise FeedRefused(wording.feed_needs_one_of(name, known))
    return found


def texts(given: Mapping[str, Json], name: str) -> list[str]:
    """A list of texts, or one."""
    value = given.get(name)
    if value is None or value == "":
        return []
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or len(found) > LIST_LENGTH:
        raise FeedRefused(wording.feed_needs_texts(name, LIST_LENGTH))
    if not all(isinstance(each, str) and 0 < len(each) <= TEXT_LENGTH for each in found):
        raise FeedRefused(wording.feed_needs_texts(name, LIST_LENGTH))
    return found


def url(given: Mapping[str, Json], name: str, schemes: Collection[str]) -> str:
    """A URL with a host and without anybody's password: that has parameters of its own, which are kept from view."""
    found = required(given, name)
    parts = split_url(found)
    if parts is None or parts.scheme not in schemes or parts.username is not None or parts.password is not None:
        raise FeedRefused(wording.feed_needs_url(name, schemes))
    return found


def split_url(text: str) -> SplitResult | None:
    """None for what is no URL with a host and a possible port."""
    try:
        parts = urlsplit(text)
        if not parts.hostname or parts.port == 0 or any(character.isspace() for character in text):
            return None
    except ValueError:
        return None
    return parts


def instant_ms(value: Json) -> int | None:
    """Milliseconds, or a time in ISO 8601 (of UTC if it does not say); None for anything else."""
    found = whole(value)
    if found is None and isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            found = round(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            return None
    return found if found is not None and abs(found) <= 8_640_000_000_000_000 else None
