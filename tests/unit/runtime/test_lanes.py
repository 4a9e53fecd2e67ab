"""Several runs at once over the pipes of one container."""

import os
from collections.abc import AsyncIterator

import pytest
from tests.unit.runtime.test_client import LIMIT, Answers, Piped, turns

from visp.runtime.base import STDERR, STDOUT, Gone, Lanes, Reply
from visp.runtime.client import PIPE_BYTES

A, B = "a" * 32, "b" * 32


class Heard:
    """Parts of results, and what runs printed."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, bytes]] = []
        self.printed: list[tuple[str, int, bytes]] = []

    def part(self, id: str, data: bytes) -> bool:
        self.parts.append((id, data))
        return data != b"too much"

    def print(self, id: str, stream: int, line: bytes) -> None:
        self.printed.append((id, stream, line))


class Shared(Piped):
    """A client whose container takes several runs; `run` gives what the run is answered with."""

    lanes: Lanes

    def __init__(self, family: str = "python") -> None:
        super().__init__(family)
        self.heard = Heard()
        self.client.stream(self.heard.part)

    def run(self, id: str, payload: bytes = b"{}") -> Answers:
        answers = Answers()
        self.lanes.run(id, payload, answers.then)
        return answers

    def reply(self, data: bytes) -> None:
        os.write(self.inside.replies, data)


def tagged(id: str, reply: bytes) -> bytes:
    return b"@%b %b\n" % (id.encode(), reply)


@pytest.fixture
async def shared() -> AsyncIterator[Shared]:
    held = Shared("nodejs")
    held.lanes = held.client.share(held.heard.print)
    yield held
    held.client.close()
    held.inside.end()
    for descriptor in held.inside.descriptors:
        os.close(descriptor)


async def test_each_run_gets_its_own_answer_in_any_order(shared: Shared) -> None:
    first, second = shared.run(A, b'{"n":1}'), shared.run(B, b'{"n":2}')
    assert shared.inside.read() == b'{"n":1}\n{"n":2}\n'
    shared.reply(tagged(B, b'{"b":2}') + tagged(A, b'!{"error":"no"}'))
    assert await second.next() == Reply(200, b'{"b":2}', 7)
    assert await first.next() == Reply(502, b'{"error":"no"}', 14)


async def test_a_reply_may_come_in_pieces(shared: Shared) -> None:
    first, second = shared.run(A), shared.run(B)
    whole = tagged(A, b'{"a":1}') + tagged(B, b'{"b":1}')
    for at in range(0, len(whole), 7):
        shared.reply(whole[at : at + 7])
        await turns(1)
    assert await first.next() == Reply(200, b'{"a":1}', 7)
    assert await second.next() == Reply(200, b'{"b":1}', 7)


async def test_of_a_long_reply_the_size_is_known(shared: Shared) -> None:
    first = shared.run(A)
    shared.reply(tagged(A, b"x" * (LIMIT * 3)))
    reply = await first.next()
    assert isinstance(reply, Reply)
    assert reply.size_bytes == LIMIT * 3
    assert LIMIT < len(reply.body) <= LIMIT + 64


async def test_lines_larger_than_the_pipe_go_out_one_after_the_other(shared: Shared) -> None:
    payloads = [b"x" * (2 * PIPE_BYTES), b"y" * PIPE_BYTES, b"z"]
    for id, payload in zip((A, B, "c" * 32), payloads, strict=True):
        shared.run(id, payload)
    expected = b"".join(payload + b"\n" for payload in payloads)
    got = bytearray()
    while len(got) < len(expected):
        got += shared.inside.read()
        await turns(1)
    assert got == expected
    shared.run("d" * 32, b"next")
    assert shared.inside.read() == b"next\n"


@pytest.mark.parametrize(
    "data", [tagged("c" * 32, b"{}"), b"{}\n", b"@\n", b"\n", b"@" + b"x" * 100 + b" {}\n", tagged(A, b"{}") * 2]
)
async def test_a_reply_that_nobody_asked_for_ends_it(shared: Shared, data: bytes) -> None:
    shared.run(A)
    second = shared.run(B)
    shared.reply(data)
    assert await second.next() == Gone()
    late = shared.run("d" * 32)
    assert await late.next() == Gone(was_sent=False)


async def test_an_end_is_the_end_of_every_run(shared: Shared) -> None:
    first, second = shared.run(A), shared.run(B)
    shared.inside.end()
    assert await first.next() == Gone()
    assert await second.next() == Gone()
    assert await shared.run("c" * 32).next() == Gone(was_sent=False)


async def test_what_had_not_left_was_not_sent(shared: Shared) -> None:
    large, untouched = shared.run(A, b"x" * (2 * PIPE_BYTES)), shared.run(B)
    shared.client.give_up()
    assert await large.next() == Gone()
    assert await untouched.next() == Gone(was_sent=False)


async def test_a_run_for_a_container_that_is_gone_is_answered_later_and_once(shared: Shared) -> None:
    shared.inside.end()
    answers = shared.run(A)
    assert answers.is_empty
    assert await answers.next() == Gone(was_sent=False)
    await turns()
    assert answers.is_empty


async def test_after_close_nobody_is_answered(shared: Shared) -> None:
    answers = shared.run(A)
    shared.reply(tagged(A, b"{}"))
    shared.client.close()
    await turns()
    assert answers.is_empty


async def test_one_that_is_gone_already_is_shared_in_vain(shared: Shared) -> None:
    shared.inside.end()
    await turns()
    shared.lanes = shared.client.share(shared.heard.print)
    assert await shared.run(A).next() == Gone(was_sent=False)


# ── parts and logs ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_parts_and_printed_lines_name_their_run(shared: Shared) -> None:
    first, second = shared.run(A), shared.run(B)
    shared.inside.read()
    shared.reply(tagged(A, b'+"one"') + tagged(B, b">out") + tagged(A, b"#err") + tagged(B, b">") + tagged(A, b"{}"))
    assert await first.next() == Reply(200, b"{}", 2)
    assert second.is_empty
    assert shared.heard.parts == [(A, b'"one"')]
    assert shared.heard.printed == [(B, STDOUT, b"out"), (A, STDERR, b"err"), (B, STDOUT, b"")]
    shared.lanes.grant(B, 7)
    shared.lanes.grant(A, 9)
    assert shared.inside.read() == tagged(B, b"+7"), "one that is over needs no credit"


@pytest.mark.parametrize("line", [b">x", b"#x", b"+1"])
async def test_nobody_else_prints_or_has_parts(shared: Shared, line: bytes) -> None:
    first = shared.run(A)
    shared.reply(tagged(B, line))
    assert isinstance(await first.next(), Gone)
    assert shared.heard.parts == shared.heard.printed == []


@pytest.mark.parametrize("part", [b"too much", b"x" * (LIMIT + 1)], ids=["refused", "too long"])
async def test_a_part_that_may_not_be_ends_the_container(shared: Shared, part: bytes) -> None:
    first, second = shared.run(A), shared.run(B)
    shared.reply(tagged(A, b"+" + part))
    assert isinstance(await first.next(), Gone)
    assert isinstance(await second.next(), Gone)
