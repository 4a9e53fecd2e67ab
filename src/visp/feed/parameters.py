"""What feeds of visp's own are given, as tables of fields; what READ shows of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from visp import wording
from visp.feed.base import FeedRefused, Json, Reach, Source
from visp.feed.conditions import parse_filter
from visp.feed.sifting import sifted

TEXT_LIMIT = 8_000
TEXTS_LIMIT = 100
NUMBER_LENGTH = 20
MASK = "***"

Read = Callable[[Json], Json]
"""Of a given value what is kept; raises `ValueError` with what it must be: `a number`."""


class Field(msgspec.Struct, frozen=True):
    """A parameter: how it is read; `fixed` says that UPDATE leaves it as it is."""

    name: str
    read: Read
    required: bool = False
    default: Json = None
    fixed: bool = False


class Own:
    """A feed of visp's own: of what it is given it keeps its fields that are not null, and ignores what else is bound
    to its package."""

    fields: ClassVar[tuple[Field, ...]]
    secrets: ClassVar[frozenset[str]] = frozenset()
    disables_when_throttled: ClassVar[bool] = False

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        kept = read(self.fields, given)
        self.agree(kept)
        return kept | parse_filter(given)

    def changed(self, kept: Mapping[str, Json], given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        """Parameters that are not given stay; null takes one away."""
        names = {field.name for field in self.fields}
        after = read(self.fields, {**kept, **{name: given[name] for name in names & given.keys()}})
        for field in self.fields:
            if field.fixed and place_of(after.get(field.name)) != place_of(kept.get(field.name)):
                raise FeedRefused(wording.feed_parameter_fixed(field.name))
        self.agree(after)
        return after | parse_filter({**kept, **given})

    def agree(self, kept: Mapping[str, Json]) -> None:
        """Raises `FeedRefused` where fields do not go together."""

    def source(self, parameters: Mapping[str, Json], reach: Reach) -> Source:
        """What `open` opens, without a filter."""
        raise NotImplementedError

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> Source:
        return sifted(self.source(parameters, reach), parameters)

    def created(self, id: str, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {"status": "success"}

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {name: masked(value) if name == "url" else value for name, value in parameters.items()}


def read(fields: tuple[Field, ...], given: Mapping[str, Json]) -> dict[str, Json]:
    kept: dict[str, Json] = {}
    for field in fields:
        value = given.get(field.name)
        if value is None or value == "":
            if field.required:
                raise FeedRefused(wording.feed_parameter_missing(field.name))
            if field.default is not None:
                kept[field.name] = field.default
            continue
        try:
            kept[field.name] = field.read(value)
        except ValueError as error:
            raise FeedRefused(wording.feed_parameter_bad(field.name, str(error))) from None
    return kept


def text(value: Json) -> str:
    """Also of a number, as which clients read a text of digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > TEXT_LIMIT or "\0" in value:
        raise ValueError(wording.feed_text(TEXT_LIMIT))
    return value


def flag(value: Json) -> bool:
    """`wsk` sends what it cannot read as JSON as text."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower())
    if not isinstance(value, bool):
        raise ValueError(wording.FEED_FLAG)
    return value


def texts(value: Json) -> list[str]:
    """A list of texts, or one with commas in it."""
    parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(parts, list) or not 0 < len(parts) <= TEXTS_LIMIT:
        raise ValueError(wording.feed_texts(TEXTS_LIMIT))
    return [text(part) for part in parts]


def listed(value: Json) -> list[str]:
    """A list of texts, or one."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) > TEXTS_LIMIT or not all(isinstance(p, str) and p for p in parts):
        raise ValueError(wording.feed_listed(TEXTS_LIMIT))
    return [text(part) for part in parts]


def number(value: Json) -> int | None:
    """The whole number that a value or its text is; None for anything else."""
    if isinstance(value, str) and len(value) <= NUMBER_LENGTH:
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def whole(low: int, high: int) -> Callable[[Json], int]:
    def read_whole(value: Json) -> int:
        found = number(value)
        if found is None or not low <= found <= high:
            raise ValueError(wording.feed_whole(low, high))
        return found

    return read_whole


def choice(*values: str) -> Callable[[Json], str]:
    def read_choice(value: Json) -> str:
        if value not in values:
            raise ValueError(wording.feed_choice(values))
        return str(value)

    return read_choice


def url(*schemes: str) -> Read:
    """A text that is a URL of one of these schemes, with a host and perhaps a port."""

    def read_url(value: Json) -> str:
        given = text(value)
        try:
            parts = urlsplit(given)
            _ = parts.port
        except ValueError:
            raise ValueError(wording.feed_url(schemes)) from None
        if parts.scheme not in schemes or not parts.hostname or "," in parts.netloc.rpartition("@")[2]:
            raise ValueError(wording.feed_url(schemes))
        return given

    return read_url


class Place(msgspec.Struct, frozen=True):
    """Where a URL leads, and as whom."""

    scheme: str
    host: str
    port: int
    user: str | None
    password: str | None
    path: str
    query: str

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def place(given: str, port: int) -> Place:
    """Of a URL that `url` has let through; `port` is what it means without one."""
    parts = urlsplit(given)
    return Place(
        parts.scheme,
        parts.hostname or "",
        parts.port or port,
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
        unquote(parts.path.removeprefix("/")),
        parts.query,
    )


def place_of(value: Any) -> Any:
    """A value as an address: of a URL without who it is for."""
    if not isinstance(value, str) or "://" not in value:
        return value
    parts = urlsplit(value)
    return SplitResult(parts.scheme, parts.netloc.rpartition("@")[2].lower(), parts.path, "", "")


def masked(value: Json) -> Json:
    """A URL whose password, or token in place of a name, is not shown."""
    if not isinstance(value, str):
        return value
    parts = urlsplit(value)
    who, at, where = parts.netloc.rpartition("@")
    if not at:
        return value
    user, colon, _ = who.partition(":")
    return parts._replace(netloc=f"{user}:{MASK}@{where}" if colon else f"{MASK}@{where}").geturl()
