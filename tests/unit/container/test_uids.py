"""No two containers of a machine share a uid."""

import os

import pytest

from visp.container import uids
from visp.container.uids import Uids
from visp.errors import StartFailed


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_each_is_given_once_and_again_when_it_came_back() -> None:
    one = Uids()
    first, second = one.take(), one.take()
    assert first != second
    one.give(first)
    assert one.take() == first
    one.close()


def test_two_servers_have_different_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([998_001, 998_001, 998_002])
    monkeypatch.setattr(uids.secrets, "randbelow", lambda _: next(numbers))
    one, other = Uids(), Uids()
    taken = {one.take(), other.take()}
    assert len(taken) == 2
    one.close()
    other.close()


def test_a_range_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uids, "RANGE", 2)
    one = Uids()
    one.take()
    one.take()
    with pytest.raises(StartFailed, match="2 containers run already"):
        one.take()
    one.close()


def test_a_normal_user_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Uids().take() is None
