"""Keys and what they open: Basic credentials, digests, limits as they are shown."""

import base64

import pytest

from visp.entity.limits import LimitRanges, Range
from visp.entity.subject import (
    AuthKey,
    UserLimits,
    digest,
    is_same,
    new_key,
    parse_authorization,
    render_limits,
)
from visp.errors import Unauthorized

KEY = "k" * 64


def basic(text: str, scheme: str = "Basic") -> bytes:
    return f"{scheme} ".encode() + base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("header", "auth"),
    [
        (basic(f"uuid:{KEY}"), AuthKey("uuid", KEY)),
        (basic(f"uuid:{KEY}", "bASIC"), AuthKey("uuid", KEY)),
        (b"  " + basic(f"uuid:{KEY}") + b"  ", AuthKey("uuid", KEY)),
        (basic(f"no uuid é:{':' * 64}"), AuthKey("no uuid é", ":" * 64)),
    ],
)
def test_pairs(header: bytes, auth: AuthKey) -> None:
    assert parse_authorization(header) == auth


@pytest.mark.parametrize("header", [None, b"", b"Bearer abc", b"basicx " + KEY.encode(), b"Digest a=b"])
def test_no_credentials(header: bytes | None) -> None:
    with pytest.raises(Unauthorized, match="which was not supplied with the request"):
        parse_authorization(header)


@pytest.mark.parametrize(
    "header",
    [
        b"Basic",
        b"Basic abc",
        b"Basic !!!!",
        basic("uuid"),
        basic(f":{KEY}"),
        basic(f"uuid:{KEY[1:]}"),
        basic(f"uuid:{KEY}k"),
        b"Basic " + base64.b64encode(b"\xff:" + KEY.encode()),
    ],
)
def test_credentials_that_are_malformed(header: bytes) -> None:
    with pytest.raises(Unauthorized, match="The supplied authentication is invalid"):
        parse_authorization(header)


def test_new_keys_are_pairs_and_differ() -> None:
    one, other = new_key(), new_key()
    assert one != other
    assert parse_authorization(basic(str(one))) == one


def test_digests_depend_on_pair_and_secret() -> None:
    auth = AuthKey("uuid", KEY)
    assert is_same(digest(auth, b"s"), digest(AuthKey("uuid", KEY), b"s"))
    assert not is_same(digest(auth, b"s"), digest(auth, b"t"))
    assert not is_same(digest(auth, b"s"), digest(AuthKey("uuid", KEY[::-1] + "x"), b"s"))
    assert KEY.encode() not in digest(auth, b"s")


def test_limits_as_they_are_shown() -> None:
    limits = UserLimits(
        invocations_per_minute=1,
        fires_per_minute=2,
        concurrent_invocations=3,
        ranges=LimitRanges(memory_mb=Range(128, 256, 256)),
        parameters_bytes=10,
    )
    shown = render_limits(limits)
    assert (shown["invocationsPerMinute"], shown["firesPerMinute"], shown["concurrentInvocations"]) == (1, 2, 3)
    assert (shown["maxActionInstances"], shown["maxActionMemory"], shown["maxParameterSize"]) == (3, 256, "10 B")
    assert len(shown) == 13


def test_limits_that_are_shown_only_when_set() -> None:
    limits = UserLimits(
        invocations_per_minute=1,
        fires_per_minute=1,
        concurrent_invocations=1,
        allowed_kinds=frozenset({"b", "a"}),
        own={"storeActivations": False},
    )
    shown = render_limits(limits)
    assert shown["allowedKinds"] == ["a", "b"]
    assert shown["storeActivations"] is False
