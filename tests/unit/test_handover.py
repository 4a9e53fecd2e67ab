"""The conversation of two servers: who may ask, what goes over, and what either hears when the other is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from visp import handover
from visp.handover import Inheritance, Leaver, Line, Message, Predecessor, offered
from visp.premises import CannotStart

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELLO = Message(what="hello", pid=7, addresses=(("127.0.0.1", 3233),))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def inherit(data_dir: Path) -> Inheritance:
    """A new server's part, in a thread: it blocks."""

    def take() -> Inheritance:
        predecessor = Predecessor.find(data_dir)
        assert predecessor is not None
        return predecessor.take()

    return await asyncio.to_thread(take)


def a_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


async def test_sockets_go_over_as_they_are_with_what_waits_in_them(tmp_path: Path, listener: socket.socket) -> None:
    ours, theirs = a_pair()
    theirs.send(b"sent before")
    async with offered(tmp_path, lambda: HELLO) as asked:
        assert stat.S_IMODE((tmp_path / handover.SOCKET).stat().st_mode) == 0o600
        new = asyncio.create_task(inherit(tmp_path))
        leaver = Leaver(await asked)
    assert not (tmp_path / handover.SOCKET).exists()
    await leaver.begin([listener], 1.0)
    async with leaver.sending():
        leaver.take(ours)
    over = asyncio.create_task(leaver.is_succeeded(asyncio.Event()))
    inheritance = await new
    (there,), (connection,) = inheritance.listeners, inheritance.connections
    with there, closing(connection), theirs:
        assert there.getsockname() == listener.getsockname()
        assert not there.get_inheritable()
        assert connection.recv(100) == b"sent before"
        inheritance.confirm()
        assert await over
        assert ours.fileno() == -1, "a copy is kept after the new server serves"
        connection.sendall(b"answer")
        assert theirs.recv(100) == b"answer"


async def test_many_sockets_take_several_messages(tmp_path: Path, listener: socket.socket) -> None:
    count = 2 * handover.BATCH + 1
    async with offered(tmp_path, lambda: HELLO) as asked:
        new = asyncio.create_task(inherit(tmp_path))
        leaver = Leaver(await asked)
    await leaver.begin([listener], 1.0)
    async with leaver.sending():
        for _ in range(count):
            leaver.take(listener.dup())
    over = asyncio.create_task(leaver.is_succeeded(asyncio.Event()))
    inheritance = await new
    assert len(inheritance.connections) == count
    inheritance.confirm()
    assert await over
    for each in (*inheritance.listeners, *inheritance.connections):
        each.close()


async def test_a_new_server_that_is_gone_is_noticed_and_everything_is_kept(
    tmp_path: Path, listener: socket.socket
) -> None:
    ours, theirs = a_pair()
    async with offered(tmp_path, lambda: HELLO) as asked:
        line = _connect(tmp_path)
        await asyncio.to_thread(line.recv, 1000)
        line.send(b'{"what":"go"}')
        leaver = Leaver(await asked)
    await leaver.begin([listener], 1.0)
    async with leaver.sending():
        leaver.take(ours)
        assert not leaver.is_off.is_set()
        line.close()
        async with asyncio.timeout(5):
            await leaver.is_off.wait()
    leaver.give_up()
    (kept,) = leaver.kept
    with theirs, kept:
        theirs.send(b"afterwards")
        assert kept.recv(100) == b"afterwards"


async def test_a_new_server_that_ends_when_all_is_closed_has_not_succeeded(tmp_path: Path) -> None:
    async with offered(tmp_path, lambda: HELLO) as asked:
        line = _connect(tmp_path)
        await asyncio.to_thread(line.recv, 1000)
        line.send(b'{"what":"go"}')
        leaver = Leaver(await asked)
    over = asyncio.create_task(leaver.is_succeeded(asyncio.Event()))
    assert b"closed" in await asyncio.to_thread(line.recv, 1000)
    line.close()
    assert not await over


async def test_who_does_not_go_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async with offered(tmp_path, lambda: HELLO) as asked:
        for _ in range(2):
            predecessor = await asyncio.to_thread(Predecessor.find, tmp_path)
            assert predecessor is not None
            assert (predecessor.pid, predecessor.addresses) == (7, HELLO.addresses)
            predecessor.leave()
        assert not asked.done()


async def test_a_server_that_is_not_ready_says_so(tmp_path: Path, listener: socket.socket) -> None:
    async with offered(tmp_path, lambda: handover.hello([listener], "starting")) as asked:
        with pytest.raises(CannotStart, match=r"cannot give way now \(starting\): try again"):
            await asyncio.to_thread(Predecessor.find, tmp_path)
        assert not asked.done()


async def test_another_user_s_process_is_refused_by_either_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with offered(tmp_path, lambda: HELLO) as asked:
        monkeypatch.setattr(handover, "peer_uid", lambda _: os.geteuid() + 1)
        with closing(_connect(tmp_path)) as line:
            assert b"take it over as that user" in await asyncio.to_thread(line.recv, 1000)
            with contextlib.suppress(BrokenPipeError):
                line.send(b'{"what":"go"}')
        with pytest.raises(CannotStart, match="belongs to the user with uid"):
            await asyncio.to_thread(Predecessor.find, tmp_path)
        for _ in range(10):  # what was accepted is closed
            await asyncio.sleep(0)
        assert not asked.done()


@pytest.mark.parametrize("words", [b"nonsense", b'{"what":"conquer"}', b'{"what":"serving"}'])
async def test_what_is_no_word_of_the_conversation_ends_it(words: bytes, tmp_path: Path) -> None:
    async with offered(tmp_path, lambda: HELLO) as asked:
        with closing(_connect(tmp_path)) as line:
            await asyncio.to_thread(line.recv, 1000)
            line.send(words)
            assert await asyncio.to_thread(line.recv, 1000) == b""
        assert not asked.done()


def test_without_a_server_there_is_nobody_to_ask(tmp_path: Path) -> None:
    assert Predecessor.find(tmp_path) is None
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as left:
        left.bind(str(tmp_path / handover.SOCKET))  # of one that was killed
    assert Predecessor.find(tmp_path) is None


def test_an_old_server_that_does_not_give_way_keeps_the_new_one_from_starting(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as listener:
        listener.bind(str(tmp_path / handover.SOCKET))
        listener.listen()

        def hello_and_end() -> None:
            with closing(listener.accept()[0]) as line:
                line.send(b'{"what":"hello","pid":7}')
                line.recv(1000)

        old = threading.Thread(target=hello_and_end)
        old.start()
        predecessor = Predecessor.find(tmp_path)
        assert predecessor is not None
        with pytest.raises(CannotStart, match=r"pid 7\) did not give way"):
            predecessor.take()
        old.join()


async def test_a_message_waits_for_room_and_an_end_is_an_answer() -> None:
    one, other = (Line(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    message = Message(what="hello", refusal="x" * 10_000)

    async def send() -> int:
        return sum([await one.send(message) for _ in range(100)])

    sending = asyncio.create_task(send())
    for _ in range(100):
        received = await other.receive()
        assert received == (message, [])
    assert await sending == 100
    other.close()
    assert not await one.send(message)
    assert await one.receive() is None
    one.close()


def _connect(data_dir: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.settimeout(5.0)
    line.connect(str(data_dir / handover.SOCKET))
    return line
