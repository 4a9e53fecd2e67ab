"""What CREATE and UPDATE were given, read one by one; each raises `FeedRefused` with a sentence. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import SplitResult, urlsplit

from visp import wording
from visp.feed import parameters
from visp.feed.base import FeedRefused, Json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

T = TypeVar("T")


def text(given: Mapping[str, Json], name: str, default: str = "") -> str:
    return _read(given, name, parameters.text, default)


def required(given: Mapping[str, Json], name: str) -> str:
    found = text(given, name)
    if not found:
        raise FeedRefused(wording.feed_parameter_missing(name))
    return found


def flag(given: Mapping[str, Json], name: str, *, default: bool = False) -> bool:
    return _read(given, name, parameters.flag, default)


def integer(given: Mapping[str, Json], name: str, default: int, low: int, high: int) -> int:
    return _read(given, name, parameters.whole(low, high), default)


def one_of(given: Mapping[str, Json], name: str, known: Collection[str], default: str) -> str:
    return _read(given, name, parameters.choice(*known), default)


def texts(given: Mapping[str, Json], name: str) -> list[str]:
    return _read(given, name, parameters.listed, [])


def url(given: Mapping[str, Json], name: str, schemes: Collection[str]) -> str:
    """A URL with a host and without anybody's password: that has parameters of its own, which are kept from view."""
    found = required(given, name)
    parts = split_url(found)
    if parts is None or parts.scheme not in schemes or parts.username is not None or parts.password is not None:
        raise FeedRefused(wording.feed_parameter_bad(name, wording.feed_url(schemes)))
    return found


def _read(given: Mapping[str, Json], name: str, read: Callable[[Json], T], default: T) -> T:
    """`default` where there is none, or an empty text."""
    value = given.get(name)
    if value is None or value == "":
        return default
    try:
        return read(value)
    except ValueError as error:
        raise FeedRefused(wording.feed_parameter_bad(name, str(error))) from None


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
    found = parameters.number(value)
    if found is None and isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            found = round(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            return None
    return found if found is not None and abs(found) <= 8_640_000_000_000_000 else None
