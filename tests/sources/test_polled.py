"""`rss/entries` and `email/inbox` against small servers of the test's own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests import certificates
from tests.ports import free_port
from tests.sources.polled import Mailbox, News
from tests.unit.feed.watching import Crashed, Loopback, Watching, running, system_watch, turns

from visp.clock import ManualClock
from visp.feed.base import FeedRefused, SourceLost
from visp.feed.imap import Inbox
from visp.feed.rss import Rss


async def again(watch: Watching, seconds: float, is_so: Any) -> None:
    """Moves the clock on when the source sleeps, until something is so."""
    async with asyncio.timeout(20):
        while not is_so():
            assert isinstance(watch.clock, ManualClock)
            lived = len(watch.lived)
            watch.clock.advance(seconds)
            await watch.until(lambda lived=lived: len(watch.lived) > lived or is_so())
            await turns()


# ── rss ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def news() -> AsyncIterator[News]:
    made = News()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


def rss(news: News, path: str = "/feed", **more: Any) -> dict[str, Any]:
    return Rss().parse({"url": f"http://127.0.0.1:{news.port}{path}", **more}, 0)


async def test_entries_that_are_new(news: News) -> None:
    news.add("old")
    made, watch = rss(news, filter={"not": {"path": "id", "equals": "dull"}}), Watching()
    position = await Rss().check(made, Loopback())
    async with running(Rss().open(made, Loopback()), watch, position):
        await watch.until(lambda: bool(watch.lived))
        assert news.asked[-1]["if-none-match"] == '"1"'
        news.add("one", "dull", "two")
        await again(watch, 300, lambda: len(watch.keys) == 2)
        await again(watch, 300, lambda: len(news.asked) > 3)
    assert [body["id"] for body in watch.bodies] == ["one", "two"]
    assert watch.lived[0] == (0, watch.lived[0][1])


async def test_a_crash_between_fire_and_position_tells_the_same_entries(news: News) -> None:
    made = rss(news)
    position = await Rss().check(made, Loopback())
    news.add(*(f"entry{number}" for number in range(900)))
    first = Watching(position=position, crash_at=1)
    async with running(Rss().open(made, Loopback()), first) as task:
        with pytest.raises(Crashed):
            await asyncio.wait_for(task, 20)
    second = Watching(position=first.position)
    async with running(Rss().open(made, Loopback()), second):
        await second.events(900)
    assert second.keys == first.keys


async def test_what_a_news_feed_may_answer(news: News) -> None:
    assert (await Rss().check(rss(news, "/moved/feed"), Loopback()))["seen"] == []
    for path in ("/moved/moved/moved/moved/moved/moved/moved/feed", "/movedftp://127.0.0.1/", "/movedhttp://10.0.0.1/"):
        with pytest.raises(FeedRefused):
            await Rss().check(rss(news, path), Loopback())
    news.status = 500
    with pytest.raises(FeedRefused, match="500"):
        await Rss().check(rss(news), Loopback())
    with pytest.raises(SourceLost, match="500"):
        await Rss().open(rss(news), Loopback()).run(Watching(), None)


# ── mail ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    made = Mailbox()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
    async with asyncio.timeout(20):
        await asyncio.gather(*made.serving)  # until who was connected is gone


def inbox(mailbox: Mailbox, **more: Any) -> dict[str, Any]:
    given = {"host": "127.0.0.1", "port": mailbox.port, "username": "u", "password": "secret", "tls": False}
    return Inbox().parse({**given, **more}, 0)


async def test_mails_that_come(mailbox: Mailbox) -> None:
    mailbox.add("old")
    made, watch = inbox(mailbox), Watching()
    position = await Inbox().check(made, Loopback())
    assert position == {"validity": 7, "uid": 1, "folder": "INBOX"}
    async with running(Inbox().open(made, Loopback()), watch, position):
        await watch.until(lambda: bool(watch.lived))
        mailbox.add(*(f"new {number}" for number in range(25)))
        await again(watch, 60, lambda: len(watch.keys) == 25)
    assert watch.keys == [f"7-{uid}" for uid in range(2, 27)]
    assert watch.bodies[0] == {
        **{"from": "a@example", "to": ["b@example"], "subject": "new 0", "date": "", "text": "Hello\n"},
        "attachments": [],
    }
    assert all("PEEK" in command for command in mailbox.commands if "FETCH" in command)


async def test_a_server_that_tells_is_not_asked(mailbox: Mailbox) -> None:
    mailbox.tells = True
    made, watch = inbox(mailbox), Watching()
    position = await Inbox().check(made, Loopback())
    async with running(Inbox().open(made, Loopback()), watch, position):
        for number in range(3):
            await until(lambda: bool(mailbox.idle))
            mailbox.add(f"new {number}")
            await watch.until(lambda number=number: len(watch.keys) == number + 1)
        await until(lambda: bool(mailbox.idle))
    assert watch.keys == ["7-1", "7-2", "7-3"]
    assert [command.split()[0] for command in mailbox.commands].count("LOGIN") == 2  # CREATE's, and the source's
    assert mailbox.commands.count("IDLE") == 4


async def test_a_mail_that_comes_right_before_idle_is_not_waited_for(mailbox: Mailbox) -> None:
    mailbox.tells = True
    made, watch = inbox(mailbox), Watching()
    async with running(Inbox().open(made, Loopback()), watch):
        await until(lambda: bool(mailbox.idle))
        for writer in mailbox.idle:  # with what was said before, in one piece
            writer.write(b"* OK Still here\r\n")
        mailbox.add("new")
        await watch.until(lambda: len(watch.keys) == 1)


async def test_a_quiet_connection_is_tried(mailbox: Mailbox) -> None:
    mailbox.tells = True
    clock = ManualClock()
    async with running(Inbox().open(inbox(mailbox), Loopback()), Watching(clock)):
        await until(lambda: bool(mailbox.idle))
        await until(lambda: clock.advance(300) or "DONE" in mailbox.commands)


async def test_a_server_that_does_not_keep_its_word_is_asked(mailbox: Mailbox) -> None:
    mailbox.tells = mailbox.refuses_idle = True
    made, watch = inbox(mailbox), Watching()
    async with running(Inbox().open(made, Loopback()), watch):
        await watch.until(lambda: watch.lived[-1:] == [(0, watch.clock.now_ms() + 60_000)])
        mailbox.add("new")
        await again(watch, 60, lambda: len(watch.keys) == 1)


async def test_a_server_that_breaks_off_is_lost(mailbox: Mailbox) -> None:
    mailbox.tells = True
    made, watch = inbox(mailbox), Watching()
    async with running(Inbox().open(made, Loopback()), watch) as task:
        await until(lambda: bool(mailbox.idle))
        for writer in mailbox.idle:
            writer.write(b"* BYE too long\r\n")
            writer.close()
        with pytest.raises(SourceLost, match="could not be reached: the connection was closed"):
            await asyncio.wait_for(task, 20)


async def until(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - a thread brings it about
            await asyncio.sleep(0.01)


async def test_a_crash_brings_the_same_mails(mailbox: Mailbox) -> None:
    made = inbox(mailbox)
    position = await Inbox().check(made, Loopback())
    mailbox.add("one", "two")
    first = system_watch(position, crash_at=1)
    async with running(Inbox().open(made, Loopback()), first) as task:
        with pytest.raises(Crashed):
            await asyncio.wait_for(task, 20)
    second = system_watch(first.position)
    async with running(Inbox().open(made, Loopback()), second):
        await second.events(2)
    assert first.keys == second.keys == ["7-1", "7-2"]


async def test_a_numbering_that_begins_anew(mailbox: Mailbox) -> None:
    mailbox.add("one")
    made = inbox(mailbox)
    watch = Watching(position={"validity": 6, "uid": 900, "folder": "INBOX"})
    async with running(Inbox().open(made, Loopback()), watch):
        await watch.until(lambda: bool(watch.lived))
        mailbox.add("two")
        await again(watch, 60, lambda: bool(watch.keys))
    assert watch.keys == ["7-2"]


async def test_who_is_not_let_in(mailbox: Mailbox) -> None:
    with pytest.raises(FeedRefused) as refused:
        await Inbox().check(inbox(mailbox, password="wrong"), Loopback())
    assert refused.value.sentence == "127.0.0.1 does not let the user in."
    with pytest.raises(FeedRefused, match="could not be reached"):
        await Inbox().check(inbox(mailbox, port=free_port()), Loopback())
    with pytest.raises(FeedRefused) as refused:
        await Inbox().check(inbox(mailbox, host="10.0.0.1"), Loopback())
    assert refused.value.status == 403


async def test_a_certificate_is_trusted_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Mailbox()
    made.add("old")
    made.tells = True
    for name in ("its", "another"):
        (tmp_path / name).mkdir()
        certificates.write(tmp_path / name)
    secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secured.load_cert_chain(tmp_path / "its" / "certificate.pem", tmp_path / "its" / "key.pem")
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0, ssl=secured)
    made.port = server.sockets[0].getsockname()[1]
    asks = inbox(made, host="localhost", tls=True)
    async with server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "its" / "certificate.pem"))
        watch = Watching(position=await Inbox().check(asks, Loopback()))
        async with running(Inbox().open(asks, Loopback()), watch):
            await until(lambda: bool(made.idle))
            made.add("new")
            await watch.until(lambda: watch.keys == ["7-2"])
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "another" / "certificate.pem"))
        sentence = r"localhost could not be reached: its certificate is not trusted \(self-signed certificate\)"
        with pytest.raises(FeedRefused, match=sentence):
            await Inbox().check(asks, Loopback())
        with pytest.raises(SourceLost, match=sentence):
            await Inbox().open(asks, Loopback()).run(watch, watch.position)
    async with asyncio.timeout(20):
        await asyncio.gather(*made.serving)
