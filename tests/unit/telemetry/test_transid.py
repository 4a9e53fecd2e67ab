"""Transaction ids: the caller's where they can be used, else new ones."""

from __future__ import annotations

import re

import pytest

from visp.telemetry import transid


def test_new_ids_are_32_letters_and_digits_and_differ() -> None:
    ids = {transid.new() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(re.fullmatch(r"[A-Za-z0-9]{32}", id) for id in ids)


@pytest.mark.parametrize("given", [b"golden-request-1", b"a", b"x" * 128, b"with space"])
def test_the_callers_id_is_kept(given: bytes) -> None:
    assert transid.of_request(given) == given.decode()


@pytest.mark.parametrize("given", [None, b"", b"sid_x", b"x" * 129, b"\xc3\xa9", b"a\nb", b"\x1b[0m"])
def test_what_cannot_be_used_is_replaced(given: bytes | None) -> None:
    assert re.fullmatch(r"[A-Za-z0-9]{32}", transid.of_request(given))
