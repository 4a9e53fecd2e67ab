"""Regular expressions that take no longer than their text is long: what users give runs within the platform. Pure.

What is understood: characters, `.`, `\\d \\w \\s` and their opposites, classes like `[a-z_]` and `[^,]`, groups, `|`,
`?`, `*`, `+`, `{2}`, `{2,}`, `{2,5}`, and `^` and `$` for the text's ends. Nothing that looks back or ahead: each
character is read once, and all that the expression could be at is followed side by side (Thompson's construction).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

EXPRESSION_LENGTH = 500
STATES_MOST = 400
TEXT_LENGTH = 1_000
"""Of a longer text the beginning is looked at."""
_REMEMBERED = 2_000
"""Steps of an expression, so that a text like the last is a look-up for each character."""

_DIGITS = (("0", "9"),)
_WORDS = (*_DIGITS, ("a", "z"), ("A", "Z"), ("_", "_"))
_SPACES = ((" ", " "), ("\t", "\r"))
_KNOWN = {"d": _DIGITS, "w": _WORDS, "s": _SPACES}
_WRITTEN = {"n": "\n", "t": "\t", "r": "\r"}


class _Characters(msgspec.Struct, frozen=True):
    ranges: tuple[tuple[str, str], ...]
    is_other: bool = False

    def has(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges) != self.is_other


class _Start(msgspec.Struct, frozen=True):
    pass


class _End(msgspec.Struct, frozen=True):
    pass


class _Row(msgspec.Struct, frozen=True):
    parts: tuple[_Node, ...]


class _Choice(msgspec.Struct, frozen=True):
    parts: tuple[_Node, ...]


class _Repeat(msgspec.Struct, frozen=True):
    part: _Node
    least: int
    most: int | None


_Node = _Characters | _Start | _End | _Row | _Choice | _Repeat
_ANY = _Characters((), is_other=True)


class Pattern:
    """Raises `ValueError` for an expression that is not understood, or too long."""

    def __init__(self, expression: str) -> None:
        if len(expression) > EXPRESSION_LENGTH:
            raise ValueError(f"it is longer than {EXPRESSION_LENGTH} characters")
        self._machine = _Machine()
        self._machine.add(_Reader(expression).read())
        self._steps: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def is_in(self, text: str) -> bool:
        """Whether it is found somewhere in a text."""
        machine, text = self._machine, text[:TEXT_LENGTH]
        again = machine.begin(is_start=False)
        states = machine.begin(is_start=True)
        for character in text:
            if machine.final in states:
                return True
            step = states, character
            found = self._steps.get(step)
            if found is None:
                found = machine.step(states, character) | again
                if len(self._steps) >= _REMEMBERED:
                    self._steps.clear()
                self._steps[step] = found
            states = found
        return machine.final in machine.ended(states)


class _Machine:
    """States by number: what each of them takes, and where it leads."""

    def __init__(self) -> None:
        self.final = -1
        self._takes: list[_Characters | _Start | _End | None] = []
        self._leads: list[list[int]] = []

    def add(self, node: _Node) -> None:
        start = self._state()
        self._first = start
        self.final = self._state()
        self._build(node, start, self.final)

    def _state(self) -> int:
        if len(self._takes) >= STATES_MOST:
            raise ValueError("it comes to too many steps")
        self._takes.append(None)
        self._leads.append([])
        return len(self._takes) - 1

    def _build(self, node: _Node, start: int, end: int) -> None:
        """From a state that takes nothing yet to another."""
        match node:
            case _Row(parts):
                for part in parts:
                    after = self._state()
                    self._build(part, start, after)
                    start = after
                self._leads[start].append(end)
            case _Choice(parts):
                for part in parts:
                    begin = self._state()
                    self._leads[start].append(begin)
                    self._build(part, begin, end)
            case _Repeat(part, least, most):
                for _ in range(least):
                    after = self._state()
                    self._part(part, start, after)
                    start = after
                if most is None:
                    loop = self._state()
                    self._leads[start].append(loop)
                    self._part(part, loop, loop)
                    start = loop
                for _ in range((most or least) - least):
                    after = self._state()
                    self._part(part, start, after)
                    self._leads[start].append(end)
                    start = after
                self._leads[start].append(end)
            case _:
                begin = self._state()
                self._leads[start].append(begin)
                self._takes[begin] = node
                self._leads[begin].append(end)

    def _part(self, part: _Node, start: int, end: int) -> None:
        begin = self._state()
        self._leads[start].append(begin)
        self._build(part, begin, end)

    def begin(self, *, is_start: bool) -> frozenset[int]:
        return self._closed((self._first,), is_start=is_start)

    def step(self, states: frozenset[int], character: str) -> frozenset[int]:
        found: list[int] = []
        for state in states:
            takes = self._takes[state]
            if isinstance(takes, _Characters) and takes.has(character):
                found += self._leads[state]
        return self._closed(found)

    def ended(self, states: frozenset[int]) -> frozenset[int]:
        return self._closed(states, is_end=True)

    def _closed(self, states: Iterable[int], *, is_start: bool = False, is_end: bool = False) -> frozenset[int]:
        """With all that is reached without a character."""
        found: set[int] = set()
        open_ = list(states)
        while open_:
            state = open_.pop()
            if state in found:
                continue
            found.add(state)
            match self._takes[state]:
                case _Characters():
                    continue
                case _Start() if not is_start:
                    continue
                case _End() if not is_end:
                    continue
            open_ += self._leads[state]
        return frozenset(found)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def read(self) -> _Node:
        node = self._choice()
        if self._at < len(self._text):
            raise ValueError("a group is closed that is not open")
        return node

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._peek()
        if not character:
            raise ValueError("it ends too early")
        self._at += 1
        return character

    def _choice(self) -> _Node:
        parts = [self._row()]
        while self._peek() == "|":
            self._at += 1
            parts.append(self._row())
        return parts[0] if len(parts) == 1 else _Choice(tuple(parts))

    def _row(self) -> _Node:
        parts: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated(self._single()))
        return _Row(tuple(parts))

    def _repeated(self, node: _Node) -> _Node:
        bounds: tuple[int, int | None] | None = None
        match self._peek():
            case "*":
                bounds = 0, None
            case "+":
                bounds = 1, None
            case "?":
                bounds = 0, 1
            case "{":
                inner, closed, _ = self._text[self._at + 1 :].partition("}")
                low, comma, high = inner.partition(",")
                if not closed or not low.isdigit() or (high and not high.isdigit()) or len(inner) > 8:
                    raise ValueError("a { is no count: write \\{ for the character")
                bounds = int(low), (int(high) if high else None) if comma else int(low)
                self._at += len(inner) + 1
        if bounds is None:
            return node
        self._at += 1
        least, most = bounds
        if least > STATES_MOST or (most is not None and not least <= most <= STATES_MOST):
            raise ValueError("a count is too large, or its bounds are in the wrong order")
        if self._peek() in ("*", "+", "?", "{") and self._peek():
            raise ValueError("a repetition is repeated")
        return _Repeat(node, least, most) if most != 0 else _Row(())

    def _single(self) -> _Node:
        character = self._take()
        match character:
            case ".":
                return _ANY
            case "^":
                return _Start()
            case "$":
                return _End()
            case "(":
                return self._group()
            case "[":
                return self._class()
            case "\\":
                return self._escaped()
            case "*" | "+" | "?" | "{":
                raise ValueError("a repetition has nothing before it")
        return _Characters(((character, character),))

    def _group(self) -> _Node:
        if self._text.startswith("?:", self._at):
            self._at += 2
        self._depth += 1
        if self._depth > 20:
            raise ValueError("groups are nested too deep")
        node = self._choice()
        if self._peek() != ")":
            raise ValueError("a group is not closed")
        self._at += 1
        self._depth -= 1
        return node

    def _escaped(self) -> _Characters:
        character = self._take()
        known = _KNOWN.get(character.lower())
        if known is not None:
            return _Characters(known, is_other=character.isupper())
        if character.isalnum() and character not in _WRITTEN:
            raise ValueError(f"\\{character} is not understood")
        meant = _WRITTEN.get(character, character)
        return _Characters(((meant, meant),))

    def _class(self) -> _Characters:
        is_other = self._peek() == "^"
        self._at += is_other
        ranges: list[tuple[str, str]] = []
        while self._peek() != "]" or not ranges:
            low = self._take()
            if low == "\\":
                found = self._escaped()
                if len(found.ranges) > 1 or found.is_other or found.ranges == _DIGITS:
                    if found.is_other:
                        raise ValueError("a class has an opposite in it")
                    ranges += found.ranges
                    continue
                low = found.ranges[0][0]
            high = low
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._take()
                if high == "\\":
                    high = self._escaped().ranges[0][0]
                if high < low:
                    raise ValueError("a range is in the wrong order")
            ranges.append((low, high))
        self._at += 1
        return _Characters(tuple(ranges), is_other)
