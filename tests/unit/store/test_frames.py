"""Frames: what is packed is read, and nothing else is."""

from __future__ import annotations

import struct
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.entity.activation import ActivationHead, ActivationRecord, Phases
from visp.store import frames
from visp.store.base import Work
from visp.store.frames import Type

ID = "0123456789abcdef" * 2
HEAD = ActivationHead(id=ID, namespace="ns", subject="guest", name="hi", version="0.0.1", start_ms=5, path="ns/hi")
RECORD = ActivationRecord(head=HEAD, result=b'{"a":"\xc3\xa9"}', logs=("one", "two"))


def sealed(body: bytes) -> bytes:
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


@given(
    type=st.sampled_from(Type),
    id=st.binary(min_size=16, max_size=16),
    synced_to=st.integers(0, 1000),
    head=st.binary(max_size=50),
    tail=st.binary(max_size=50),
)
def test_what_is_packed_is_read(type: Type, id: bytes, synced_to: int, head: bytes, tail: bytes) -> None:
    data = frames.pack(type, id.hex(), synced_to, head, tail)
    frame = frames.read(memoryview(b"123" + data + b"rest"), 3, 1000)
    assert frame is not None
    assert (frame.type, frame.id, frame.synced_to) == (type, id.hex(), synced_to)
    assert (frame.head, frame.tail, frame.offset, frame.end) == (head, tail, 1003, 1003 + len(data))


@given(content=st.binary(max_size=40), zeros=st.sampled_from([0, 1, 7, 65_536, 65_537, 200_000]))
def test_the_zeros_at_the_end_are_found(content: bytes, zeros: int) -> None:
    assert frames.content_end(content + bytes(zeros)) == len(content.rstrip(b"\0"))


@given(head=st.binary(max_size=30), tail=st.binary(max_size=30), data=st.data())
def test_any_flipped_bit_is_noticed(head: bytes, tail: bytes, data: st.DataObject) -> None:
    frame = bytearray(frames.pack(Type.FINISHED, ID, 0, head, tail))
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8
    assert frames.read(bytes(frame) + bytes(100), 0, 0) is None


def test_any_shorter_frame_is_none() -> None:
    data = frames.pack(Type.FINISHED, ID, 0, b"head", b"tail")
    for length in range(len(data)):
        assert frames.read(data[:length], 0, 0) is None
        assert frames.read(data[:length] + bytes(64), 0, 0) is None


@pytest.mark.parametrize("garbage", [b"", bytes(1), bytes(200), b"\xff" * 200, struct.pack("<II", 0, 0) * 20])
def test_zeros_and_garbage_are_no_frame(garbage: bytes) -> None:
    assert frames.read(garbage, 0, 0) is None
    assert list(frames.scan(garbage, 0)) == []


def test_a_head_that_says_it_is_longer_than_the_frame_is_none() -> None:
    assert frames.read(sealed(struct.pack("<BB16sQI", 1, 1, bytes(16), 0, 5) + b"head"), 0, 0) is None


def test_a_frame_cannot_say_that_it_is_durable_itself() -> None:
    data = frames.pack(Type.STARTED, ID, 101, b"")
    assert frames.read(data, 0, 100) is None
    assert frames.read(data, 0, 101) is not None


@pytest.mark.parametrize(("type", "version"), [(200, 1), (0, 1), (1, 2)])
def test_a_whole_frame_of_a_newer_visp_is_not_taken_for_an_end(type: int, version: int) -> None:
    with pytest.raises(msgspec.DecodeError):
        frames.read(sealed(struct.pack("<BB16sQI", type, version, bytes(16), 0, 0)), 0, 0)


def test_a_scan_ends_at_the_first_place_without_a_frame() -> None:
    parts = [frames.pack(Type.STARTED, f"{number:032x}", 0, b"") for number in range(3)]
    found = list(frames.scan(parts[0] + parts[1] + b"\x01" + parts[2], 7))
    assert [(frame.offset, frame.id) for frame in found] == [(7, f"{0:032x}"), (7 + len(parts[0]), f"{1:032x}")]


def test_frames_behind_a_damaged_place_are_found() -> None:
    first, second, last = (frames.pack(Type.STARTED, f"{number:032x}", 0, b"") for number in range(3))
    data = first + b"\xff" * len(second) + last + bytes(50)
    found = list(frames.scan_beyond(data, len(first), 0))
    assert [frame.id for frame in found] == [f"{2:032x}"]
    assert found[0].offset == len(first) + len(second)


def test_accepted_work_and_the_trigger_s_record_are_read_back() -> None:
    works = [Work(ID, b"message"), Work("f" * 32, b"")]
    accepted = frames.read_accepted(_frame(Type.ACCEPTED, frames.accepted_head(works, RECORD)))
    assert accepted.works == works
    assert accepted.started == []
    assert frames.record_of(accepted) == RECORD
    assert frames.record_of(frames.read_accepted(_frame(Type.ACCEPTED, frames.accepted_head(works)))) is None


def test_a_copy_says_what_had_been_started() -> None:
    works = [Work(ID, b"m"), Work("f" * 32, b"n", 7)]
    accepted = frames.read_accepted(_frame(Type.ACCEPTED, frames.accepted_head(works, None, [ID])))
    assert accepted.works == works
    assert accepted.started == [ID]


@pytest.mark.parametrize("has_all_logs", [True, False])
def test_a_record_is_read_back(has_all_logs: bool) -> None:
    expected = msgspec.structs.replace(RECORD, has_all_logs=has_all_logs)
    head = frames.finished_head(expected)
    assert frames.read_finished(_frame(Type.FINISHED, head, RECORD.result)) == expected


def test_a_record_from_before_there_were_phases_is_read() -> None:
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(HEAD))
    assert fields.pop() is None
    old = msgspec.msgpack.encode([fields, RECORD.logs, True])
    assert frames.read_finished(_frame(Type.FINISHED, old, RECORD.result)) == RECORD


def test_phases_take_few_bytes_and_are_read_back() -> None:
    warm = msgspec.structs.replace(HEAD, phases=Phases(0, 3, None, None, 20, 420, 425, 440))
    expected = msgspec.structs.replace(RECORD, head=warm)
    head = frames.finished_head(expected)
    assert frames.read_finished(_frame(Type.FINISHED, head, RECORD.result)) == expected
    assert len(head) - len(frames.finished_head(RECORD)) < 20


def test_logs_are_read_back() -> None:
    head = frames.encode_msgpack(("a", "b\0"))
    for collected_us in (None, 0, 12_345_678):
        frame = _frame(Type.LOGS, head, frames.logs_tail(collected_us))
        assert frames.read_logs(frame) == (("a", "b\0"), collected_us)


def _frame(type: Type, head: bytes, tail: bytes = b"") -> frames.Frame:
    frame = frames.read(frames.pack(type, ID, 0, head, tail), 0, 0)
    assert frame is not None
    return frame
