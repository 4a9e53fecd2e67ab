"""What an activation printed, as its record shows it."""

import pytest

from visp.clock import ManualClock
from visp.entity.activation import Outcome, Status
from visp.invoker.logs import LINE_LIMIT_BYTES, MIB, SENTINEL, LogCollector, render_time
from visp.runtime.base import STDERR, STDOUT

GOOD = Outcome(Status.SUCCESS, b"{}")
BAD = Outcome(Status.DEVELOPER_ERROR, b"{}")
STAMP = "2023-11-14T22:13:20.000000000Z "
AFTER_FAILURE = STAMP + "stderr: The action did not initialize or run as expected. Log data might be missing."
INCOMPLETE = STAMP + "stderr: There was an issue while collecting your logs. Data might be missing."


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def logs(clock: ManualClock) -> LogCollector:
    return LogCollector(clock.now_ns)


@pytest.fixture
def image(clock: ManualClock) -> LogCollector:
    return LogCollector(clock.now_ns, is_sentinelled=True)


def truncated(limit_mb: int) -> str:
    return STAMP + (
        f"stderr: Logs were truncated because the total bytes size exceeds the limit of {limit_mb * MIB} bytes."
    )


def test_a_line_has_its_time_its_stream_and_its_text(logs: LogCollector, clock: ManualClock) -> None:
    logs.begin(10)
    logs.feed(STDOUT, b"one\n")
    clock.advance(1.000000001)
    logs.feed(STDERR, b"two\n")
    assert logs.end(GOOD) == (STAMP + "stdout: one", "2023-11-14T22:13:21.000000001Z stderr: two")


def test_time_is_utc_to_the_nanosecond_and_thirty_wide() -> None:
    assert render_time(1_767_323_045_123_456_789) == "2026-01-02T03:04:05.123456789Z "
    assert render_time(1_767_323_045_000_000_001) == "2026-01-02T03:04:05.000000001Z "


def test_a_line_may_come_in_pieces_and_without_an_end(logs: LogCollector) -> None:
    logs.begin(10)
    logs.feed(STDOUT, b"on")
    logs.feed(STDERR, b"between\n")
    logs.feed(STDOUT, b"e\ntwo")
    assert logs.end(GOOD) == (STAMP + "stderr: between", STAMP + "stdout: one", STAMP + "stdout: two")


def test_what_is_no_text_is_shown_as_far_as_it_is(logs: LogCollector) -> None:
    logs.begin(10)
    logs.feed(STDOUT, b"caf\xc3\xa9 \xff\n")
    assert logs.end(GOOD) == (STAMP + "stdout: café �",)


def test_nothing_goes_from_one_activation_to_another(logs: LogCollector) -> None:
    logs.feed(STDOUT, b"before\n")
    logs.begin(10)
    logs.feed(STDOUT, b"first, unfinished")
    assert logs.end(GOOD) == (STAMP + "stdout: first, unfinished",)
    logs.feed(STDOUT, b"between\n")
    logs.begin(10)
    assert logs.end(GOOD) == ()
    assert logs.dropped_bytes == len(b"before\nbetween\n")


def test_beyond_the_limit_there_is_one_last_line(logs: LogCollector) -> None:
    logs.begin(1)
    for _ in range(20):
        logs.feed(STDOUT, b"x" * 65_535 + b"\n")
    entries = logs.end(GOOD)
    assert sum(map(len, entries[:-1])) <= MIB
    assert len(entries) == 16
    assert entries[-1] == truncated(1)


def test_empty_lines_count_as_they_are_kept(logs: LogCollector) -> None:
    logs.begin(1)
    logs.feed(STDOUT, b"\n" * MIB)
    entries = logs.end(GOOD)
    assert len(entries) < MIB // 30
    assert entries[-1] == truncated(1)


def test_the_next_activation_has_a_limit_of_its_own(logs: LogCollector) -> None:
    logs.begin(1)
    logs.feed(STDERR, b"unfinished")
    logs.feed(STDOUT, b"x" * 2 * MIB)
    assert logs.end(GOOD)[-1] == truncated(1)
    logs.begin(1)
    logs.feed(STDOUT, b"short\n")
    assert logs.end(GOOD) == (STAMP + "stdout: short",)


def test_a_limit_of_none_keeps_nothing(logs: LogCollector) -> None:
    logs.begin(0)
    logs.feed(STDOUT, b"text\nmore")
    assert logs.end(BAD) == ()


def test_a_line_without_end_is_cut(logs: LogCollector) -> None:
    logs.begin(10)
    logs.feed(STDOUT, b"x" * (2 * LINE_LIMIT_BYTES + 10))
    lengths = [len(entry.removeprefix(STAMP + "stdout: ")) for entry in logs.end(GOOD)]
    assert lengths == [LINE_LIMIT_BYTES, LINE_LIMIT_BYTES, 10]


def test_after_a_failure_a_line_says_that_logs_may_lack(logs: LogCollector) -> None:
    logs.begin(10)
    assert logs.end(BAD) == (AFTER_FAILURE,)
    logs.begin(1)
    logs.feed(STDOUT, b"x" * 2 * MIB)
    assert logs.end(BAD)[-2:] == (truncated(1), AFTER_FAILURE)


# ── images: up to the sentinels ─────────────────────────────────────────────────────────────────────────────────


def test_an_image_is_complete_when_both_streams_have_ended(image: LogCollector) -> None:
    done: list[bool] = []
    image.begin(10)
    image.when_complete(lambda: done.append(True))
    image.feed(STDOUT, b"one\n" + SENTINEL + b"\n")
    assert not done
    image.feed(STDERR, b"two\n" + SENTINEL + b"\n")
    assert done == [True]
    assert image.end(GOOD) == (STAMP + "stdout: one", STAMP + "stderr: two")


def test_sentinels_that_came_before_the_reply_are_not_waited_for(image: LogCollector) -> None:
    done: list[bool] = []
    image.begin(10)
    image.feed(STDOUT, SENTINEL[:10])
    image.feed(STDOUT, SENTINEL[10:] + b"\nlate\n")
    image.feed(STDERR, SENTINEL + b"\n")
    image.when_complete(lambda: done.append(True))
    assert done == [True]
    assert image.end(GOOD) == ()


def test_sentinels_count_beyond_the_limit_too(image: LogCollector) -> None:
    done: list[bool] = []
    image.begin(1)
    image.when_complete(lambda: done.append(True))
    image.feed(STDOUT, b"x" * 2 * MIB + b"\n" + SENTINEL + b"\n")
    image.feed(STDERR, SENTINEL + b"\n")
    assert done == [True]
    assert image.end(GOOD)[-1] == truncated(1)


def test_without_sentinels_a_line_says_that_logs_may_lack(image: LogCollector) -> None:
    image.begin(10)
    image.feed(STDOUT, b"one\n")
    assert image.end(GOOD, is_complete=False) == (STAMP + "stdout: one", INCOMPLETE)


def test_a_local_container_cannot_end_its_logs(logs: LogCollector) -> None:
    done: list[bool] = []
    logs.begin(10)
    logs.when_complete(lambda: done.append(True))
    assert done == [True]
    logs.feed(STDOUT, SENTINEL + b"\n")
    assert logs.end(GOOD) == (STAMP + "stdout: " + SENTINEL.decode(),)


# ── several at once ─────────────────────────────────────────────────────────────────────────────────────────────────

MIXED = STAMP + "stderr: Activations ran at the same time in one container: each line is in the logs of one of them."


def test_where_they_overlap_a_line_is_of_the_one_that_ends_next(logs: LogCollector) -> None:
    for _ in range(3):
        logs.join(10)
    assert logs.end(GOOD) == (), "nobody has printed yet"
    logs.feed(STDOUT, b"one\n")
    assert logs.end(GOOD) == (STAMP + "stdout: one", MIXED)
    assert logs.end(GOOD) == (MIXED,)
    logs.feed(STDOUT, b"between\n")
    assert logs.dropped_bytes == len(b"between\n")


def test_who_is_alone_again_is_told_nothing(logs: LogCollector) -> None:
    for _ in range(2):
        logs.join(10)
    logs.feed(STDOUT, b"mixed\n")
    logs.end(GOOD)
    logs.end(GOOD)
    logs.join(10)
    logs.feed(STDOUT, b"mine\n")
    assert logs.end(GOOD) == (STAMP + "stdout: mine",)


def test_each_of_several_has_the_whole_limit(logs: LogCollector) -> None:
    for _ in range(2):
        logs.join(1)
    for _ in range(2):
        logs.feed(STDOUT, b"x" * 1000 + b"\n" + b"x\n" * MIB)
        assert logs.end(GOOD)[-2:] == (MIXED, truncated(1))


def test_a_limit_of_none_keeps_nothing_of_several(logs: LogCollector) -> None:
    for _ in range(2):
        logs.join(0)
    for _ in range(2):
        logs.feed(STDOUT, b"one\n")
        assert logs.end(BAD) == ()
