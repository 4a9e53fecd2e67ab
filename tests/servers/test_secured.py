"""Sources over TLS, against real servers: by a certificate that is trusted, and by one that is not."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests import certificates
from tests.servers.programs import Program
from tests.servers.test_nats import Nats
from tests.servers.test_postgres import Postgres
from tests.servers.test_redis import Redis
from tests.servers.watched import Near, Watched
from tests.sources.servers import MOSQUITTO, why_no_mosquitto

from visp.feed.base import Feed, FeedRefused, SourceLost
from visp.feed.mqtt import Mqtt
from visp.feed.nats import Subject
from visp.feed.postgres import Notify
from visp.feed.redis import Stream

UNTRUSTED = r"its certificate is not trusted \(self-signed certificate\)"


class SecuredRedis(Redis):
    def command(self) -> Sequence[str]:
        return [*super().command(), "--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no",
                "--tls-cert-file", f"{self.folder}/certificate.pem", "--tls-key-file", f"{self.folder}/key.pem",
                "--tls-ca-cert-file", f"{self.folder}/certificate.pem"]  # fmt: skip


class SecuredNats(Nats):
    def command(self) -> Sequence[str]:
        return [*super().command(), "--tls", "--tlscert", f"{self.folder}/certificate.pem", "--tlskey",
                f"{self.folder}/key.pem"]  # fmt: skip


class SecuredPostgres(Postgres):
    def command(self) -> Sequence[str]:
        return [*super().command(), "-c", "ssl=on", "-c", f"ssl_cert_file={self.folder}/certificate.pem", "-c",
                f"ssl_key_file={self.folder}/key.pem"]  # fmt: skip


class SecuredMosquitto(Program):
    def __init__(self) -> None:
        super().__init__("mosquitto")

    def command(self) -> Sequence[str]:
        written = (
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"certfile {self.folder}/certificate.pem\nkeyfile {self.folder}/key.pem\n"
        )
        (self.folder / "mosquitto.conf").write_text(written)
        return [MOSQUITTO or "", "-c", str(self.folder / "mosquitto.conf")]


def mosquitto() -> Program:
    if (missing := why_no_mosquitto()) is not None:
        pytest.skip(missing)
    return SecuredMosquitto()


KINDS: list[Any] = [
    pytest.param(
        SecuredRedis,
        Stream(),
        {"url": "rediss://:s3cret@localhost:{}", "stream": "s"},
        id="redis",
        marks=pytest.mark.all,
    ),
    pytest.param(
        SecuredNats,
        Subject(),
        {"url": "tls://visp:s3cret@localhost:{}", "subject": "s"},
        id="nats",
        marks=pytest.mark.all,
    ),
    pytest.param(
        SecuredPostgres,
        Notify(),
        {"url": "postgres://postgres:s3cret@localhost:{}/postgres?sslmode=verify-full", "channel": "c"},
        id="postgres",
        marks=pytest.mark.all,
    ),
    pytest.param(mosquitto, Mqtt(), {"url": "mqtts://localhost:{}", "topic": "t"}, id="mqtt", marks=pytest.mark.slow),
]


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    make: Callable[[], Program] = request.param
    program = make()
    try:
        certificates.write(program.folder)
        if program.user is not None:
            for name in ("certificate.pem", "key.pem"):
                os.chown(program.folder / name, pwd.getpwnam(program.user).pw_uid, -1)
        program.start()
        yield program
    finally:
        program.close()


@pytest.mark.parametrize(("program", "feed", "given"), KINDS, indirect=["program"])
async def test_a_certificate_is_trusted_or_not(
    program: Program, feed: Feed, given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = feed.parse({**given, "url": given["url"].format(program.port)}, 0)
    monkeypatch.setenv("SSL_CERT_FILE", str(program.folder / "certificate.pem"))
    watch = Watched(await feed.check(asks, Near()))
    is_live: list[None] = []
    monkeypatch.setattr(watch, "live", lambda **_: (is_live.append(None), watch._changed.set()))
    await watch.run(feed.open(asks, Near()), lambda _: bool(is_live))
    certificates.write(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with pytest.raises(FeedRefused, match=UNTRUSTED):
        await feed.check(asks, Near())
    with pytest.raises(SourceLost, match=UNTRUSTED) as lost:
        await watch.run(feed.open(asks, Near()), lambda _: False)
    assert "s3cret" not in str(lost.value)
