from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.feed.watching import Crashed, Loopback, Watching, running, turns

from visp.clock import ManualClock
from visp.feed.alarms import Alarm, Grid, Interval, Once, Plan
from visp.feed.base import FeedRefused, SourceEnded

NOW = 1_767_225_600_000
"""2026-01-01T00:00:00Z"""
MINUTE = 60_000


def refusal(feed: Any, given: dict[str, Any]) -> tuple[int, str]:
    with pytest.raises(FeedRefused) as refused:
        feed.parse(given, NOW)
    return refused.value.status, refused.value.sentence


@pytest.mark.parametrize(
    ("feed", "given", "sentence"),
    [
        (Alarm, {}, "alarms trigger feed is missing the cron parameter"),
        (Alarm, {"cron": "* * 32 * *"}, "cron pattern '* * 32 * *' is not valid"),
        (Alarm, {"cron": 5}, "cron pattern '5' is not valid"),
        (Alarm, {"cron": "* * * * *", "timezone": "Mars/Base"}, "Invalid timezone."),
        (Alarm, {"cron": "* * * * *", "timezone": "../../etc/passwd"}, "Invalid timezone."),
        (Alarm, {"cron": "* * * * *", "timezone": ["UTC"]}, "Invalid timezone."),
        (
            Alarm,
            {"cron": "* * * * *", "maxTriggers": 3, "stopDate": NOW + MINUTE},
            "maxTriggers is not allowed when the stopDate parameter is specified",
        ),
        (Alarm, {"cron": "* * * * *", "startDate": "soon"}, "startDate parameter 'soon' is not a valid Date"),
        (Alarm, {"cron": "* * * * *", "startDate": NOW}, f"startDate parameter '{NOW}' must be in the future"),
        (
            Alarm,
            {"cron": "* * * * *", "stopDate": "2025-01-01T00:00:00.000Z"},
            "stopDate parameter '2025-01-01T00:00:00.000Z' must be in the future",
        ),
        (
            Alarm,
            {"cron": "* * * * *", "startDate": NOW + 2000, "stopDate": NOW + 1000},
            f"stopDate parameter '{NOW + 1000}' must be greater than the startDate parameter '{NOW + 2000}'",
        ),
        (
            Alarm,
            {"cron": "0 12 * * *", "stopDate": NOW + MINUTE},
            "the first scheduled trigger fire is not until after the stop date",
        ),
        (Interval, {}, "interval trigger feed is missing the minutes parameter"),
        (Interval, {"minutes": "two"}, "the minutes parameter must be an integer"),
        (Interval, {"minutes": 1.5}, "the minutes parameter must be an integer"),
        (Interval, {"minutes": 0}, "the minutes parameter must be an integer greater than zero"),
        (Interval, {"minutes": -3}, "the minutes parameter must be an integer greater than zero"),
        (
            Interval,
            {"minutes": 1, "maxTriggers": 3, "stopDate": NOW + MINUTE},
            "maxTriggers is not supported for the interval trigger feed",
        ),
        (
            Interval,
            {"minutes": 1, "stopDate": NOW + 10_000},
            "the first scheduled trigger fire is not until after the stop date",
        ),
        (Once, {}, "alarms once trigger feed is missing the date parameter"),
        (Once, {"date": "never"}, "date parameter 'never' is not a valid Date"),
        (Once, {"date": NOW - 1}, f"date parameter '{NOW - 1}' must be in the future"),
        (
            Once,
            {"date": NOW + 1, "deleteAfterFire": "maybe"},
            "deleteAfterFire parameter must be one of [false, true, rules].",
        ),
        (
            Once,
            {"date": NOW + 1, "deleteAfterFire": ["rules"]},
            "deleteAfterFire parameter must be one of [false, true, rules].",
        ),
    ],
)
def test_sentences(feed: type[Any], given: dict[str, Any], sentence: str) -> None:
    assert refusal(feed(), given) == (400, sentence)


def test_an_operator_can_spread_alarms_over_a_minute() -> None:
    def seconds(**given: Any) -> set[int]:
        alarm = Alarm(delay_limit_s=9)
        made = [alarm.parse({**given, "triggerName": f"/_/{number}"}, NOW) for number in range(100)]
        return {next(alarm._cron(each).after(NOW)) // 1000 % 60 for each in made}

    assert seconds(cron="* * * * *") == set(range(10))
    assert seconds(cron="* * * * *", strict=True) == {0}
    assert seconds(cron="7 * * * * *") == {7}


def test_an_operator_can_allow_whole_minutes_alone() -> None:
    assert refusal(Alarm(whole_minutes=True), {"cron": "*/5 * * * * *"}) == (
        400,
        "cron pattern is limited to 5 fields with 1 minute as the finest granularity",
    )
    Alarm(whole_minutes=True).parse({"cron": "0 * * * * *"}, NOW)


@pytest.mark.parametrize(
    ("given", "body"),
    [({"a": 1}, {"a": 1}), ("hello", {"payload": "hello"}), ("", {}), (None, {}), ([1], {"payload": [1]})],
)
def test_payloads(given: Any, body: Any) -> None:
    kept = Alarm().parse({"cron": "* * * * *", "trigger_payload": given}, NOW)
    assert Alarm().shown(kept)["payload"] == body


def test_what_is_shown() -> None:
    alarm = Alarm().parse(
        {"cron": "* * * * *", "timezone": "Asia/Tokyo", "startDate": NOW + 1, "stopDate": NOW + MINUTE}, NOW
    )
    assert (
        Alarm().shown(alarm).items()
        >= {
            "payload": {},
            "strict": False,
            "cron": "* * * * *",
            "timezone": "Asia/Tokyo",
            "startDate": NOW + 1,
            "stopDate": NOW + MINUTE,
        }.items()
    )
    assert (
        Interval().shown(Interval().parse({"minutes": "5"}, NOW)).items()
        >= {"minutes": 5, "startDate": NOW + 30_000}.items()
    )
    once = Once().parse({"date": "2026-01-01T00:01:00Z", "deleteAfterFire": "rules"}, NOW)
    assert Once().shown(once).items() >= {"date": NOW + MINUTE, "deleteAfterFire": "rules"}.items()


def test_an_update_changes_what_it_names() -> None:
    alarm = Alarm()
    kept = alarm.parse({"cron": "* * * * *", "trigger_payload": "a", "maxTriggers": 5}, NOW)
    changed = alarm.changed(kept, {"cron": "0 * * * *", "maxTriggers": 9, "authKey": "x"}, NOW + 5)
    assert changed == {**kept, "cron": "0 * * * *", "since": NOW + 5}
    with pytest.raises(FeedRefused, match=r"^no updatable parameters were specified$"):
        alarm.changed(kept, {"maxTriggers": 9}, NOW)
    with pytest.raises(FeedRefused, match="is not valid"):
        alarm.changed(kept, {"cron": "x"}, NOW)


def test_an_update_of_an_old_start_is_not_asked_for_a_new_one() -> None:
    kept = Interval().parse({"minutes": 1}, NOW)
    changed = Interval().changed(kept, {"stopDate": NOW + 100 * MINUTE}, NOW + 10 * MINUTE)
    assert changed["startDate"] == kept["startDate"]
    assert changed["stopDate"] == NOW + 100 * MINUTE


async def test_a_minute_after_the_other() -> None:
    watch = Watching(ManualClock(NOW))
    feed = Alarm()
    parameters = feed.parse({"cron": "* * * * *", "trigger_payload": {"a": 1}}, NOW)
    async with running(feed.open(parameters, Loopback()), watch, await feed.check(parameters, Loopback())):
        for _ in range(3):
            await turns()
            watch.clock.advance(60)
        await turns()
    assert watch.keys == [str(NOW + minute * MINUTE) for minute in (1, 2, 3)]
    assert watch.bodies == [{"a": 1}] * 3
    assert watch.position == {"last": NOW + 3 * MINUTE, "fired": 3}
    assert watch.lived[-1] == (0, NOW + 4 * MINUTE)


async def ended(feed: Any, given: dict[str, Any], watch: Watching, seconds: int, step: int = 30) -> SourceEnded:
    parameters = feed.parse(given, NOW)
    async with running(feed.open(parameters, Loopback()), watch, watch.position or {}) as task:
        for _ in range(seconds // step):
            await turns()
            watch.clock.advance(step)
        await turns()
        with pytest.raises(SourceEnded) as end:
            await asyncio.wait_for(task, 5)
    return end.value


async def test_the_end_of_a_date() -> None:
    for word, delete in (("false", None), (True, "trigger"), ("rules", "rules")):
        watch = Watching(ManualClock(NOW))
        end = await ended(Once(), {"date": NOW + 90_000, "deleteAfterFire": word}, watch, 120)
        assert (str(end), end.delete) == ("Automatically disabled after firing once", delete)
        assert watch.keys == [str(NOW + 90_000)]
        again = await ended(
            Once(), {"date": NOW + 90_000, "deleteAfterFire": word}, Watching(watch.clock, watch.position), 30
        )
        assert again.delete == delete


async def test_the_end_of_a_pattern() -> None:
    watch = Watching(ManualClock(NOW))
    end = await ended(Alarm(), {"cron": "* * * * *", "stopDate": NOW + 2 * MINUTE}, watch, 150)
    assert str(end) == "Automatically disabled after firing last scheduled cron trigger"
    assert watch.keys == [str(NOW + MINUTE), str(NOW + 2 * MINUTE)]


async def test_the_end_of_an_interval() -> None:
    watch = Watching(ManualClock(NOW))
    end = await ended(Interval(), {"minutes": 1, "stopDate": NOW + 100_000}, watch, 150)
    assert str(end) == "Automatically disabled after firing last scheduled interval trigger"
    assert watch.keys == [str(NOW + 30_000), str(NOW + 90_000)]


async def test_the_end_of_a_count_goes_on_after_a_restart() -> None:
    given = {"cron": "* * * * *", "maxTriggers": 2}
    watch = Watching(ManualClock(NOW + MINUTE), {"last": NOW + MINUTE, "fired": 1})
    end = await ended(Alarm(), given, watch, 90)
    assert str(end) == "Automatically disabled after reaching max triggers"
    assert watch.keys == [str(NOW + 2 * MINUTE)]
    assert str(await ended(Alarm(), given, Watching(watch.clock, watch.position), 0)) == str(end)


async def test_an_interval_keeps_its_grid_over_a_restart() -> None:
    feed = Interval()
    parameters = feed.parse({"minutes": 10, "startDate": NOW + MINUTE}, NOW)
    watch = Watching(ManualClock(NOW + 25 * MINUTE), {"last": NOW + 21 * MINUTE, "fired": 3})
    async with running(feed.open(parameters, Loopback()), watch):
        await turns()
        assert watch.lived[-1] == (0, NOW + 31 * MINUTE)


@pytest.mark.parametrize(
    ("missed", "minutes"), [("once", [120]), ("all", list(range(1, 121))), ("none", []), (None, [120])]
)
async def test_what_was_missed(missed: str | None, minutes: list[int]) -> None:
    feed = Alarm()
    parameters = feed.parse({"cron": "* * * * *", "missed": missed}, NOW)
    watch = Watching(ManualClock(NOW + 120 * MINUTE + 50_000 + 30_000 * (missed == "none")), {"last": NOW, "fired": 0})
    if missed == "none":
        parameters = feed.parse({"cron": "*/2 * * * *", "missed": missed}, NOW)
    async with running(feed.open(parameters, Loopback()), watch):
        await turns(20)
    assert watch.keys == [str(NOW + minute * MINUTE) for minute in minutes]


def test_a_month_of_seconds_that_were_missed_is_not_walked_through() -> None:
    walked = []

    class Counted(Grid):
        def after(self, ms: int) -> Any:
            for time in super().after(ms):
                walked.append(time)
                yield time

    due = Plan(schedule=Counted(NOW, 1000)).due(NOW, NOW + 30 * 86_400_000, NOW + 30 * 86_400_000)
    assert due.times[0] == NOW + 30 * 86_400_000 - 1000
    assert len(walked) < 10


def test_what_comes_late_while_it_is_watched_is_not_missed() -> None:
    due = Plan(schedule=Grid(NOW, 1000)).due(NOW, NOW + 5_500, NOW)
    assert due.times == [NOW + second * 1000 for second in range(1, 6)]


def test_jitter_is_within_its_bound_and_stays_the_same() -> None:
    plan = Plan(schedule=Grid(NOW, MINUTE), jitter_ms=10_000, spread=7)
    moments = [plan.moment(NOW + minute * MINUTE) - NOW - minute * MINUTE for minute in range(100)]
    assert min(moments) >= 0
    assert max(moments) <= 10_000
    assert len(set(moments)) > 50
    assert moments[3] == plan.moment(NOW + 3 * MINUTE) - NOW - 3 * MINUTE
    due = plan.due(NOW, NOW + MINUTE - 1, NOW)
    assert due.times == []
    assert due.next_ms == plan.moment(NOW + MINUTE)


async def test_a_crash_between_fire_and_position_loses_nothing() -> None:
    feed = Alarm()
    parameters = feed.parse({"cron": "* * * * *"}, NOW)
    clock = ManualClock(NOW)
    first = Watching(clock, crash_at=2)
    async with running(feed.open(parameters, Loopback()), first, {}) as task:
        for _ in range(2):
            await turns()
            clock.advance(60)
        await turns()
        with pytest.raises(Crashed):
            await task
    again = Watching(clock, first.position)
    async with running(feed.open(parameters, Loopback()), again):
        await turns()
    assert first.keys == [str(NOW + MINUTE), str(NOW + 2 * MINUTE)]
    assert again.keys == [str(NOW + 2 * MINUTE)]


async def test_a_clock_that_is_set_is_noticed_within_a_minute() -> None:
    feed = Alarm()
    parameters = feed.parse({"cron": "0 * * * *"}, NOW)

    class Slept(ManualClock):
        ahead_ms = 0

        def now_ms(self) -> int:
            return super().now_ms() + self.ahead_ms

    clock = Slept(NOW)
    watch = Watching(clock)
    async with running(feed.open(parameters, Loopback()), watch, {}):
        await turns()
        clock.ahead_ms = 61 * MINUTE
        clock.advance(60)
        await turns()
    assert watch.keys == [str(NOW + 60 * MINUTE)]


@pytest.mark.slow  # ten thousand of anything
async def test_ten_thousand_in_one_process() -> None:
    feed, clock = Alarm(), ManualClock(NOW)
    parameters = feed.parse({"cron": "* * * * *", "startDate": NOW + 30_000}, NOW)
    watch = Watching(clock)
    tasks = [asyncio.create_task(feed.open(parameters, Loopback()).run(watch, None)) for _ in range(10_000)]
    await turns()
    clock.advance(60)
    await turns()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(watch.keys) == 10_000
