from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from visp.feed.cron import Cron

BERLIN = ZoneInfo("Europe/Berlin")


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def times(pattern: str, after: str, number: int = 3, zone: ZoneInfo | None = None) -> list[str]:
    found = Cron(pattern, zone or UTC).after(ms(after))
    return [datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") for time in islice(found, number)]


START = "2026-01-01T00:00:00+00:00"


def test_five_fields_are_of_whole_minutes() -> None:
    assert times("* * * * *", START, 2) == ["2026-01-01 00:01:00", "2026-01-01 00:02:00"]


def test_six_fields_begin_with_seconds() -> None:
    assert times("*/20 * * * * *", START, 3) == ["2026-01-01 00:00:20", "2026-01-01 00:00:40", "2026-01-01 00:01:00"]


def test_months_are_counted_from_zero_and_named_as_they_are() -> None:
    assert times("0 0 1 1 *", START, 1) == times("0 0 1 feb *", START, 1) == ["2026-02-01 00:00:00"]
    assert times("0 0 1 11 *", START, 1) == times("0 0 1 DEC *", START, 1) == ["2026-12-01 00:00:00"]
    assert times("0 0 1 0-11/6 *", START, 2) == ["2026-07-01 00:00:00", "2027-01-01 00:00:00"]


def test_weekdays_begin_with_sunday() -> None:
    assert times("0 0 * * 0", START, 1) == times("0 0 * * sun", START, 1) == ["2026-01-04 00:00:00"]
    assert times("0 12 * * mon-fri", START, 3) == ["2026-01-01 12:00:00", "2026-01-02 12:00:00", "2026-01-05 12:00:00"]


def test_a_day_counts_by_its_date_or_its_weekday() -> None:
    assert times("0 0 15 * 5", START, 3) == ["2026-01-02 00:00:00", "2026-01-09 00:00:00", "2026-01-15 00:00:00"]
    # also where one of them is a star with a step, unlike elsewhere
    assert times("0 0 */10 * 5", START, 3) == ["2026-01-02 00:00:00", "2026-01-09 00:00:00", "2026-01-11 00:00:00"]


def test_lists_ranges_and_steps() -> None:
    assert times("5,10-12 3 * * *", START, 4) == [f"2026-01-01 03:{minute}:00" for minute in ("05", "10", "11", "12")]
    assert times("50/5 * * * *", START, 3) == [f"2026-01-01 {at}:00" for at in ("00:50", "00:55", "01:50")]


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "*", "* * * *", "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 12 *"),
        *(
            "* * * * 7",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "* * * foo *",
            "1- * * * *",
            "-1 * * * *",
            "1,,2 * * * *",
        ),
        *("* * L * *", "* * * * 1#2", "1.5 * * * *", "@daily", "* * 31 1 *", "* * 30 feb *", "*" * 2000),
    ],
)
def test_what_is_no_pattern_or_never_comes(pattern: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Cron(pattern)


def test_a_skipped_hour_fires_behind_it() -> None:
    found = times("30 2 * * *", "2026-03-28T12:00:00+01:00", 2, BERLIN)
    assert found == ["2026-03-29 01:00:00", "2026-03-30 00:30:00"]


def test_several_that_a_gap_moves_together_are_one() -> None:
    found = times("10,20,30 2 * * *", "2026-03-28T12:00:00+01:00", 2, BERLIN)
    assert found == ["2026-03-29 01:00:00", "2026-03-30 00:10:00"]


def test_a_repeated_hour_fires_once() -> None:
    found = times("30 2 * * *", "2026-10-24T12:00:00+02:00", 2, BERLIN)
    assert found == ["2026-10-25 00:30:00", "2026-10-26 01:30:00"]


def test_each_hour_and_minute_goes_by_the_hours_there_are() -> None:
    assert times("0 * * * *", "2026-10-25T00:00:00+00:00", 3, BERLIN) == [
        "2026-10-25 01:00:00",
        "2026-10-25 02:00:00",
        "2026-10-25 03:00:00",
    ]
    assert times("*/30 * * * *", "2026-03-29T00:29:00+00:00", 3, BERLIN) == [
        "2026-03-29 00:30:00",
        "2026-03-29 01:00:00",
        "2026-03-29 01:30:00",
    ]


@pytest.mark.parametrize("pattern", ["*/7 * * * *", "0 0 1 * *", "30 2 * * *", "*/13 * * * * *", "0 9 * * mon"])
@pytest.mark.parametrize("now", ["2026-03-29T03:00:30+02:00", "2026-10-25T03:10:00+01:00", "2026-06-01T00:00:00+02:00"])
def test_the_last_time_before_now_is_the_one_whose_next_is_not(pattern: str, now: str) -> None:
    cron = Cron(pattern, BERLIN)
    last = cron.before(ms(now))
    assert last is not None
    assert last < ms(now) <= next(cron.after(last))


def test_a_second_of_its_own() -> None:
    cron = Cron("* * * * *", second=17)
    assert next(cron.after(ms(START))) == ms("2026-01-01T00:00:17+00:00")
    assert not cron.is_on_minute
