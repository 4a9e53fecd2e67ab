"""How many actions a sequence unfolds to, without walking further than it must."""

import pytest

from visp.controller.crud import has_more_atomic
from visp.entity.names import FullyQualifiedName

Name = FullyQualifiedName


def name(text: str) -> Name:
    return Name("ns", None, text)


def unfolded(limit: int, **parts: str) -> bool:
    """Whether `root` has more than `limit` atomic parts; each keyword is a sequence, its parts split by spaces."""
    known = {name(key): tuple(map(name, value.split())) for key, value in parts.items()}
    atomic = {part: () for value in known.values() for part in value if part not in known}
    return has_more_atomic(known | atomic, name("root"), limit)


@pytest.mark.parametrize(
    ("parts", "count"),
    [
        ({"root": "a"}, 1),
        ({"root": "a a a"}, 3),
        ({"root": "s a s", "s": "a b"}, 5),
        ({"root": "x x", "x": "y y", "y": "z z", "z": "a a"}, 16),
    ],
)
def test_counts(parts: dict[str, str], count: int) -> None:
    assert not unfolded(count, **parts)
    assert unfolded(count - 1, **parts)


def test_a_long_chain_is_one_action() -> None:
    chain = {f"s{number}": f"s{number + 1}" for number in range(5000)}
    assert not unfolded(1, root="s0", **chain)


def test_a_doubling_chain_ends_at_the_limit() -> None:
    chain = {f"s{number}": f"s{number + 1} s{number + 1}" for number in range(200)}
    assert unfolded(50, root="s0", **chain)


def test_a_cycle_below_the_root_ends() -> None:
    assert unfolded(50, root="x", x="y", y="x")
