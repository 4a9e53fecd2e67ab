"""`email/inbox`: a trigger for each mail that comes to a folder of an IMAP server.

The folder is left as it is. Where the server offers IDLE (RFC 2177) a connection stays and is told of what comes, else
the folder is looked at from time to time. The position is `{"validity", "uid", "folder"}`: how the folder is numbered,
and the last number in it; where a server numbers anew, what is there counts as seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import errno
import functools
import imaplib
import re
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from email.utils import getaddresses
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from visp import wording
from visp.feed import given as asked
from visp.feed.base import Event, FeedRefused, Json, SourceLost
from visp.feed.batching import Gathering
from visp.feed.conditions import filter_of, parse_filter
from visp.feed.connecting import untrusted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from email.message import EmailMessage

    from visp.clock import Clock
    from visp.feed.base import Reach, Watch

T = TypeVar("T")

PORTS = {True: 993, False: 143}
INTERVAL_S, INTERVAL_LEAST_S, INTERVAL_MOST_S = 60, 5, 86_400
ANSWER_S = 20.0
"""For each answer of a server."""
MAIL_BYTES = 5 * 1024 * 1024
"""Of a larger mail the beginning is read."""
TEXT_LENGTH = 256 * 1024
MAILS_AT_ONCE = 10
ATTACHMENTS_MOST = 100
THREADS = 8
IDLE_S = 300.0
"""A connection that is told of nothing is asked so often, at the latest: it may be dead."""
_LITERAL_BYTES = MAIL_BYTES + 1024 * 1024
_LINE_BYTES = 1024 * 1024
_IDLE_TAG = b"IDLE1"

Mails = tuple[int, list[tuple[int, bytes]]]
"""The numbering, and mails by number."""


class Inbox:
    name: ClassVar[str] = "email/inbox"
    secrets: ClassVar[frozenset[str]] = frozenset({"password"})
    disables_when_throttled: ClassVar[bool] = False

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        kept: dict[str, Json] = {name: asked.required(given, name) for name in ("host", "username", "password")}
        kept["folder"] = asked.text(given, "folder") or "INBOX"
        kept["tls"] = asked.flag(given, "tls", default=True)
        kept["port"] = asked.integer(given, "port", PORTS[kept["tls"]], 1, 65535)
        kept["interval_s"] = asked.integer(given, "interval_s", INTERVAL_S, INTERVAL_LEAST_S, INTERVAL_MOST_S)
        for name in ("host", "username", "password", "folder"):
            if any(character < " " for character in kept[name]) or not kept[name].isprintable():
                raise FeedRefused(wording.feed_parameter_bad(name, wording.FEED_LINE))
        return kept | parse_filter(given)

    def changed(self, kept: Mapping[str, Json], given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        names = ("username", "password", "folder", "interval_s", "filter")
        asked_for = {name: given[name] for name in names if name in given}
        if not asked_for:
            raise FeedRefused(wording.NOTHING_UPDATABLE)
        return self.parse({**kept, **asked_for}, now_ms)

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json:
        try:
            async with _opened(parameters, reach) as box:
                validity, mails = await box.look(None)
        except SourceLost as error:
            raise FeedRefused(str(error), 502) from None
        return {"validity": validity, "uid": mails[-1][0] if mails else 0, "folder": parameters["folder"]}

    def created(self, id: str, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {"status": "success"}

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return dict(parameters)

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> InboxSource:
        return InboxSource(parameters, reach)


class InboxSource:
    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach
        self._holds = filter_of(parameters)

    async def run(self, watch: Watch, position: Json) -> None:
        folder = self._parameters["folder"]
        kept = dict(position) if position and position.get("folder") == folder else None
        while True:
            async with _opened(self._parameters, self._reach) as box:
                while True:
                    kept, is_all = await self._round(watch, box, kept)
                    if not is_all:
                        continue
                    if not box.is_told:
                        break
                    watch.live(lag=0)
                    await box.idle(watch.clock)
            wait_s = self._parameters["interval_s"]
            watch.live(lag=0, next_ms=watch.clock.now_ms() + wait_s * 1000)
            await watch.clock.sleep(wait_s)

    async def _round(self, watch: Watch, box: _Box, kept: dict[str, Json] | None) -> tuple[dict[str, Json], bool]:
        """Fires what has come; the position, and whether that was all."""
        after = None if kept is None else (kept["validity"], kept["uid"])
        validity, mails = await box.look(after)
        gathering = Gathering(watch, kept)
        if kept is None or validity != kept["validity"]:
            kept = {"validity": validity, "uid": mails[-1][0] if mails else 0, "folder": self._parameters["folder"]}
            mails = []
        for uid, raw in mails:
            kept = {**kept, "uid": uid}
            event = await asyncio.to_thread(event_of, raw)
            if self._holds(event):
                await gathering.add(Event(f"{validity}-{uid}", msgspec.json.encode(event)), kept)
        await gathering.flush(kept)
        return kept, len(mails) < MAILS_AT_ONCE


# ── mails: pure ─────────────────────────────────────────────────────────────────────────────────────────────────


def event_of(raw: bytes) -> dict[str, Json]:
    """`from, to, subject, date, text, attachments`; what cannot be read is empty. `bytes` is a size."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    return {
        "from": _header(message, "From"),
        "to": [address for _, address in getaddresses([_header(message, "To"), _header(message, "Cc")]) if address],
        "subject": _header(message, "Subject"),
        "date": _header(message, "Date"),
        "text": _text(message),
        "attachments": _attachments(message),
    }


def _header(message: EmailMessage, name: str) -> str:
    try:
        return _clean(str(message[name] or ""))[:10_000]
    except Exception:  # the library raises whatever it comes to over what strangers wrote
        return ""


def _text(message: EmailMessage) -> str:
    try:
        body = message.get_body(("plain", "html"))
        return _clean(str(body.get_content())).replace("\r\n", "\n")[:TEXT_LENGTH] if body is not None else ""
    except Exception:
        return ""


def _attachments(message: EmailMessage) -> list[dict[str, Json]]:
    found: list[dict[str, Json]] = []
    try:
        for part in message.iter_attachments():
            content: Any = part.get_payload(decode=True)
            size = len(content) if isinstance(content, bytes) else 0
            name = _clean(part.get_filename() or "")[:1000]
            found.append({"name": name, "type": part.get_content_type()[:200], "bytes": size})
            if len(found) == ATTACHMENTS_MOST:
                break
    except Exception:
        pass
    return found


def _clean(text: str) -> str:
    """Without halves of characters, which JSON cannot have."""
    return text.encode("utf-8", "replace").decode()


# ── the server ──────────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Servers that answer slowly hold up one another alone."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="imap")


class _Client(imaplib.IMAP4):
    """Connects to an address that was checked, and reads no more than a mail may have.

    What was received and is not read yet is here, so that who waits for the socket knows that there is nothing else.
    """

    def __init__(self, parameters: Mapping[str, Json], address: str) -> None:
        self._address = address
        self._is_tls = parameters["tls"]
        self._received = bytearray()
        super().__init__(parameters["host"], parameters["port"], ANSWER_S)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        plain = socket.create_connection((self._address, self.port), timeout)
        if not self._is_tls:
            return plain
        return ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)

    def read(self, size: int) -> bytes:
        if size > _LITERAL_BYTES:
            raise self.abort("an answer is too large")
        while len(self._received) < size:
            self._receive()
        return self._taken(size)

    def readline(self) -> bytes:
        at = 0
        while (end := self._received.find(b"\n", at)) < 0:
            at = len(self._received)
            if at > _LINE_BYTES:
                raise self.abort("a line is too long")
            self._receive()
        return self._taken(end + 1)

    def has_more(self) -> bool:
        """Whether something was received that the socket tells nothing of any more."""
        return bool(self._received) or (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0)

    def _receive(self) -> None:
        part = self.sock.recv(64 * 1024)
        if not part:
            raise ConnectionResetError(errno.ECONNRESET, "the connection was closed")
        self._received += part

    def _taken(self, size: int) -> bytes:
        found = bytes(self._received[:size])
        del self._received[:size]
        return found


class _Box:
    """A folder, opened. The client's functions are called in threads, one at a time."""

    def __init__(self, parameters: Mapping[str, Json], address: str) -> None:
        """Raises `SourceLost`."""
        self._host: str = parameters["host"]
        self._lock = threading.Lock()
        with self._answered():
            self._client = client = _Client(parameters, address)
        try:
            with self._answered():
                self._enter(parameters)
                self._validity = _number(client.response("UIDVALIDITY"))
                self._last = _number(client.response("UIDNEXT")) - 1
        except SourceLost:
            client.shutdown()
            raise

    def _enter(self, parameters: Mapping[str, Json]) -> None:
        client = self._client
        try:
            client.login(parameters["username"], parameters["password"])
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error:
            raise SourceLost(wording.imap_not_let_in(self._host)) from None
        words = client.capability()[1][-1] or b""  # it may be another one once somebody is let in
        self.is_told = b"IDLE" in words.upper().split()
        quoted = parameters["folder"].replace("\\", "\\\\").replace('"', '\\"')
        if client.select(f'"{quoted}"', readonly=True)[0] != "OK":
            raise SourceLost(wording.imap_no_folder(wording.shortened(parameters["folder"])))

    async def look(self, after: tuple[int, int] | None) -> Mails:
        """Up to `MAILS_AT_ONCE` that came later; of another numbering, or without one, the last number alone."""
        if after is None or after[0] != self._validity:
            return self._validity, [(self._last, b"")]
        return self._validity, await self._in_thread(_later, self._client, after[1])

    async def idle(self, clock: Clock) -> None:
        """Until the server says something, or has said nothing for long. Raises `SourceLost`."""
        self.is_told = await self._in_thread(self._begin_idle)
        if not self.is_told:
            return
        if not self._client.has_more():
            loop, told = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(self._client.sock, told.set)
            waits = [asyncio.ensure_future(told.wait()), asyncio.ensure_future(clock.sleep(IDLE_S))]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                loop.remove_reader(self._client.sock)
                for wait in waits:
                    wait.cancel()
        await self._in_thread(self._end_idle)

    def _begin_idle(self) -> bool:
        """Whether the server does what it said it could."""
        self._client.send(_IDLE_TAG + b" IDLE\r\n")
        while not (line := self._client.readline()).startswith((b"+", _IDLE_TAG)):
            pass
        return line.startswith(b"+")

    def _end_idle(self) -> None:
        """What it told meanwhile is found by looking."""
        self._client.send(b"DONE\r\n")
        while not self._client.readline().startswith(_IDLE_TAG):
            pass

    async def _in_thread(self, do: Callable[..., T], *given: Any) -> T:
        def done() -> T:
            with self._lock, self._answered():
                return do(*given)

        return await asyncio.wrap_future(_threads().submit(done))

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except (OSError, imaplib.IMAP4.error, ValueError) as error:
            raise SourceLost(wording.source_not_reached(self._host, _cause(error))) from None

    def leave(self) -> None:
        try:
            self._client.logout()
        except (OSError, imaplib.IMAP4.error):
            self._close()

    def cut(self) -> None:
        """Also while a thread waits for an answer: it comes no more."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._client.sock, socket.SHUT_RDWR)
        _threads().submit(self._close)

    def _close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._client.shutdown()


@contextlib.asynccontextmanager
async def _opened(parameters: Mapping[str, Json], reach: Reach) -> AsyncIterator[_Box]:
    """Raises `SourceLost`, `FeedRefused`."""
    addresses = await reach.check(parameters["host"], parameters["port"])
    opening = _threads().submit(_Box, parameters, addresses[0])
    try:
        box = await asyncio.wrap_future(opening)
    except asyncio.CancelledError:  # the thread goes on
        opening.add_done_callback(lambda done: None if done.cancelled() or done.exception() else done.result().cut())
        raise
    try:
        yield box
        await asyncio.wrap_future(_threads().submit(box.leave))
    except BaseException:
        box.cut()
        raise


def _later(client: imaplib.IMAP4, last: int) -> list[tuple[int, bytes]]:
    found = client.uid("SEARCH", f"UID {last + 1}:*")[1]
    numbers = sorted({int(word) for part in found if isinstance(part, bytes) for word in part.split()})
    mails = []
    for uid in [number for number in numbers if number > last][:MAILS_AT_ONCE]:  # a range's end is the last there is
        parts = client.uid("FETCH", str(uid), f"(BODY.PEEK[]<0.{MAIL_BYTES}>)")[1]
        raw = next((part[1] for part in parts if isinstance(part, tuple)), None)
        if raw is not None:  # else it was deleted meanwhile
            mails.append((uid, raw))
    return mails


def _number(response: tuple[str, list[Any]]) -> int:
    found = re.search(rb"[0-9]{1,20}", (response[1] or [b""])[0] or b"")
    if found is None:
        raise ValueError("no number")
    return int(found[0])


def _cause(error: Exception) -> str:
    """Not what a server says: it may repeat the password."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return untrusted(error) or getattr(error, "strerror", None) or "it does not speak IMAP as it should"
