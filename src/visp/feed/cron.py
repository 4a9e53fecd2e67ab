"""Patterns of times as OpenWhisk's alarms read them. Pure.

The syntax is that of the npm module `cron` 1.8 (source: its documentation and what its parser takes): five fields, or
six with seconds first; months are 0–11, weekdays 0–6 from Sunday, both by English names of three letters too; `*`, `a`,
`a-b`, each with a step `/n`, in lists. A day counts if its date or its weekday is named where both are restricted.

What a change of clocks skips fires right behind the gap, and what it repeats fires once, as Debian's cron does it;
patterns with seconds, or for each minute or hour, go by the hours that there are.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from collections.abc import Iterator

PATTERN_LENGTH = 1000
_BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (0, 11), (0, 6))
_HOURLY = (0, 1, 2)
"""Seconds, minutes and hours: `*` with a step is not the same there as its list, when clocks are changed."""
_MONTH = 4
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES = {name: number for names in (_MONTHS, _DAYS) for number, name in enumerate(names)}
_WORD = re.compile(r"[A-Za-z]{1,3}")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?(?:/([0-9]{1,9}))?\Z")
_STEP = re.compile(r"\*/[0-9]{1,9}\Z")
_LAST_MS = 250_000_000_000_000
"""Nothing is scheduled behind that (the year 9892): dates end soon after."""


class Cron:
    """Times of a pattern, in milliseconds, ascending. Raises `ValueError` for one that is none, or never comes."""

    def __init__(self, pattern: str, zone: tzinfo = UTC, *, second: int | None = None) -> None:
        """`second` stands for the seconds of a pattern of five fields."""
        fields = _fields(pattern)
        self.seconds_given = len(fields) == len(_BOUNDS)
        if not self.seconds_given:
            fields = [str(second or 0), *fields]
        parts = [_canonical(field, index) for index, field in enumerate(fields)]
        self.is_on_minute = parts[0] == "0"
        self._expression = " ".join(parts[1:] if self.is_on_minute else parts)
        self._zone = zone
        if next(self.after(0), None) is None:
            raise ValueError("never")

    def after(self, ms: int) -> Iterator[int]:
        """All times that are later."""
        try:
            simulated = CronSim(self._expression, self._local(ms))
        except CronSimError:
            raise ValueError("never") from None
        last = ms
        try:
            for moment in simulated:
                found = _ms(moment)
                if found > last:  # several that a change of clocks moves to the same moment are one
                    last = found
                    yield found
        except OverflowError:
            return

    def before(self, ms: int) -> int | None:
        """The last time that is earlier."""
        moment = self._local(ms - 1) + timedelta(seconds=1)  # in whole seconds: what is looked for is before this
        try:
            found = next(CronSim(self._expression, moment, reverse=True), None)
        except OverflowError:
            return None
        if found is None:
            return None
        last = None
        for time in self.after(_ms(found) - 1):
            if time >= ms:
                break
            last = time
        return last

    def _local(self, ms: int) -> datetime:
        return datetime.fromtimestamp(min(ms, _LAST_MS) // 1000, self._zone)


@functools.lru_cache(maxsize=1000)
def cron_of(pattern: str, zone: tzinfo, second: int) -> Cron:
    """Many alarms have the same pattern, which is read once."""
    return Cron(pattern, zone, second=second)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp()) * 1000


def _fields(pattern: str) -> list[str]:
    if len(pattern) > PATTERN_LENGTH:
        raise ValueError("too long")
    fields = _WORD.sub(_number, pattern).split()
    if not len(_BOUNDS) - 1 <= len(fields) <= len(_BOUNDS):
        raise ValueError("fields")
    return fields


def _number(word: re.Match[str]) -> str:
    try:
        return str(_NAMES[word[0].lower()])
    except KeyError:
        raise ValueError("name") from None


def _canonical(field: str, index: int) -> str:
    """The field as the library reads it: `*` if it permits everything, else a list of numbers."""
    low, high = _BOUNDS[index]
    named: set[int] = set()
    for part in field.split(","):
        found = _RANGE.match(f"{low}-{high}{part[1:]}" if part.startswith("*") else part)
        if found is None:
            raise ValueError("field")
        first, step = int(found[1]), int(found[3] or 1)
        last = int(found[2]) if found[2] else high if found[3] else first
        if not low <= first <= last <= high or not step:
            raise ValueError("range")
        named.update(range(first, last + 1, step))
    if len(named) == high - low + 1:
        return "*"
    if index in _HOURLY and _STEP.match(field):
        return field
    return ",".join(str(number + (index == _MONTH)) for number in sorted(named))
