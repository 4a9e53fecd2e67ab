"""Frames come back whole, in whatever pieces a stream brings them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.bus.frames import BadFrame, Unframer, frame


@given(st.lists(st.binary(max_size=300), max_size=20), st.lists(st.integers(1, 70), min_size=1))
def test_any_cut_gives_the_same_frames(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, bodies))
    unframer, found, at, turn = Unframer(), list[bytes](), 0, 0
    while at < len(stream):
        end = at + cuts[turn % len(cuts)]
        found += unframer.feed(stream[at:end])
        at, turn = end, turn + 1
    assert found == bodies


def test_a_frame_over_the_limit_is_refused_by_its_length() -> None:
    unframer = Unframer(limit_bytes=10)
    assert unframer.feed(frame(b"0123456789")) == [b"0123456789"]
    with pytest.raises(BadFrame, match="11 bytes"):
        unframer.feed(frame(b"0123456789a")[:4])


def test_a_body_that_no_one_could_read_is_not_made() -> None:
    with pytest.raises(BadFrame):
        frame(bytes(64 * 1024 * 1024 + 1))
