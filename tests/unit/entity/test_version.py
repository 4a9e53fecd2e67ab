"""Versions: three numbers, not all zero; patch counts the writes."""

from typing import Any

import pytest

from visp.entity.version import INITIAL, next_version, parse_version
from visp.errors import Malformed


@pytest.mark.parametrize(
    ("given", "version"),
    [(None, None), ("1.2.3", "1.2.3"), ("2", "2.0.0"), ("0.1", "0.1.0"), ("01.002.3", "1.2.3"), ("0.0.1", "0.0.1")],
)
def test_versions(given: Any, version: str | None) -> None:
    assert parse_version(given) == version


@pytest.mark.parametrize(
    "given",
    ["", "0", "0.0.0", "x", "1.x", "1..2", ".1", "1.", "-1", "1.2.3.4", " 1", "٣", "9" * 20, 1, 1.5, True, [], {}],
)
def test_versions_that_are_none(given: Any) -> None:
    with pytest.raises(Malformed, match="semantic version malformed"):
        parse_version(given)


def test_the_next_version() -> None:
    assert next_version(INITIAL) == "0.0.2"
    assert next_version("1.2.9") == "1.2.10"
