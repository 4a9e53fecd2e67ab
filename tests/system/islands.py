"""A machine of its own for a block, as far as networks go, with an internet that is a process beside it.

The process of the tests moves into network and mount namespaces in which nothing is yet, and out of them at the end:
what it starts meanwhile sees the same. Needs root; nothing of the real machine's network is touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERNET, NEIGHBOUR, PRIVATE, METADATA = "198.51.100.7", "10.9.9.2", "10.77.0.5", "169.254.169.254"
OWN, PRIVATE6 = "10.9.9.1", "fd00:77::5"
HTTP, ECHO = 8080, 7000
NAMES = {
    "good.test": [INTERNET],
    "www.good.test": [INTERNET],
    "both.test": ["127.0.0.1", INTERNET],
    "inner.test": ["127.0.0.1"],
    "private.test": [PRIVATE],
    "metadata.test": [METADATA],
    "mapped.test": ["::ffff:127.0.0.1"],
    "six.test": [PRIVATE6],
}
NEW_NETWORK, NEW_MOUNTS = 0x40000000, 0x00020000
BIND, RECURSIVE, PRIVATE_MOUNT = 0x1000, 0x4000, 0x40000

PROGRAM = """
import http.server, socket, socketserver, struct, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.answer(("%s %s" % (self.path, self.headers["host"])).encode())

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["content-length"])).upper())

    def log_message(self, *_):
        pass

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(self.request.recv(1000).upper())

class Servers(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = daemon_threads = True

def names(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("198.51.100.7", port))
    known = {"good.test": "198.51.100.7", "inner.test": "127.0.0.1", "private.test": "10.77.0.5"}
    while True:
        query, sender = sock.recvfrom(1500)
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        address = known.get(".".join(labels).lower())
        question = query[12 : at + 5]
        found = address is not None and question[-4:-2] == b"\\0\\1"
        head = query[:2] + (b"\\x81\\x80" if address else b"\\x81\\x83") + struct.pack(">4H", 1, found, 0, 0)
        record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + socket.inet_aton(address) if found else b""
        sock.sendto(head + question + record, sender)

sys.stdin.readline()
http.server.ThreadingHTTPServer.address_family = socket.AF_INET6
threading.Thread(target=names, args=(53,), daemon=True).start()
threading.Thread(target=Servers(("0.0.0.0", 7000), Echo).serve_forever, daemon=True).start()
server = http.server.ThreadingHTTPServer(("::", 8080), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("up", flush=True)
sys.stdin.read()
"""


def why_not() -> str | None:
    """Why there can be none here; None where there can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    missing = [name for name in ("ip", "nsenter", "unshare") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}: apt-get install iproute2 util-linux"
    if subprocess.run(
        ["unshare", "-n", "ip", "link", "add", "type", "veth"], capture_output=True, check=False
    ).returncode:
        return "pairs of network devices cannot be made here"
    return None


@contextlib.contextmanager
def island() -> Iterator[None]:
    """In the block this process, and all that it starts, is on the island."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = [(os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY), flag) for kind, flag in _KINDS]
    where = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="island-") as folder, contextlib.ExitStack() as stack:
        Path(folder).chmod(0o755)
        _check(libc.unshare(NEW_NETWORK | NEW_MOUNTS))
        stack.callback(os.chdir, where)
        for descriptor, flag in before:
            stack.callback(os.close, descriptor)
            stack.callback(libc.setns, descriptor, flag)
        _check(libc.mount(None, b"/", None, RECURSIVE | PRIVATE_MOUNT, None))
        lines = [f"{address} {name}\n" for name, addresses in NAMES.items() for address in addresses]
        for name, content in (("hosts", "".join(lines)), ("resolv.conf", f"nameserver {INTERNET}\n")):
            path = Path(folder) / name
            path.write_text(content)
            _check(libc.mount(str(path).encode(), f"/etc/{name}".encode(), None, BIND, None))
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")  # that is the island's own
        stack.enter_context(_internet())
        yield


_KINDS = (("net", NEW_NETWORK), ("mnt", NEW_MOUNTS))


@contextlib.contextmanager
def _internet() -> Iterator[None]:
    pipe = subprocess.PIPE
    argv = ["unshare", "-n", sys.executable, "-c", PROGRAM]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            while os.readlink(f"/proc/{process.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                pass  # until it has its own
            there = ["nsenter", "-t", str(process.pid), "-n"]
            _run("ip", "link", "set", "lo", "up")
            _run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", str(process.pid))
            _run("ip", "addr", "add", f"{OWN}/30", "dev", "up0")
            _run("ip", "link", "set", "up0", "up")
            _run(*there, "ip", "addr", "add", f"{NEIGHBOUR}/30", "dev", "up1")
            for address in (INTERNET, PRIVATE, METADATA, PRIVATE6):
                bits = 128 if ":" in address else 32
                _run(*there, "ip", "addr", "add", f"{address}/{bits}", "dev", "lo")
            for link in ("lo", "up1"):
                _run(*there, "ip", "link", "set", link, "up")
            _run("ip", "route", "add", "default", "via", NEIGHBOUR)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "up\n"
            yield
        finally:
            process.kill()


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def _check(result: int) -> None:
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
