"""Policies of what actions reach, and which addresses are nobody's: tables."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.entity import network
from visp.entity.network import (
    INTERNET,
    NONE,
    Policy,
    Target,
    check_annotation,
    is_closed,
    is_opened,
    is_within,
    own_policy,
    parse_openings,
    parse_policy,
    read_host,
)
from visp.entity.parameters import Parameter
from visp.errors import BadRequest

ip = ipaddress.ip_address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("none", "none"),
        (" internet ", "internet"),
        ("API.example.com:443", "api.example.com:443"),
        ("*.example.org, a.b.", "*.example.org a.b"),
        ("198.51.100.0/24 198.51.100.7:80", "198.51.100.0/24 198.51.100.7/32:80"),
        ("2001:db8::/32 [2001:db8::1]:443", "2001:db8::/32 [2001:db8::1/128]:443"),
    ],
)
def test_a_policy_is_read_and_shown(text: str, shown: str) -> None:
    policy = parse_policy(text)
    assert str(policy) == shown
    assert parse_policy(shown.replace("/32:80", ":80").replace("/128]", "]")) == policy


@pytest.mark.parametrize(
    "text",
    [
        *("", "none internet", "*", "*.", "a..b", "a b/c", "http://a", "a:0", "a:65536", "a:x", "10.0.0.1/8", "1.2.3"),
        *("[::1", "[a]:1", "::1/x", "a" * 254, "-a", "a_b-", "ä.de", "a\x00", "127.1", "a:1:2", "*.*.a", "a*", "@a"),
        " ".join(["a.b"] * 65),
    ],
)
def test_what_cannot_be_meant_is_no_policy(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_policy(text)


@pytest.mark.parametrize(
    ("policy", "host", "port", "is_permitted"),
    [
        ("internet", "a.b", 1, True),
        ("none", "a.b", 1, False),
        ("a.b", "a.b", 1, True),
        ("a.b:2", "a.b", 1, False),
        ("a.b", "x.a.b", 1, False),
        ("*.a.b", "x.a.b", 1, True),
        ("*.a.b", "y.x.a.b", 1, True),
        ("*.a.b", "a.b", 1, False),
        ("*.a.b", "xa.b", 1, False),
        ("*.a.b", ".a.b", 1, False),
        ("198.51.100.0/24:80", ip("198.51.100.7"), 80, True),
        ("198.51.100.0/24:80", ip("198.51.100.7"), 81, False),
        ("198.51.100.0/24", "a.b", 80, False),
        ("198.51.100.0/24", ip("198.51.101.7"), 80, False),
        ("2001:db8::/32", ip("2001:db8::7"), 80, True),
        ("0.0.0.0/0", ip("2001:db8::7"), 80, False),
        ("a.b", ip("198.51.100.7"), 80, False),
    ],
)
def test_what_is_permitted(policy: str, host: str | network.Address, port: int, is_permitted: bool) -> None:
    assert parse_policy(policy).permits(host, port) is is_permitted


@pytest.mark.parametrize(
    ("own", "allowed", "is_narrower"),
    [
        ("internet", "internet", True),
        ("internet", "none", False),
        ("internet", "a.b", False),
        ("none", "none", True),
        ("none", "a.b", True),
        ("a.b", "internet", True),
        ("a.b", "none", False),
        ("a.b:1", "a.b", True),
        ("a.b", "a.b:1", False),
        ("x.a.b", "*.a.b", True),
        ("*.a.b", "*.a.b", True),
        ("*.x.a.b", "*.a.b", True),
        ("*.a.b", "*.x.a.b", False),
        ("a.b", "*.a.b", False),
        ("*.a.b", "a.b", False),
        ("198.51.100.7", "198.51.100.0/24", True),
        ("198.51.100.0/24", "198.51.100.7", False),
        ("2001:db8::1", "0.0.0.0/0", False),
        ("a.b c.d", "c.d", False),
    ],
)
def test_which_policy_is_within_another(own: str, allowed: str, is_narrower: bool) -> None:
    assert is_within(parse_policy(own), parse_policy(allowed)) is is_narrower


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.1"),
        *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1"),
        *("198.19.255.255", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("64:ff9b:1::1", "2002:7f00:1::", "2002:0a00:0001::1", "2001::1", "fc00::1", "fd00:ec2::254", "fe80::1"),
        *("fec0::1", "ff02::1"),
    ],
)
def test_what_is_closed_to_everybody(address: str) -> None:
    assert is_closed(ip(address))


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "203.0.113.80", "198.51.100.7", "192.0.2.1", "172.32.0.1", "100.128.0.1", "198.20.0.1"),
        *("2606:4700::1", "64:ff9b::101:101", "::ffff:1.1.1.1", "2002:101:101::1", "2001:db8::1"),
    ],
)
def test_what_lies_in_the_internet(address: str) -> None:
    assert not is_closed(ip(address))


def test_what_the_host_is_in_is_closed_in_each_form() -> None:
    around = [ipaddress.ip_network("203.0.113.0/24"), ipaddress.ip_network("2001:db8:1::/64")]
    for address in ("203.0.113.80", "::ffff:203.0.113.80", "64:ff9b::cb00:7150", "2001:db8:1::5"):
        assert is_closed(ip(address), around)
    assert not is_closed(ip("203.0.114.1"), around)


def test_what_an_operator_opens() -> None:
    openings = parse_openings("10.1.0.0/16 alice bob; 192.168.1.5:5432 carol; [fd00::1]:80 bob;")
    assert is_opened(ip("10.1.2.3"), 80, "alice", openings)
    assert is_opened(ip("::ffff:10.1.2.3"), 80, "alice", openings)
    assert not is_opened(ip("10.1.2.3"), 80, "carol", openings)
    assert not is_opened(ip("10.2.2.3"), 80, "alice", openings)
    assert is_opened(ip("192.168.1.5"), 5432, "carol", openings)
    assert not is_opened(ip("192.168.1.5"), 5433, "carol", openings)
    assert is_opened(ip("fd00::1"), 80, "bob", openings)


@pytest.mark.parametrize("text", ["10.0.0.0/8", "a.b bob", "127.0.0.1:80 bob", "::1 bob", "10.0.0.1/8 bob", "1 bob"])
def test_what_cannot_be_opened(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_openings(text)


@pytest.mark.parametrize("text", ["0x7f.1", "127.1", "2130706433", "fe80::1%eth0", "*.a", "a/b", "", "::1/128", "a b"])
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_host(text)


def annotated(value: object) -> dict[str, Parameter]:
    return {"network": Parameter(msgspec.Raw(msgspec.json.encode(value)))}


def test_an_annotation_only_narrows() -> None:
    check_annotation({}, NONE)
    check_annotation(annotated("none"), NONE)
    check_annotation(annotated("a.b"), INTERNET)
    for value, allowed in (("internet", NONE), ("a.b", Policy((Target("c.d"),))), (5, INTERNET), ("a b/", INTERNET)):
        with pytest.raises(BadRequest, match="'network'"):
            check_annotation(annotated(value), allowed)


def test_what_cannot_be_meant_permits_nothing() -> None:
    assert own_policy(annotated({"a": 1})) == NONE
    assert own_policy({}) == INTERNET


v4, v6 = st.ip_addresses(v=4), st.ip_addresses(v=6)


@given(v4)
def test_an_address_is_as_closed_as_it_is_within_another_form(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for form in (0xFFFF << 32 | number, int(ip("64:ff9b::")) | number, 0x2002 << 112 | number << 80):
        assert is_closed(ipaddress.IPv6Address(form)) == is_closed(address)


@given(st.one_of(v4, v6))
def test_what_is_not_global_is_closed(address: network.Address) -> None:
    inner = network.meant(address)
    documentation = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
    if any(inner.version == net.version and inner in net for net in map(ipaddress.ip_network, documentation)):
        return
    if not inner.is_global and inner.version == 4:
        assert is_closed(address)


@given(st.text(alphabet="abc.:*/[]0189 -", max_size=40))
def test_a_policy_that_is_read_is_shown_as_one_that_means_the_same(text: str) -> None:
    try:
        policy = parse_policy(text)
    except ValueError:
        return
    assert is_within(policy, policy)
    assert str(policy)
