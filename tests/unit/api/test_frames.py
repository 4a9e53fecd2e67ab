"""Frames of HTTP/2 are counted before anything is made of them: each bound, and what it does not touch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.api import frames
from visp.api.frames import Flood, Frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION, UNKNOWN = 0, 1, 2, 3, 4, 6, 7, 8, 9, 0xFA
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def begun() -> Frames:
    made = Frames()
    assert b"".join(made.pieces(PREFACE, 0.0)) == PREFACE
    return made


def all_of(made: Frames, data: bytes, now_s: float = 0.0) -> bytes:
    return b"".join(made.pieces(data, now_s))


def test_pieces_end_after_each_head() -> None:
    first, second = frame(HEADERS, b"a" * 20, END_HEADERS), frame(HEADERS, b"b" * 20, END_HEADERS, 3)
    body = frame(DATA, b"c" * 100)
    assert list(begun().pieces(first + body + second + body, 0.0)) == [first, body + second, body]


def test_a_head_in_several_frames_is_one_piece_and_is_known_to_be_on_its_way() -> None:
    made = begun()
    begin, end = frame(HEADERS, b"a"), frame(CONTINUATION, b"b", END_HEADERS)
    assert all_of(made, begin + end[:5]) == begin
    assert made.is_in_head
    assert all_of(made, end[5:]) == end
    assert not made.is_in_head


def test_priorities_and_unknown_frames_are_left_out() -> None:
    made = begun()
    ping = frame(PING, b"a" * 8)
    given = frame(PRIORITY, b"a" * 5) + ping + frame(UNKNOWN, b"b" * 1000) + frame(0x10) + ping
    assert all_of(made, given) == ping * 2


def test_a_client_that_leaves_is_noticed() -> None:
    made = begun()
    assert all_of(made, frame(GOAWAY, b"a" * 8, stream=0)) == b""
    assert made.is_leaving


ORDINARY = (
    PREFACE
    + frame(SETTINGS, b"a" * 12, stream=0)
    + frame(PRIORITY, b"a" * 5)
    + frame(HEADERS, b"h" * 30)
    + frame(CONTINUATION, b"", END_HEADERS)
    + frame(UNKNOWN, b"u" * 50)
    + frame(DATA, b"d" * 300)
    + frame(DATA, b"", END_STREAM)
)
KEPT = ORDINARY.replace(frame(PRIORITY, b"a" * 5), b"").replace(frame(UNKNOWN, b"u" * 50), b"")


@given(st.lists(st.integers(0, len(ORDINARY)), max_size=12))
def test_it_does_not_matter_how_bytes_are_cut(cuts: list[int]) -> None:
    made, at, got = Frames(), 0, b""
    for cut in [*sorted(cuts), len(ORDINARY)]:
        got += all_of(made, ORDINARY[at:cut])
        at = cut
    assert got == KEPT
    assert not made.is_in_head


@pytest.mark.parametrize(
    "flood",
    [
        frame(PING, b"a" * 8, stream=0),
        frame(SETTINGS, flags=ACK, stream=0),
        frame(PRIORITY, b"a" * 5),
        frame(WINDOW, b"\0\0\0\1"),
        frame(RST, b"\0\0\0\1"),
        frame(DATA, b""),
        frame(DATA, b"a"),
        frame(UNKNOWN, b"a"),
        frame(GOAWAY, b"a" * 8, stream=0),
    ],
    ids=["ping", "settings' acks", "priority", "window", "reset", "no data", "a byte", "unknown", "goaway"],
)
def test_frames_that_carry_little_are_bounded_at_once_and_in_time(flood: bytes) -> None:
    made = begun()
    all_of(made, flood * frames.CHEAP)
    all_of(made, flood * int(frames.CHEAP_PER_S), 1.0)
    with pytest.raises(Flood) as raised:
        all_of(made, flood, 1.0)
    assert raised.value.code == frames.ENHANCE_YOUR_CALM


def test_what_was_sent_allows_for_more() -> None:
    made = begun()
    all_of(made, frame(WINDOW, b"\0\0\0\1") * frames.CHEAP)
    made.count_sent(10 * frames.PAID_BYTES)
    all_of(made, frame(WINDOW, b"\0\0\0\1") * 10)
    with pytest.raises(Flood):
        all_of(made, frame(WINDOW, b"\0\0\0\1"))


def test_bodies_are_not_counted() -> None:
    made = begun()
    body = frame(DATA, b"a" * frames.LITTLE_BYTES)
    assert len(all_of(made, body * 3 * frames.CHEAP)) == 3 * frames.CHEAP * len(body)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (frame(SETTINGS, b"a" * 6, stream=0) * (frames.SETTINGS + 1), frames.ENHANCE_YOUR_CALM),
        (frame(SETTINGS, b"a" * (frames.SETTINGS_BYTES + 6), stream=0), frames.ENHANCE_YOUR_CALM),
        (frame(HEADERS) + frame(CONTINUATION) * frames.HEAD_FRAMES, frames.ENHANCE_YOUR_CALM),
        (frame(HEADERS, b"a" * frames.FRAME_BYTES) + frame(CONTINUATION, b"a" * 16_000) * 4, frames.ENHANCE_YOUR_CALM),
        (frame(HEADERS) + frame(PING, b"a" * 8, stream=0), frames.PROTOCOL_ERROR),
        (frame(DATA, b"a" * (frames.FRAME_BYTES + 1))[:9], frames.FRAME_SIZE_ERROR),
        (frame(UNKNOWN, b"a" * (frames.FRAME_BYTES + 1))[:9], frames.FRAME_SIZE_ERROR),
    ],
    ids=["settings", "settings in one", "continuations", "a large head", "between", "a long frame", "a long unknown"],
)
def test_bounds_of_one_frame_and_one_head(given: bytes, code: int) -> None:
    with pytest.raises(Flood) as raised:
        all_of(begun(), given)
    assert raised.value.code == code


def test_requests_that_are_given_up_are_bounded_at_once_and_in_time() -> None:
    made = begun()
    for _ in range(frames.RESETS):
        made.count_reset(5.0)
    with pytest.raises(Flood):
        made.count_reset(5.0)
    made = begun()
    for second in range(100):
        for _ in range(int(frames.RESETS_PER_S)):
            made.count_reset(float(second))
