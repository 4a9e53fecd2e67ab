"""Servers of tests: a program on a free port of this machine, that can be stopped and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests import certificates
from tests.ports import free_port
from tests.servers.fetched import kafka_classes, nats_server

START_S = 120.0
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class Program:
    """One server with a folder of its own; `command` is made anew for each start."""

    def __init__(self, name: str, *, user: str | None = None) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"visp-{name}-"))
        self.user = user if os.getuid() == 0 else None
        if self.user is not None:
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def call(self, *command: str) -> None:
        done = subprocess.run(command, user=self.user, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr or done.stdout

    def start(self) -> None:
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                self.command(),
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                user=self.user,
                env=os.environ | self.environment(),
            )
        end = time.monotonic() + START_S
        while not self.is_up():
            said = (self.folder / "output").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.05)

    def is_up(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """By SIGKILL: servers must not need a farewell either."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Kafka(Program):
    """`port` is open to all, `sasl_port` speaks TLS and asks who it is."""

    def __init__(self) -> None:
        self._classes = kafka_classes()
        super().__init__("kafka")
        self.sasl_port = free_port()
        certificates.write(self.folder)
        pem = (self.folder / "key.pem").read_text() + (self.folder / "certificate.pem").read_text()
        (self.folder / "both.pem").write_text(pem)
        jaas = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_visp="s3cret";'
        controller = free_port()
        (self.folder / "server.properties").write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=OPEN://127.0.0.1:{self.port},CLOSED://127.0.0.1:{self.sasl_port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=OPEN://localhost:{self.port},CLOSED://localhost:{self.sasl_port}
listener.security.protocol.map=OPEN:PLAINTEXT,CLOSED:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=OPEN
controller.listener.names=CONTROLLER
listener.name.closed.sasl.enabled.mechanisms=PLAIN
listener.name.closed.plain.sasl.jaas.config={jaas}
listener.name.closed.ssl.keystore.type=PEM
listener.name.closed.ssl.keystore.location={self.folder}/both.pem
log.dirs={self.folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=false
message.max.bytes=4000000
group.initial.rebalance.delay.ms=0
"""
        )
        self._java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", "server.properties")

    def command(self) -> Sequence[str]:
        return ["java", "-Xmx256m", "-cp", self._classes, "kafka.Kafka", str(self.folder / "server.properties")]

    def _java(self, *words: str) -> None:
        self.call("java", "-Xmx128m", "-cp", self._classes, *words)


class Nats(Program):
    def __init__(self) -> None:
        self._program = nats_server()
        super().__init__("nats")

    def command(self) -> Sequence[str]:
        return [self._program, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "js"),
                "--user", "visp", "--pass", "s3cret"]  # fmt: skip


class Postgres(Program):
    def __init__(self) -> None:
        if not BINARIES:
            pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
        users = {entry.pw_name for entry in pwd.getpwall()}
        super().__init__("postgres", user="postgres" if "postgres" in users else "nobody")
        (self.folder / "password").write_text("s3cret")
        (self.folder / "password").chmod(0o644)
        self.call(str(BINARIES[-1] / "initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "-A",
                  "scram-sha-256", f"--pwfile={self.folder}/password", "-E", "UTF8", "--no-sync")  # fmt: skip

    def command(self) -> Sequence[str]:
        return [str(BINARIES[-1] / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), "-h",
                "127.0.0.1", "-k", "", "-c", "wal_level=logical"]  # fmt: skip

    def is_up(self) -> bool:
        asked = [str(BINARIES[-1] / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return super().is_up() and subprocess.run(asked, check=False).returncode == 0


class Redis(Program):
    def __init__(self) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed: apt-get install redis-server")
        super().__init__("redis")

    def command(self) -> Sequence[str]:
        return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--appendonly", "yes",
                "--appendfsync", "always", "--requirepass", "s3cret"]  # fmt: skip
