"""`alarms/alarm`, `alarms/interval`, `alarms/once`: triggers by the clock.

Source: the parameters, sentences and reasons of OpenWhisk's package of alarms (openwhisk-package-alarms 2.x).

Two parameters are our own. `missed` says what becomes of times that passed while nobody watched: `once` fires the last
of them (the default), `all` each, `none` nothing but what has only just passed. `jitter_ms` fires each up to so much
later, by a measure of its own that a restart does not change.

The position is `{"last": the last scheduled time that was fired, "fired": how many}`; an event's key is its scheduled
time in milliseconds, so that a time fires once however often it is come to.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol
from zoneinfo import ZoneInfo

import msgspec

from visp import wording
from visp.feed import given as asked
from visp.feed.base import BATCH_BYTES, EVENTS_MOST, Batch, Event, FeedRefused, Json, SourceEnded
from visp.feed.cron import cron_of
from visp.feed.parameters import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from visp.feed.base import Reach, Watch
    from visp.feed.cron import Cron

FIRST_INTERVAL_MS = 30_000
LATE_MS = 60_000
"""What is later than that was missed."""
LOOK_S = 60.0
"""The wall clock is looked at so often: it may be set, and a machine that slept does not know."""
JITTER_MOST_MS = 3_600_000
MINUTES_MOST = 100 * 366 * 24 * 60
MISSED = ("once", "all", "none")
_UPDATABLE = (
    *("trigger_payload", "cron", "timezone", "strict", "minutes", "date", "deleteAfterFire", "startDate", "stopDate"),
    *("missed", "jitter_ms"),
)


# ── when: pure ──────────────────────────────────────────────────────────────────────────────────────────────────


class Schedule(Protocol):
    """Times in milliseconds, ascending."""

    def after(self, ms: int) -> Iterator[int]: ...

    def before(self, ms: int) -> int | None: ...


class Grid:
    """From `start` on, one each `step_ms`; without a step, `start` alone."""

    def __init__(self, start: int, step_ms: int | None) -> None:
        self._start = start
        self._step_ms = step_ms

    def after(self, ms: int) -> Iterator[int]:
        if self._step_ms is None:
            return iter((self._start,) if self._start > ms else ())
        steps = max(0, (ms - self._start) // self._step_ms + 1)
        return itertools.count(self._start + steps * self._step_ms, self._step_ms)

    def before(self, ms: int) -> int | None:
        if self._start >= ms:
            return None
        if self._step_ms is None:
            return self._start
        return self._start + (ms - 1 - self._start) // self._step_ms * self._step_ms


class Due(msgspec.Struct, frozen=True):
    """`times` are to fire now; all up to `last` is done then. `next_ms`: when the next is, None if none will be."""

    times: list[int]
    last: int
    next_ms: int | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """When an alarm fires, and which times count that nobody watched."""

    schedule: Schedule
    stop: int | None = None
    missed: str = "once"
    jitter_ms: int = 0
    spread: int = 0

    def moment(self, time: int) -> int:
        """When a scheduled time is fired."""
        if not self.jitter_ms:
            return time
        digest = hashlib.blake2b(f"{self.spread}:{time}".encode(), digest_size=8).digest()
        return time + int.from_bytes(digest) % (self.jitter_ms + 1)

    def due(self, last: int, now: int, opened: int, most: int = EVENTS_MOST) -> Due:
        """`last` is the last time that was done with, `opened` when watching began."""
        times: list[int] = []
        upcoming = self._after(last)
        first = next(upcoming, None)
        if first is None:
            return Due(times, last, None)
        upcoming = itertools.chain((first,), upcoming)
        watched = max(opened, now - LATE_MS) - self.jitter_ms
        if self.missed != "all" and first < watched:
            skipped = self.schedule.before(watched if self.stop is None else min(watched, self.stop + 1))
            last = first if skipped is None else max(first, skipped)
            if self.missed == "once" or last >= now - LATE_MS - self.jitter_ms:
                times.append(last)
            upcoming = self._after(last)
        for time in upcoming:
            moment = self.moment(time)
            if moment > now or len(times) == most:
                return Due(times, last, moment)
            times.append(time)
            last = time
        return Due(times, last, None)

    def _after(self, ms: int) -> Iterator[int]:
        stop = self.stop
        times = self.schedule.after(ms)
        return times if stop is None else itertools.takewhile(lambda time: time <= stop, times)


# ── who waits ───────────────────────────────────────────────────────────────────────────────────────────────────


class AlarmSource:
    """One sleep, and a batch now and then."""

    def __init__(
        self,
        plan: Plan,
        body: bytes,
        *,
        since: int,
        most: int | None,
        reason: str,
        delete: Literal["trigger", "rules"] | None = None,
    ) -> None:
        """`since`: earlier times do not count; `most`: so many fires; `reason`: of its end."""
        self._plan = plan
        self._body = body
        self._since = since
        self._most = most
        self._reason = reason
        self._delete = delete

    async def run(self, watch: Watch, position: Json) -> None:
        kept = position if isinstance(position, dict) else {}
        last, fired = max(self._since, kept.get("last", 0)), kept.get("fired", 0)
        opened = watch.clock.now_ms()
        room = max(1, min(EVENTS_MOST, BATCH_BYTES // max(1, len(self._body))))
        while True:
            left = room if self._most is None else min(room, self._most - fired)
            if left <= 0:
                raise SourceEnded(wording.ALARM_MAX_REACHED)
            now = watch.clock.now_ms()
            due = self._plan.due(last, now, opened, left)
            last = due.last
            if due.times:
                fired += len(due.times)
                events = [Event(str(time), self._body) for time in due.times]
                await watch.fire(Batch(events, {"last": last, "fired": fired}))
                if self._most is not None and fired >= self._most:
                    raise SourceEnded(wording.ALARM_MAX_REACHED)
            if due.next_ms is None:
                raise SourceEnded(self._reason, delete=self._delete)
            watch.live(lag=0, next_ms=due.next_ms)
            wait_ms = due.next_ms - watch.clock.now_ms()
            if wait_ms > 0:
                await watch.clock.sleep(min(LOOK_S, wait_ms / 1000))


# ── what is asked ───────────────────────────────────────────────────────────────────────────────────────────────


class _AlarmFeed:
    """What the three have in common. `given` in `_read` is everything: what was kept, and what is changed."""

    name: ClassVar[str]
    secrets: ClassVar[frozenset[str]] = frozenset()
    disables_when_throttled: ClassVar[bool] = True

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        dates = _dates(given, now_ms, given)
        kept = self._read({**given, **dates}, now_ms) | dates
        return kept | self._common(given, now_ms) | {"spread": _spread(given)}

    def changed(self, kept: Mapping[str, Json], given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        asked_for = {name: given[name] for name in _UPDATABLE if name in given}
        if not asked_for:
            raise FeedRefused(wording.NOTHING_UPDATABLE)
        everything = dict(kept) | asked_for
        dates = _dates(asked_for, now_ms, everything)
        everything |= dates
        return dict(kept) | self._read(everything, now_ms) | dates | self._common(everything, now_ms)

    def _common(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        return {
            "trigger_payload": _payload(given.get("trigger_payload")),
            "missed": asked.one_of(given, "missed", MISSED, MISSED[0]),
            "jitter_ms": asked.integer(given, "jitter_ms", 0, 0, JITTER_MOST_MS),
            "since": now_ms,
        }

    def _read(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        raise NotImplementedError

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json:
        return {"last": parameters["since"], "fired": 0}

    def created(self, id: str, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {"status": "success"}

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        shown = ("strict", "date", "deleteAfterFire", "startDate", "stopDate", "minutes", "cron", "timezone")
        found = {name: parameters[name] for name in (*shown, "missed", "jitter_ms") if name in parameters}
        return {"payload": parameters["trigger_payload"]} | found

    def _source(
        self,
        parameters: Mapping[str, Json],
        schedule: Schedule,
        reason: str,
        delete: Literal["trigger", "rules"] | None = None,
    ) -> AlarmSource:
        plan = Plan(
            schedule=schedule,
            stop=parameters.get("stopDate"),
            missed=parameters["missed"],
            jitter_ms=parameters["jitter_ms"],
            spread=parameters["spread"],
        )
        most, since = parameters.get("maxTriggers", -1), parameters["since"]
        return AlarmSource(
            plan,
            msgspec.json.encode(parameters["trigger_payload"]),
            since=max(since, parameters.get("startDate", 0) - 1),
            most=most if most > 0 else None,
            reason=reason,
            delete=delete,
        )


class Alarm(_AlarmFeed):
    name = "alarms/alarm"

    def __init__(self, *, delay_limit_s: int = 0, whole_minutes: bool = False) -> None:
        """`delay_limit_s`: patterns of five fields that are not `strict` fire up to so many seconds later;
        `whole_minutes`: no finer patterns."""
        self._delay_limit_s = delay_limit_s
        self._whole_minutes = whole_minutes

    def _read(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        if given.get("maxTriggers") not in (None, "") and given.get("stopDate") is not None:
            raise FeedRefused(wording.ALARM_MAX_WITH_STOP)
        if not given.get("cron"):
            raise FeedRefused(wording.ALARM_NO_CRON)
        kept: dict[str, Json] = {
            "cron": given["cron"],
            "strict": asked.flag(given, "strict"),
        }
        most = asked.integer(given, "maxTriggers", -1, -1, 2**53)
        if most > 0:
            kept["maxTriggers"] = most
        if given.get("timezone"):
            kept["timezone"] = given["timezone"]
        cron = self._cron(kept | {"spread": 0})
        if self._whole_minutes and not cron.is_on_minute:
            raise FeedRefused(wording.CRON_TOO_FINE)
        _check_stop(given, cron, now_ms)
        return kept

    def _cron(self, parameters: Mapping[str, Json]) -> Cron:
        zone = _zone(parameters.get("timezone"))
        pattern = parameters["cron"]
        second = 0 if parameters["strict"] else parameters["spread"] % (self._delay_limit_s + 1)
        try:
            if not isinstance(pattern, str):
                raise ValueError("text")
            return cron_of(pattern, zone, second)
        except ValueError:
            raise FeedRefused(wording.bad_cron(wording.shortened(pattern))) from None

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> AlarmSource:
        return self._source(parameters, self._cron(parameters), wording.ALARM_LAST_CRON)


class Interval(_AlarmFeed):
    name = "alarms/interval"

    def _read(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        if given.get("maxTriggers") not in (None, "") and given.get("stopDate") is not None:
            raise FeedRefused(wording.INTERVAL_MAX)
        value = given.get("minutes")
        if value is None or value == "":
            raise FeedRefused(wording.INTERVAL_NO_MINUTES)
        minutes = number(value)
        if minutes is None:
            raise FeedRefused(wording.MINUTES_NOT_INTEGER)
        if minutes <= 0:
            raise FeedRefused(wording.MINUTES_NOT_POSITIVE)
        if minutes > MINUTES_MOST:
            raise FeedRefused(wording.feed_parameter_bad("minutes", wording.feed_whole(1, MINUTES_MOST)))
        kept = {
            "minutes": minutes,
            "startDate": given.get("startDate", now_ms + FIRST_INTERVAL_MS),
            "strict": asked.flag(given, "strict"),
        }
        _check_stop({**given, **kept}, Grid(kept["startDate"], minutes * 60_000), now_ms)
        return kept

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> AlarmSource:
        grid = Grid(parameters["startDate"], parameters["minutes"] * 60_000)
        return self._source(parameters, grid, wording.ALARM_LAST_INTERVAL)


class Once(_AlarmFeed):
    name = "alarms/once"

    def _read(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        if "date" not in given:
            raise FeedRefused(wording.ONCE_NO_DATE)
        wish = given.get("deleteAfterFire")
        word = {True: "true", False: "false", None: "false", "": "false"}.get(wish, wish) if _is_plain(wish) else wish
        if word not in ("false", "true", "rules"):
            raise FeedRefused(wording.BAD_DELETE_AFTER)
        return {"date": given["date"], "deleteAfterFire": word, "strict": asked.flag(given, "strict")}

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> AlarmSource:
        delete: Mapping[str, Literal["trigger", "rules"]] = {"true": "trigger", "rules": "rules"}
        grid = Grid(parameters["date"], None)
        return self._source(parameters, grid, wording.ALARM_ONCE_DONE, delete.get(parameters["deleteAfterFire"]))


def _is_plain(value: Json) -> bool:
    return value is None or isinstance(value, bool | str)


def _payload(value: Json) -> dict[str, Json]:
    if isinstance(value, dict):
        return value
    return {} if value is None or value == "" else {"payload": value}


def _zone(name: Json) -> tzinfo:
    if not name:
        return UTC
    try:
        if not isinstance(name, str):
            raise ValueError("text")
        return ZoneInfo(name)
    except (ValueError, LookupError, OSError):
        raise FeedRefused(wording.BAD_TIMEZONE) from None


def _dates(given: Mapping[str, Json], now_ms: int, everything: Mapping[str, Json]) -> dict[str, int]:
    """`date`, `startDate` and `stopDate` of what is given, in milliseconds."""
    found: dict[str, int] = {}
    for name in ("date", "startDate", "stopDate"):
        value = given.get(name)
        if value is None or value == "":
            continue
        instant = asked.instant_ms(value)
        shown = wording.shortened(value)
        if instant is None:
            raise FeedRefused(wording.bad_date(name, shown))
        if instant <= now_ms:
            raise FeedRefused(wording.date_not_future(name, shown))
        found[name] = instant
    start, stop = (asked.instant_ms(everything.get(name)) for name in ("startDate", "stopDate"))
    if start is not None and stop is not None and stop <= start and found.keys() & {"startDate", "stopDate"}:
        shown_start, shown_stop = (wording.shortened(everything[name]) for name in ("startDate", "stopDate"))
        raise FeedRefused(wording.stop_not_after(shown_stop, shown_start))
    return found


def _check_stop(given: Mapping[str, Json], schedule: Schedule, now_ms: int) -> None:
    stop = given.get("stopDate")
    if stop is not None:
        first = next(schedule.after(max(now_ms, given.get("startDate", 0) - 1)), None)
        if first is None or first > stop:
            raise FeedRefused(wording.STOP_BEFORE_FIRST)


def _spread(given: Mapping[str, Json]) -> int:
    """What sets one alarm apart from others of the same pattern."""
    name = str(given.get("triggerName") or secrets.token_hex(8))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest())
