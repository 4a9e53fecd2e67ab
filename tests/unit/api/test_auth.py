"""Who may use the well-known key: callers on this machine, and no page of a browser that came from elsewhere."""

import base64

import pytest

from visp.api import auth
from visp.api.origin import MARKS
from visp.controller.identities import Identities
from visp.entity.network import is_loopback
from visp.entity.subject import GUEST_KEY, GUEST_UUID
from visp.errors import Unauthorized
from visp.settings import Limits
from visp.store.memory import MemoryEntities

HEADER = "Basic " + base64.b64encode(f"{GUEST_UUID}:{GUEST_KEY}".encode()).decode()


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "example.com", "10.0.0.1", "0.0.0.0", "127.0.0.1.nip.io", "localhost.com", "::2"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("authority", "host"),
    [("localhost", "localhost"), ("a.b:1", "a.b"), ("[::1]:80", "::1"), ("127.0.0.1:0", "127.0.0.1"), ("", "")],
)
def test_hosts(authority: str, host: str) -> None:
    assert auth.host_of(authority) == host


@pytest.mark.parametrize(
    ("peer", "host", "origin", "is_local"),
    [
        ("127.0.0.1", "localhost:3233", None, True),
        ("::1", "[::1]:3233", None, True),
        ("127.0.0.1", None, None, True),
        ("127.0.0.1", "localhost", "http://127.0.0.1:8000", True),
        (None, "localhost", None, False),
        ("10.0.0.1", "localhost", None, False),
        ("127.0.0.1", "rebound.example.com", None, False),
        ("127.0.0.1", "localhost", "http://example.com", False),
        ("127.0.0.1", "localhost", "null", False),
        ("127.0.0.1", "localhost", "", False),
    ],
)
def test_callers_on_this_machine(peer: str | None, host: str | None, origin: str | None, is_local: bool) -> None:
    headers = {name: value for name, value in (("host", host), ("origin", origin)) if value is not None}
    assert auth.is_local(peer, headers) is is_local


@pytest.mark.parametrize("mark", sorted(mark.decode() for mark in MARKS))
def test_what_a_proxy_brings_is_not_from_this_machine(mark: str) -> None:
    assert not auth.is_local("127.0.0.1", {"host": "localhost", mark: "127.0.0.1"})


@pytest.fixture
def identities() -> Identities:
    return Identities(MemoryEntities(), b"s" * 32, Limits(), is_loopback=True)


async def test_the_guest_from_here(identities: Identities) -> None:
    identity = await auth.identify(identities, {"authorization": HEADER, "host": "localhost"}, "127.0.0.1")
    assert (identity.subject, identity.namespace, identity.is_loopback_only) == ("guest", "guest", True)


@pytest.mark.parametrize(
    ("headers", "peer"),
    [
        ({"host": "example.com"}, "127.0.0.1"),
        ({"host": "localhost"}, "192.168.0.1"),
        ({"host": "localhost", "origin": "http://example.com"}, "127.0.0.1"),
    ],
)
async def test_the_guest_from_elsewhere(identities: Identities, headers: dict[str, str], peer: str) -> None:
    with pytest.raises(Unauthorized, match="The supplied authentication is invalid"):
        await auth.identify(identities, headers | {"authorization": HEADER}, peer)


async def test_a_key_of_ones_own_from_anywhere(identities: Identities) -> None:
    key = await identities.ensure("mine")
    header = "Basic " + base64.b64encode(str(key).encode()).decode()
    for _ in range(2):  # looked up, then known
        identity = await auth.identify(identities, {"authorization": header, "host": "example.com"}, "10.0.0.1")
        assert (identity.namespace, identity.is_loopback_only) == ("mine", False)


async def test_nobody(identities: Identities) -> None:
    with pytest.raises(Unauthorized, match="requires authentication"):
        await auth.identify(identities, {}, "127.0.0.1")
