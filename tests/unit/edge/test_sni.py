"""Certificates of further domains: chosen by name, taken when they change, kept when newer ones cannot be used."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from tests import certificates

from visp.edge import sni
from visp.edge.sni import Further
from visp.edge.tls import Unusable, load


def write(folder: Path, domain: str) -> None:
    certificates.write(folder, domain)
    (folder / "certificate.pem").rename(folder / f"{domain}.crt")
    (folder / "key.pem").rename(folder / f"{domain}.key")


class Connection:
    def __init__(self) -> None:
        self.context: ssl.SSLContext | None = None


def chosen(further: Further, name: str | None) -> ssl.SSLContext | None:
    connection = Connection()
    further.choose(connection, name, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # type: ignore[arg-type]
    return connection.context


def opened(folder: Path) -> Further:
    return Further(folder, lambda *pair: load(pair[0], pair[1]).context, Unusable)


def test_a_name_has_its_certificate_and_others_have_none(tmp_path: Path) -> None:
    write(tmp_path, "shop.example.com")
    further = opened(tmp_path)
    further.refresh(is_first=True)
    held = chosen(further, "Shop.Example.com")
    assert held is not None
    assert [chosen(further, name) for name in ("other.example.com", "example.com", None, "")] == [None] * 4
    further.refresh()
    assert chosen(further, "shop.example.com") is held
    write(tmp_path, "shop.example.com")
    write(tmp_path, "new.example.com")
    assert further.refresh() == 0
    assert chosen(further, "shop.example.com") not in (None, held)
    assert chosen(further, "new.example.com") is not None
    (tmp_path / "new.example.com.crt").unlink()
    further.refresh()
    assert chosen(further, "new.example.com") is None


def test_what_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a.example")
    write(tmp_path, "b.example")
    further = opened(tmp_path)
    further.refresh(is_first=True)
    held = chosen(further, "a.example")
    certificates.put(tmp_path / "a.example.crt", b"no certificate")
    write(tmp_path, "c.example")
    assert further.refresh() == 1
    assert further.refresh() == 0
    assert chosen(further, "a.example") is held
    assert chosen(further, "c.example") is not None
    with pytest.raises(Unusable):
        opened(tmp_path).refresh(is_first=True)


def test_a_folder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sni, "DOMAINS_LIMIT", 1)
    for name in ("a.example", "b.example"):
        write(tmp_path, name)
    further = opened(tmp_path)
    further.refresh(is_first=True)
    assert chosen(further, "a.example") is not None
    assert chosen(further, "b.example") is None
