"""Connections by TCP: through the proxy that leads out, where there is one, else directly."""

import socket
import ssl
import urllib.parse
import urllib.request

TIMEOUT_S = 30


class Refused(Exception):
    """What the caller is told in place of a result."""


class Connection:
    """A socket that is read exactly; with `is_tls` the other side's certificate is checked."""

    def __init__(self, host, port, is_tls=False, timeout_s=TIMEOUT_S):
        self.host = host
        try:
            self.socket = opened(host, port, timeout_s)
            if is_tls:
                self.encrypt()
        except TimeoutError:
            raise Refused(f"{host}:{port} did not answer within {timeout_s} s") from None
        except OSError as error:
            raise Refused(f"cannot reach {host}:{port}: {error.strerror or error}") from None
        self._held = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def encrypt(self, is_checked=True):
        context = ssl.create_default_context()
        if not is_checked:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket, server_hostname=self.host)

    def send(self, content):
        try:
            self.socket.sendall(content)
        except OSError as error:
            raise Refused(f"{self.host} broke off: {error.strerror or error}") from None

    def read(self, count):
        while len(self._held) < count:
            self._more()
        content, self._held = self._held[:count], self._held[count:]
        return content

    def read_line(self):
        """Up to CRLF, which is left out."""
        while b"\r\n" not in self._held:
            if len(self._held) > 65536:
                raise Refused(f"{self.host} sent a line without an end")
            self._more()
        line, _, self._held = self._held.partition(b"\r\n")
        return line

    def _more(self):
        try:
            content = self.socket.recv(65536)
        except TimeoutError:
            raise Refused(f"{self.host} did not answer in time") from None
        except OSError as error:
            raise Refused(f"{self.host} broke off: {error.strerror or error}") from None
        if not content:
            raise Refused(f"{self.host} closed the connection")
        self._held += content


def opened(host, port, timeout_s=TIMEOUT_S):
    """A connected socket; raises `OSError`."""
    proxy = urllib.request.getproxies().get("https")
    if not proxy or urllib.request.proxy_bypass(host):
        return socket.create_connection((host, port), timeout=timeout_s)
    way = urllib.parse.urlsplit(proxy)
    made = socket.create_connection((way.hostname, way.port or 80), timeout=timeout_s)
    try:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        made.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 8192:
            byte = made.recv(1)  # what comes after the head is the other side's
            if not byte:
                break
            head += byte
        status = head.split(b" ", 2)[1:2]
        if not status or not status[0].startswith(b"2"):
            raise OSError(f"the proxy answered {b' '.join(status).decode() or 'nothing'}")
    except BaseException:
        made.close()
        raise
    return made


class Target:
    """What a URL says: host, port, user, password, path; raises `Refused` for one of another scheme."""

    def __init__(self, url, plain, encrypted, port, encrypted_port):
        try:
            where = urllib.parse.urlsplit(str(url))
            given = where.port
        except ValueError:
            raise Refused("the url has no valid port") from None
        if where.scheme not in (*plain, *encrypted) or not where.hostname:
            raise Refused(f"the url must begin with {plain[0]}:// or {encrypted[0]}:// and name a host")
        self.is_tls = where.scheme in encrypted
        self.host = where.hostname
        self.port = given or (encrypted_port if self.is_tls else port)
        self.user = None if where.username is None else urllib.parse.unquote(where.username)
        self.password = None if where.password is None else urllib.parse.unquote(where.password)
        self.path = urllib.parse.unquote(where.path).lstrip("/")
        self.query = dict(urllib.parse.parse_qsl(where.query))

    def connect(self, timeout_s=TIMEOUT_S):
        return Connection(self.host, self.port, self.is_tls, timeout_s)


def required(args, *names):
    """Their values; raises `Refused` for the first that is not there."""
    for name in names:
        if args.get(name) in (None, ""):
            raise Refused(f"You must specify a {name} parameter.")
    return [args[name] for name in names]
