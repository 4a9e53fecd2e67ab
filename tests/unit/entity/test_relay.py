"""What a container may reach beside the platform, as an operator writes it."""

import pytest

from visp.entity.relay import Relay, parse_relays


def test_relays_are_read() -> None:
    assert parse_relays("6379=127.0.0.1:6379 guest alice; 5432=db.example:15432 bob;") == {
        6379: Relay("127.0.0.1", 6379, frozenset({"guest", "alice"})),
        5432: Relay("db.example", 15432, frozenset({"bob"})),
    }
    assert parse_relays("1=[::1]:2 guest")[1].host == "::1"
    assert parse_relays(" ") == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("6379 guest", "form"),
        ("6379=127.0.0.1 guest", "form"),
        ("0=a:1 guest", "form"),
        ("1=a:70000 guest", "form"),
        ("1=a b:2 guest", "form"),
        ("6379=127.0.0.1:6379", "no namespaces"),
        ("6379=127.0.0.1:6379 */*", "no namespaces"),
        ("1=a:1 x; 1=b:2 y", "twice"),
        ("3233=a:1 guest", "platform"),
        (";".join(f"{port}=a:1 guest" for port in range(1, 18)), "more than 16"),
    ],
)
def test_what_is_no_relay_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_relays(text)
