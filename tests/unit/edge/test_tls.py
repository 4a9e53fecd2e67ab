"""The certificate in force: taken from files that are whole, kept when newer ones are not."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest
from tests import certificates

from visp.edge import tls
from visp.edge.tls import Certificates, Unusable
from visp.premises import CannotStart
from visp.settings import Settings, Tls


def opened(folder: Path) -> Certificates:
    return Certificates(folder / "certificate.pem", folder / "key.pem")


def test_old_versions_and_weak_ciphers_are_not_spoken(tmp_path: Path) -> None:
    certificates.write(tmp_path)
    context = opened(tmp_path).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    ciphers = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
    assert ciphers
    assert all(name.startswith("ECDHE-") and ("GCM" in name or "CHACHA20" in name) for name in ciphers)


def test_when_the_certificate_ends_is_measured(tmp_path: Path) -> None:
    certificates.write(tmp_path, days=10)
    found = {family.name: family.samples[()] for family in opened(tmp_path).measured()}
    assert found[tls.EXPIRY] == pytest.approx(time.time() + 10 * 86400, abs=120)


def spoil_nothing(folder: Path) -> None:
    (folder / "key.pem").unlink()


def spoil_key(folder: Path) -> None:
    certificates.write(folder / "other")
    (folder / "other" / "key.pem").rename(folder / "key.pem")


def spoil_text(folder: Path) -> None:
    certificates.put(folder / "certificate.pem", b"no certificate")


def spoil_half(folder: Path) -> None:
    path = folder / "certificate.pem"
    certificates.put(path, path.read_bytes()[:200])


def spoil_mode(folder: Path) -> None:
    (folder / "key.pem").chmod(0o644)


def spoil_passphrase(folder: Path) -> None:
    certificates.write(folder, passphrase=b"secret")


SPOILT = {
    "a missing key": (spoil_nothing, "key.pem cannot be read: No such file"),
    "another's key": (spoil_key, "no certificate and its key"),
    "no certificate": (spoil_text, "no certificate and its key"),
    "half a certificate": (spoil_half, "no certificate and its key"),
    "a key that others can read": (spoil_mode, "can be read by others: chmod o-rwx"),
    "a key with a passphrase": (spoil_passphrase, "without a passphrase"),
}


@pytest.mark.parametrize("name", SPOILT)
async def test_files_that_cannot_be_used_are_refused_at_the_start_and_change_nothing_later(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, sentence = SPOILT[name]
    (tmp_path / "other").mkdir()
    certificates.write(tmp_path)
    held = opened(tmp_path)
    before = held.context
    spoil(tmp_path)
    await held.refresh(is_asked=True)
    assert held.context is before
    assert (held.reloads, held.failures) == (0, 1)
    said = capsys.readouterr().err
    assert "tls.kept" in said
    assert sentence in said
    assert "PRIVATE" not in said
    await held.refresh()
    assert held.failures == 1  # it is said once
    with pytest.raises(Unusable, match=sentence):
        opened(tmp_path)


async def test_changed_files_are_taken_without_being_asked_and_the_same_ones_when_asked(tmp_path: Path) -> None:
    certificates.write(tmp_path)
    held = opened(tmp_path)
    first = held.context
    await held.refresh()
    assert held.context is first
    certificates.write(tmp_path)
    await held.refresh()
    second = held.context
    assert second is not first
    await held.refresh(is_asked=True)
    assert held.context is not second
    assert held.reloads == 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (Tls(certificate="a.pem"), "go together"),
        (Tls(key="a.pem"), "go together"),
        (Tls(redirect_port=80), "tls.redirect_port needs"),
        (Tls(certificate="/missing/a.pem", key="/missing/b.pem"), "b.pem cannot be read"),
    ],
)
def test_settings_that_make_no_tls_keep_the_server_from_starting(settings: Tls, sentence: str) -> None:
    with pytest.raises(CannotStart, match=sentence):
        tls.certificates_of(Settings(tls=settings))


def test_no_settings_are_no_tls() -> None:
    assert tls.certificates_of(Settings()) is None
