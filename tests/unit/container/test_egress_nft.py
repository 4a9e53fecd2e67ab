"""The table of a server as text, and its parts for one container."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess

import pytest

from visp.container.egress import nft
from visp.entity.network import CLOSED, networks_of, parse_policy, shared

RANGE = ipaddress.IPv4Network("198.18.8.0/21")
AROUND = [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("fd00::/64")]
ADDRESS = RANGE[5]


def table() -> str:
    return nft.rules(63, RANGE, RANGE[1], AROUND)


def test_what_is_closed_is_in_the_table() -> None:
    for network in CLOSED:
        assert (str(network) in table()) == (network.version == 4)
    assert "192.0.2.0/24" in table()


def test_devices_have_names_that_fit() -> None:
    assert len(nft.device_of(63, RANGE.num_addresses - 1)) <= 15


def test_a_list_is_looked_at_after_what_is_closed_and_what_is_opened_before() -> None:
    opened = ((ipaddress.ip_network("10.1.0.0/16"), 80),)
    listed = networks_of([parse_policy("a.b 198.51.100.0/24 [2001:db8::1]:1"), parse_policy("internet")])
    rules = nft.own_rules(63, 5, ADDRESS, opened, listed).splitlines()
    kept = [rule.partition(" c5 ")[2] for rule in rules[1:-1]]
    assert kept == [
        "ip daddr 10.1.0.0/16 meta l4proto { tcp, udp } th dport 80 goto permitted",
        f"ip daddr @near {nft.REFUSE}",
        "ip daddr 198.51.100.0/24 goto permitted",
        nft.REFUSE,
    ]
    assert rules[-1].endswith("{ 198.18.8.5 : goto c5 }")
    assert nft.own_rules(63, 5, ADDRESS, opened, None).splitlines()[-2].endswith("goto internet")


@pytest.mark.parametrize(
    ("policies", "places"),
    [
        (["internet", "internet"], None),
        (["none", "internet"], []),
        (["a.b", "internet"], []),
        (["198.51.100.0/24", "internet"], ["198.51.100.0/24 None"]),
        (["198.51.100.0/24:80", "198.51.100.7"], ["198.51.100.7/32 80"]),
        (["198.51.100.0/24:80", "198.51.100.7:81"], []),
        (["198.51.100.0/24", "2001:db8::/32 198.51.101.0/24"], []),
        (["198.51.100.0/24", "none"], []),
    ],
)
def test_where_packets_may_go_that_all_policies_permit(policies: list[str], places: list[str] | None) -> None:
    found = networks_of(map(parse_policy, policies))
    assert (None if found is None else [f"{network} {port}" for network, port in found]) == places


def test_what_is_opened_is_not_more_than_is_permitted() -> None:
    opened = ((ipaddress.ip_network("10.0.0.0/8"), None),)
    assert shared(opened, ((ipaddress.ip_network("10.1.0.0/16"), 5),)) == ((ipaddress.ip_network("10.1.0.0/16"), 5),)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None or shutil.which("unshare") is None,
    reason="needs root, and nft: apt-get install nftables",
)
def test_the_kernel_takes_it() -> None:
    targets = networks_of([parse_policy("198.51.100.0/24 198.51.100.7:80 198.51.100.0/25:80")])
    opened = ((ipaddress.ip_network("10.1.0.0/16"), None),)
    script = (
        table()
        + nft.renewed(63, AROUND[:1])
        + nft.own_rules(63, 5, ADDRESS, opened, targets)
        + nft.own_rules(63, 6, RANGE[6], opened, None)
        + nft.without_own(63, 5, ADDRESS)
        + table()
    )
    done = subprocess.run(
        ["unshare", "-n", "nft", "-f", "-"], input=script, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
