"""TLS of the server's port: the certificate in force, taken anew when its files change, and the hands shaken with it.

A connection keeps the certificate that it began with; whoever comes later gets the newer one. Files that cannot be used
change nothing: the certificate in force stays, and the log says what is wrong with them, once.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp.edge.sni import Further, Stamp, stamp_of
from visp.premises import CannotStart
from visp.telemetry import log
from visp.telemetry.metrics import Family

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from visp.settings import Settings

LOOK_S = 5.0
"""How often it is looked whether the files have changed."""
SHUTDOWN_S = 2.0
"""How long a client may take to hear that its connection is over."""
ACCEPTED_AT_ONCE = 256
FULL_S = 1.0
"""A process that may open no more files accepts again after this long."""
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption. Those of TLS 1.3 are all of that kind."""
HTTP1, HTTP2 = "http/1.1", "h2"
"""Names of protocols that are chosen from when hands are shaken (ALPN, RFC 7301)."""

EXPIRY = "visp_tls_certificate_expiry_timestamp_seconds"
RELOADS = "visp_tls_reloads_total"
FAILURES = "visp_tls_reload_failures_total"
BROKEN = "visp_tls_broken_handshakes_total"

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Unusable(Exception):
    """The files make no certificate; the text names the file, and says what is wrong."""


class Certificate(msgspec.Struct, frozen=True):
    """A context with a certificate and its key. `expires_s` is in seconds of the wall clock."""

    context: ssl.SSLContext
    expires_s: float


def load(certificate: Path, key: Path, protocols: Sequence[str] = (HTTP1,)) -> Certificate:
    """Reads both; raises `Unusable`. Of `protocols` the first that a client speaks is chosen. Blocking."""
    try:
        if key.stat().st_mode & 0o007:
            raise Unusable(f"the key {key} can be read by others: chmod o-rwx {key}")
        chain = certificate.read_bytes()
        key.read_bytes()
    except OSError as error:
        raise Unusable(f"{error.filename} cannot be read: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(list(protocols))
    try:
        context.load_cert_chain(certificate, key, password=b"")  # else a locked key would be asked for on a terminal
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise Unusable(
            f"{certificate} and {key} are no certificate and its key without a passphrase: {reason}"
        ) from None
    return Certificate(context, _expiry_s(chain))


def _expiry_s(chain: bytes) -> float:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(chain).not_valid_after_utc.timestamp()
    except ValueError as error:
        raise Unusable(f"the certificate cannot be understood: {error}") from None


class Certificates:
    """The certificate in force."""

    def __init__(
        self, certificate: Path, key: Path, protocols: Sequence[str] = (HTTP1,), further: Path | None = None
    ) -> None:
        """`further` is a folder with certificates of further domains. Raises `Unusable`."""
        self._paths = certificate, key
        self._protocols = protocols
        self._asked: asyncio.Event | None = None
        self._further: Further | None = None
        if further is not None:
            self._further = Further(further, lambda *pair: load(pair[0], pair[1], protocols).context, Unusable)
            self._further.refresh(is_first=True)
        self._stamp = self._look()
        self._current = self._load()
        self.reloads = 0
        self.failures = 0
        """Files that could not be used."""
        self.broken = 0

    def _load(self) -> Certificate:
        made = load(*self._paths, self._protocols)
        if self._further is not None:
            made.context.sni_callback = self._further.choose
        return made

    @property
    def context(self) -> ssl.SSLContext:
        """For who connects now."""
        return self._current.context

    def ask(self) -> None:
        """Has the files read again, whether or not they seem to have changed."""
        if self._asked is not None:
            self._asked.set()

    async def watch(self) -> None:
        """Looks after the files, and listens to SIGHUP, until it is cancelled."""
        loop, asked = asyncio.get_running_loop(), asyncio.Event()
        self._asked = asked
        loop.add_signal_handler(signal.SIGHUP, asked.set)
        try:
            while True:
                try:
                    async with asyncio.timeout(LOOK_S):
                        await asked.wait()
                except TimeoutError:
                    pass
                is_asked = asked.is_set()
                asked.clear()
                await self.refresh(is_asked=is_asked)
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    async def refresh(self, *, is_asked: bool = False) -> None:
        """Takes what is in the files if they have changed, or it `is_asked`; files are judged once."""
        if self._further is not None:
            self.failures += await asyncio.to_thread(self._further.refresh)
        stamp = self._look()
        if stamp == self._stamp and not is_asked:
            return
        self._stamp = stamp
        try:
            self._current = await asyncio.to_thread(self._load)
        except Unusable as error:
            self.failures += 1
            log.error("tls.kept", reason=str(error), expires_s=int(self._current.expires_s))
        else:
            self.reloads += 1
            log.info("tls.reloaded", expires_s=int(self._current.expires_s))

    def _look(self) -> Stamp:
        return stamp_of(*self._paths)

    def measured(self) -> Iterable[Family]:
        """For the metrics."""
        yield Family(EXPIRY, "When the certificate in force ends, since 1970.", "gauge", {(): self._current.expires_s})
        yield Family(RELOADS, "Certificates taken from changed files.", "counter", {(): self.reloads})
        yield Family(FAILURES, "Changed files that could not be used.", "counter", {(): self.failures})
        yield Family(BROKEN, "Connections that ended before they were encrypted.", "counter", {(): self.broken})


def certificates_of(settings: Settings) -> Certificates | None:
    """None for a server without TLS. Raises `CannotStart`."""
    wanted = settings.tls
    if not wanted.certificate and not wanted.key:
        if wanted.redirect_port:
            raise CannotStart("setting tls.redirect_port needs tls.certificate and tls.key: it leads to https")
        return None
    if not wanted.certificate or not wanted.key:
        raise CannotStart("settings tls.certificate and tls.key go together: one is missing")
    try:
        protocols = (HTTP2, HTTP1) if wanted.http2 else (HTTP1,)
        further = Path(wanted.certificates) if wanted.certificates else None
        return Certificates(Path(wanted.certificate), Path(wanted.key), protocols, further)
    except Unusable as error:
        raise CannotStart(f"TLS cannot be had: {error}") from None


class _Choosing(asyncio.Protocol):
    """Stands there while hands are shaken, then gives way to the protocol that was chosen."""

    def __init__(self, make: Callable[[str | None], asyncio.Protocol]) -> None:
        self._make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = self._make(transport.get_extra_info("ssl_object").selected_alpn_protocol())
        transport.set_protocol(made)
        made.connection_made(transport)


class Entrance:
    """Accepts on listening sockets and shakes hands. Who is at it counts as a connection; who takes long is sent away.

    The event loop's own servers know nothing of a connection before it is encrypted: anyone could hold as many as there
    are descriptors.
    """

    def __init__(
        self,
        certificates: Certificates,
        make: Callable[[str | None], asyncio.Protocol],
        has_room: Callable[[int], bool],
        handshake_s: float,
    ) -> None:
        """`make` makes the protocol of a connection for the one that was chosen, None for a client that names none.

        `has_room` tells whether there may be one more connection beside so many that are not made yet."""
        self._certificates = certificates
        self._make = make
        self._has_room = has_room
        self._handshake_s = handshake_s
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._shaking: set[asyncio.Task[None]] = set()

    @property
    def shaking(self) -> int:
        """How many connections are not encrypted yet."""
        return len(self._shaking)

    def open(self, listener: socket.socket, backlog: int) -> None:
        """Accepts on it from now on, and owns it."""
        listener.setblocking(False)
        listener.listen(backlog)
        self._listeners.append(listener)
        self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _FULL:
                    log.error("tls.not_accepted", reason=str(error))
                    self._loop.remove_reader(listener.fileno())
                    self._loop.call_later(FULL_S, self._accept_again, listener)
                    return
                continue  # that one has left meanwhile
            if self._has_room(len(self._shaking)):
                self.take(connection)
            else:
                connection.close()

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def take(self, connection: socket.socket) -> None:
        """Shakes hands with whoever has just connected."""
        connection.setblocking(False)
        task = asyncio.ensure_future(self._shake(connection))
        self._shaking.add(task)
        task.add_done_callback(self._shaking.discard)

    async def _shake(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: _Choosing(self._make),
                connection,
                ssl=self._certificates.context,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except OSError:  # time-outs and refusals of TLS are of this family
            self._certificates.broken += 1
            connection.close()

    def pause(self) -> None:
        """Accepts nothing any more; hands that are being shaken are shaken."""
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()

    def cut(self) -> None:
        for task in self._shaking:
            task.cancel()
