"""One keep-alive connection to the API: a request out, an answer back.

Not for use by two threads at once.
"""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from visp import __version__
from visp.client.errors import ApiError, Misused, NoConnection
from visp.client.terms import IDEMPOTENCY_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from visp.client.credentials import Credentials

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 330.0
"""Longer than the longest time limit of an action, so that the server's own time-outs answer first."""
ANSWER_LIMIT_BYTES = 256 << 20
TRACED_BYTES = 4096
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"


class Answer(msgspec.Struct, frozen=True):
    """What came back. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def activation_id(self) -> str:
        """The activation that the request made, as the header tells; empty when it tells none."""
        return self.headers.get("x-openwhisk-activation-id", "")


class Connection:
    """Connects when it is first used, and again when the server has closed meanwhile.

    `trace` is told every request and answer as lines of text, with the key blotted out.
    """

    def __init__(self, credentials: Credentials, trace: Callable[[str], None] | None = None) -> None:
        self._credentials = credentials
        self._trace = trace
        self._http: HTTPConnection | None = None
        self._reading: socket.socket | None = None
        self._prefix = urlsplit(credentials.apihost).path

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        more: Mapping[str, str] | None = None,
        hear: Callable[[bytes], None] | None = None,
    ) -> Answer:
        """Sends `path` (encoded, with its query) below the API's host; `more` headers go with it.

        Of an answer in lines of JSON `hear` gets each as it comes, and the answer's body is the last. Raises
        `NoConnection`, `Misused`.
        """
        headers = self._headers(body, more or {})
        self._tell(f"> {method} {self._credentials.apihost}{path}", headers, body)
        answer = self._exchange(method, self._prefix + path, body, headers, hear)
        self._tell(f"< HTTP {answer.status}", answer.headers, answer.body)
        return answer

    def events(
        self, path: str, body: bytes | None = None, more: Mapping[str, str] | None = None
    ) -> Answer | Iterator[tuple[str, bytes]]:
        """POSTs, or GETs without a body, and accepts events: their names and data as they come, or the answer where it
        is no stream.

        Raises `NoConnection`, `Misused`; so does the iterator. It is to be read, or closed, before another request.
        """
        method = "GET" if body is None else "POST"
        headers = self._headers(body, {"Accept": EVENTS, **(more or {})})
        self._tell(f"> {method} {self._credentials.apihost}{path}", headers, body)
        self.close()
        try:
            http = self._open()
            http.request(method, self._prefix + path, body, headers)
            self._reading = http.sock
            response = http.getresponse()
            given = {name.lower(): text for name, text in response.getheaders()}
            is_stream = response.status == 200 and given.get("content-type", "").startswith(EVENTS)
            answer = Answer(response.status, given, b"" if is_stream else _read(response))
        except (HTTPException, OSError) as error:
            raise self._failed(error) from None
        self._tell(f"< HTTP {answer.status}", answer.headers, answer.body)
        return self._events(response) if is_stream else answer

    def interrupt(self) -> None:
        """Ends the events that another thread reads, as if the server had."""
        if self._reading is not None:
            with contextlib.suppress(OSError):
                self._reading.shutdown(socket.SHUT_RDWR)

    def _events(self, response: HTTPResponse) -> Iterator[tuple[str, bytes]]:
        name, data = "", b""
        try:
            while line := response.readline(ANSWER_LIMIT_BYTES):
                field, _, value = line.rstrip(b"\n").partition(b": ")
                if field == b"event":
                    name = value.decode()
                elif field == b"data":
                    data += value
                elif not field and name:
                    yield name, data
                    name, data = "", b""
        except (HTTPException, OSError) as error:
            raise self._failed(error) from None
        finally:
            self._reading = None
            self.close()

    def _headers(self, body: bytes | None, more: Mapping[str, str]) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": f"visp/{__version__}", **more}
        if self._credentials.auth:
            headers["Authorization"] = "Basic " + base64.b64encode(self._credentials.auth.encode()).decode()
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        return headers

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        hear: Callable[[bytes], None] | None,
    ) -> Answer:
        is_reused = self._is_open()
        try:
            return self._send(method, path, body, headers, hear)
        except ConnectionError as error:
            # The server may have closed an idle connection while the request was on its way. A POST is not sent a
            # second time: it may have been taken, and would run the action twice, unless it has a key.
            if not is_reused or (method == "POST" and IDEMPOTENCY_KEY not in headers):
                raise self._failed(error) from None
        except (HTTPException, OSError) as error:
            raise self._failed(error) from None
        self.close()
        try:
            return self._send(method, path, body, headers, hear)
        except (HTTPException, OSError) as error:
            raise self._failed(error) from None

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        hear: Callable[[bytes], None] | None,
    ) -> Answer:
        http = self._open()
        try:
            http.request(method, path, body, headers)
        except (BrokenPipeError, ConnectionResetError):
            # A body that is too large is refused before it was read: the answer may be there all the same.
            pass
        response = http.getresponse()
        told = {name.lower(): text for name, text in response.getheaders()}
        is_told = hear is not None and told.get("content-type", "").startswith(LINES)
        answer = Answer(response.status, told, _read_lines(response, hear) if is_told and hear else _read(response))
        if response.will_close:
            self.close()
        return answer

    def _is_open(self) -> bool:
        """Whether there is a connection that the server has not closed. It says nothing unasked: bytes mean its end."""
        if self._http is None or self._http.sock is None:
            return False
        readable, _, _ = select.select([self._http.sock], [], [], 0)
        if readable:
            self.close()
        return not readable

    def _open(self) -> HTTPConnection:
        if self._http is None:
            parts = urlsplit(self._credentials.apihost)
            host = parts.hostname or ""
            if parts.scheme == "https":
                self._http = HTTPSConnection(host, parts.port, timeout=CONNECT_TIMEOUT_S, context=self._tls())
            else:
                self._http = HTTPConnection(host, parts.port, timeout=CONNECT_TIMEOUT_S)
            self._http.connect()
            self._http.sock.settimeout(ANSWER_TIMEOUT_S)
        return self._http

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._credentials.is_insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._credentials.cert:
            try:
                context.load_cert_chain(self._credentials.cert, self._credentials.key or None)
            except (OSError, ssl.SSLError) as error:
                raise Misused(f"the client certificate {self._credentials.cert} cannot be used: {error}") from None
        return context

    def _failed(self, error: Exception) -> NoConnection:
        self.close()
        host = self._credentials.apihost
        if isinstance(error, ConnectionRefusedError):
            return NoConnection(
                f"nothing listens at {host}; `visp start` starts a server there, --apihost names another"
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            return NoConnection(f"the certificate of {host} is not trusted: {error.verify_message}; -i skips the check")
        if isinstance(error, TimeoutError):
            return NoConnection(f"{host} did not answer in time")
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        return NoConnection(f"the connection to {host} failed: {reason}")

    def _tell(self, head: str, headers: dict[str, str], body: bytes | None) -> None:
        if self._trace is None:
            return
        lines = [head, *(f"  {name}: {text}" for name, text in headers.items())]
        if body:
            lines.append("  " + body[:TRACED_BYTES].decode(errors="backslashreplace"))
            if len(body) > TRACED_BYTES:
                lines.append(f"  … {len(body)} bytes in all")
        self._trace(self._redacted("\n".join(lines)))

    def _redacted(self, text: str) -> str:
        auth = self._credentials.auth
        secrets = (base64.b64encode(auth.encode()).decode(), auth, auth.partition(":")[2])
        for secret in filter(None, secrets):
            text = text.replace(secret, "…")
        return text


def _read_lines(response: HTTPResponse, hear: Callable[[bytes], None]) -> bytes:
    """The last line; one that is longer than an answer may be comes in pieces, which are no JSON."""
    last = b""
    while line := response.readline(ANSWER_LIMIT_BYTES):
        last = line
        hear(line)
    return last


def _read(response: HTTPResponse) -> bytes:
    body = response.read(ANSWER_LIMIT_BYTES)
    if len(body) == ANSWER_LIMIT_BYTES and response.read(1):
        with contextlib.suppress(OSError):
            response.close()
        raise ApiError(response.status, f"the answer is larger than {ANSWER_LIMIT_BYTES} bytes")
    return body
