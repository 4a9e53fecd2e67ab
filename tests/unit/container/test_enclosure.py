"""How a template reads bubblewrap's words: what all cells share, and what each mounts by itself; doors elsewhere."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from visp.container import enclosure, view

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def test_size_belongs_to_the_option_that_follows() -> None:
    words = ("--tmpfs", "/a", "--size", "9", "--tmpfs", "/b", "--tmpfs", "/c", "--perms", "0555", "--dir", "/d")
    assert list(enclosure.parse(words)) == [
        ("--tmpfs", ["/a"], None),
        ("--tmpfs", ["/b"], "9"),
        ("--tmpfs", ["/c"], None),
        ("--dir", ["/d"], None),
    ]


def test_word_that_is_not_known_is_an_error() -> None:
    with pytest.raises(KeyError, match="--overlay"):
        list(enclosure.parse(("--overlay", "/a")))


def test_each_cell_has_what_is_written_and_its_own_processes() -> None:
    own = [
        operands[-1] for option, operands, _ in enclosure.parse(view.SYSTEM) if enclosure.is_of_cell(option, operands)
    ]
    assert own == ["/proc", "/proc/sys"]
    assert enclosure.is_of_cell("--tmpfs", ["/tmp"])
    assert not enclosure.is_of_cell("--ro-bind", ["/usr", "/usr"])


def test_links_are_followed_on_the_host(tmp_path: Path) -> None:
    (tmp_path / "true").touch()
    (tmp_path / "link").symlink_to(tmp_path / "true")
    there = str(tmp_path.resolve() / "true")
    assert enclosure.resolved("--ro-bind-try", [str(tmp_path / "link"), "/x"]) == ("--ro-bind-try", [there, "/x"])
    assert enclosure.resolved("--symlink", ["usr/bin", "/bin"]) == ("--symlink", ["usr/bin", "/bin"])


OWN_NETWORK = """
import fcntl, socket, struct
def flags(request, given=0):
    answer = fcntl.ioctl(asked, request, struct.pack("16sh14x", b"lo", given))
    return struct.unpack("16xh14x", answer)
told, asked = socket.socket(fileno=3), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
told.send(b"made")
told.recv(1)
was_up = flags(0x8913)[0] & 1
flags(0x8914, 0x41)
socket.create_connection(("127.0.0.1", 1)).close()
told.send(b"%d" % was_up)
"""


def test_who_opens_doors_elsewhere_leaves_the_network_as_it_is() -> None:
    """bubblewrap ends, now and then, where its loopback device was raised before it came to that."""
    ours, theirs = socket.socketpair()
    channel, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, channel:
        with theirs, end:
            words = ("unshare", "--user", "--net", "--map-root-user", "/usr/bin/python3", "-c", OWN_NETWORK)
            sandbox = start_with(3, theirs, words)
            assert ours.recv(4) == b"made"
            opener = start_with(
                enclosure.CONTROL, end, (sys.executable, "-I", "-S", enclosure.__file__, "doors", str(sandbox.pid), "1")
            )
        _, (door,), _, _ = socket.recv_fds(channel, 16, 1)
        assert opener.wait(10) == 0
        with socket.socket(fileno=door):
            ours.send(b"!")
            assert ours.recv(1) == b"0"
        assert sandbox.wait(10) == 0


def start_with(number: int, end: socket.socket, words: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process with this socket as the descriptor of this number."""
    return subprocess.Popen(("sh", "-c", f'exec {number}<&0 </dev/null; exec "$@"', "sh", *words), stdin=end)
