"""The way to a source: its library, addresses that may be reached, TLS by the name, and sentences without secrets."""

from __future__ import annotations

import asyncio
import importlib
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from visp import wording
from visp.errors import VispError
from visp.feed.base import FeedRefused, Reach, SourceLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

CONNECT_S = 10.0
ANSWER_S = 20.0
CAUSE_LENGTH = 200
DEEP = 10


async def library(name: str, extra: str) -> Any:
    """A client library, imported beside the loop; raises `FeedRefused` where it is not installed."""
    try:
        return await asyncio.to_thread(importlib.import_module, name)
    except ImportError:
        raise FeedRefused(wording.feed_not_installed(name.partition(".")[0], extra)) from None


async def address(reach: Reach, host: str, port: int) -> str:
    """One address of a host, of those that may be reached: the first that takes a connection; raises `OSError`.

    Some libraries try for minutes where nobody listens: they are not asked to.
    """
    refused: OSError = TimeoutError()
    for one in await reach.check(host, port):
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(one, port)
        except OSError as error:
            refused = error
            continue
        writer.close()
        return one
    raise refused


class Named(ssl.SSLContext):
    """TLS to an address that is known, checked against the name it was found by."""

    name: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        name = self.name
        if name is None:
            name = server_hostname.name if isinstance(server_hostname, Pinned) else str(server_hostname)
        return super().wrap_bio(incoming, outgoing, server_side, name, session)


def tls(name: str | None = None, *, verified: bool = True) -> Named:
    """`name` None: each connection's own, that of its `Pinned` address."""
    context = Named(ssl.PROTOCOL_TLS_CLIENT)
    context.name = name
    if verified:
        context.load_default_certs()
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Pinned(str):
    """An address, and the name that it was found by."""

    name: str

    def __new__(cls, address: str, name: str) -> Pinned:
        made = super().__new__(cls, address)
        made.name = name
        return made


@asynccontextmanager
async def reached(
    what: str, where: object, secrets: Iterable[str | None] = (), refused: type[FeedRefused] | None = None
) -> AsyncIterator[None]:
    """Whatever goes wrong inside is a `SourceLost` that says where and why, and none of the secrets.

    Or is refused, where CREATE finds out by connecting that a source is not there.
    """
    try:
        yield
    except SourceLost as lost:
        if refused is None:
            raise
        raise refused(str(lost)) from None
    except VispError:
        raise
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        # it was the client library that gave up its own futures
        raise (refused or SourceLost)(wording.source_lost(what, str(where), wording.SOURCE_CLOSED)) from None
    except Exception as error:
        raise (refused or SourceLost)(wording.source_lost(what, str(where), cause(error, secrets))) from None


def untrusted(error: BaseException | None) -> str | None:
    """What is wrong with a server's certificate, if that is behind an error, or behind what a library made of it."""
    for _ in range(DEEP):
        if error is None:
            return None
        if isinstance(error, ssl.SSLCertVerificationError):
            return wording.certificate_refused(error.verify_message.rstrip("."))
        error = error.__cause__ or error.__context__
    return None


def cause(error: BaseException, secrets: Iterable[str | None] = ()) -> str:
    if (refusal := untrusted(error)) is not None:
        return refusal
    if isinstance(error, TimeoutError):
        return wording.SOURCE_SILENT
    said = " ".join(str(error).split()) or type(error).__name__
    for secret in secrets:
        if secret:
            said = said.replace(secret, "***")
    return said[:CAUSE_LENGTH]
