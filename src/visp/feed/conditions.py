"""The parameter `filter` of feeds: a condition over an event, which is fired if it holds. Pure.

    {"path": "body.temp", "above": 30}            also below, equals, in (a list), matches (a regular expression)
    {"all": [...]}  {"any": [...]}  {"not": {...}}

A path names members and, by number, elements; one that leads nowhere satisfies nothing. Several words in one object
must all hold. Numbers are compared with numbers alone; `matches` finds its expression anywhere in a text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping

from visp import wording
from visp.feed.base import FeedRefused, Json
from visp.feed.pattern import Pattern

FILTER = "filter"
PARTS_MOST = 100
DEPTH_MOST = 10
PATH_LENGTH = 500

Condition = Callable[[Json], bool]
_NOWHERE = object()
_INDEX = re.compile(r"[0-9]{1,9}\Z")


def always(event: Json) -> bool:
    return True


def parse_filter(given: Mapping[str, Json]) -> dict[str, Json]:
    """`{"filter": …}` if there is one that can be meant; raises `FeedRefused`."""
    wish = given.get(FILTER)
    if wish is None or wish == "":
        return {}
    parse_condition(wish)
    return {FILTER: wish}


def filter_of(parameters: Mapping[str, Json]) -> Condition:
    """Of what was kept."""
    return parse_condition(parameters[FILTER]) if FILTER in parameters else always


def parse_condition(value: Json) -> Condition:
    """Raises `FeedRefused` with what cannot be meant."""
    return _parse(value, 0, itertools.count(1))


def _parse(value: Json, depth: int, count: itertools.count[int]) -> Condition:
    if not isinstance(value, dict) or not value:
        raise FeedRefused(wording.bad_filter("a condition is an object like {'path': 'body.temp', 'above': 30}"))
    if depth > DEPTH_MOST or next(count) > PARTS_MOST:
        raise FeedRefused(wording.bad_filter(f"it has more than {PARTS_MOST} parts, or is nested too deep"))
    found: list[Condition] = []
    tests: list[Condition] = []
    for word, wish in value.items():
        if word == "path":
            continue
        if word in ("all", "any"):
            found.append(_group(word, wish, depth, count))
        elif word == "not":
            inner = _parse(wish, depth + 1, count)
            found.append(lambda event, inner=inner: not inner(event))  # type: ignore[misc]
        else:
            tests.append(_test(word, wish))
    if ("path" in value) != bool(tests):
        raise FeedRefused(wording.bad_filter("a path and what is asked of it stand together"))
    if tests:
        path = _path(value["path"])
        found.append(lambda event: _holds(event, path, tests))
    return found[0] if len(found) == 1 else lambda event: all(each(event) for each in found)


def _group(word: str, wish: Json, depth: int, count: itertools.count[int]) -> Condition:
    if not isinstance(wish, list) or not wish:
        raise FeedRefused(wording.bad_filter(f"'{word}' has a list of conditions"))
    parts = [_parse(each, depth + 1, count) for each in wish]
    every = all if word == "all" else any
    return lambda event: every(part(event) for part in parts)


def _path(value: Json) -> list[str]:
    if not isinstance(value, str) or not value or len(value) > PATH_LENGTH:
        raise FeedRefused(wording.bad_filter("a path is a text like 'body.temp'"))
    return value.split(".")


def _holds(event: Json, path: list[str], tests: list[Condition]) -> bool:
    found = _at(event, path)
    return found is not _NOWHERE and all(test(found) for test in tests)


def _at(event: Json, path: list[str]) -> Json:
    for step in path:
        if isinstance(event, dict):
            event = event.get(step, _NOWHERE)
        elif (
            isinstance(event, list) and step.isascii() and step.isdigit() and len(step) < 10 and int(step) < len(event)
        ):
            event = event[int(step)]
        else:
            return _NOWHERE
    return event


def _test(word: str, wish: Json) -> Condition:
    match word:
        case "above" | "below":
            if not _is_number(wish):
                raise FeedRefused(wording.bad_filter(f"'{word}' has a number"))
            if word == "above":
                return lambda value: _is_number(value) and value > wish
            return lambda value: _is_number(value) and value < wish
        case "equals":
            return lambda value: _same(value, wish)
        case "in":
            if not isinstance(wish, list) or len(wish) > 1000:
                raise FeedRefused(wording.bad_filter("'in' has a list of at most 1000 values"))
            return lambda value: any(_same(value, each) for each in wish)
        case "matches":
            try:
                if not isinstance(wish, str):
                    raise ValueError("it is no text")
                pattern = Pattern(wish)
            except ValueError as error:
                raise FeedRefused(wording.bad_filter(f"'matches' cannot be read: {error}")) from None
            return lambda value: isinstance(value, str) and pattern.is_in(value)
    raise FeedRefused(wording.bad_filter(f"'{wording.shortened(word)}' is no word of a condition"))


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(one: Json, other: Json) -> bool:
    """Equal as JSON is: `true` is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return bool(one == other)
