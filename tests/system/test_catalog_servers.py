"""Actions of the catalog against the servers that they are for."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.servers.fetched import nats_server
from tests.system.conftest import Api, has_sandbox
from tests.system.traces import until
from tests.unit.catalog.conftest import run as run

from visp.client import running

pytestmark = pytest.mark.all

NOBODY = 65534


def program(*names: str, package: str) -> str:
    """The first of these that is there; else the test is skipped."""
    for name in names:
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        if found is None and name.startswith("/"):
            found = max(map(str, Path("/").glob(name[1:])), default=None)
        if found is not None:
            return found
    pytest.skip(f"{names[-1].rpartition('/')[2]} is not installed: {package}")


@contextmanager
def serving(argv: list[str], port: int, folder: Path) -> Iterator[None]:
    """A server for the block, as a normal user; it is there when it takes connections."""
    user = NOBODY if os.geteuid() == 0 else None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, stdout=log, stderr=log, cwd=folder, user=user, extra_groups=None if user is None else []
        )
    try:
        until(lambda: takes_connections(port), what=lambda: (folder / "log").read_text())
        yield
    finally:
        process.terminate()
        process.wait(10)


def takes_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the servers' user may write."""
    with tempfile.TemporaryDirectory(prefix="visp-") as folder:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


@pytest.fixture
def redis(place: Path) -> Iterator[int]:
    port = free_port()
    argv = [program("redis-server", package="apt-get install redis-server"), "--port", str(port), "--save", ""]
    with serving([*argv, "--requirepass", "secret"], port, place):
        yield port


def test_redis(run, redis: int) -> None:
    url = f"redis://:secret@127.0.0.1:{redis}/1"
    assert run("redis/command", {"url": url, "command": "SET", "args": ["a b", {"v": 1}]}) == {"result": "OK"}
    assert run("redis/command", {"url": url, "command": "GET", "args": ["a b"]}) == {"result": '{"v": 1}'}
    assert run("redis/command", {"url": url, "command": "RPUSH l a b"}) == {"result": 2}
    assert run("redis/command", {"url": url, "command": "LRANGE l 0 -1"}) == {"result": ["a", "b"]}
    assert "WRONGTYPE" in run("redis/command", {"url": url, "command": "INCR", "args": ["l"]})["error"]
    wrong = url.replace("secret", "other")
    assert "WRONGPASS" in run("redis/command", {"url": wrong, "command": "PING"})["error"]


def test_redis_from_a_container(redis: int) -> None:
    """By a relay of the operator's, which is how an action reaches this machine."""
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    settings = {"catalog.packages": "redis", "network.relays": f"6379=127.0.0.1:{redis} guest"}
    with running.running(settings) as server:
        api = Api(server.url)
        until(lambda: api.get("/api/v1/namespaces/whisk.system/packages").json)
        args = {"url": "redis://:secret@127.0.0.1:6379", "command": "ECHO", "args": ["hi"]}
        answer = api.request(
            "POST", "/api/v1/namespaces/whisk.system/actions/redis/command?blocking=true&result=true", args
        )
        assert answer.json == {"result": "hi"}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_mqtt(run, place: Path, qos: int) -> None:
    port = free_port()
    told = place / "mosquitto.conf"
    told.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    with ExitStack() as stack:
        broker = program("mosquitto", package="apt-get install mosquitto")
        stack.enter_context(serving([broker, "-c", str(told)], port, place))
        args = {"url": f"mqtt://127.0.0.1:{port}", "topic": "a/b", "payload": {"v": 1}, "qos": qos, "retain": True}
        assert run("mqtt/publish", args)["qos"] == qos
        with socket.create_connection(("127.0.0.1", port), timeout=10) as reader:  # who comes later gets what is kept
            reader.sendall(b"\x10\x0c\0\4MQTT\4\2\0\x3c\0\0" + b"\x82\x08\0\1\0\3a/b\0")
            got = b""
            while b'{"v": 1}' not in got:
                piece = reader.recv(4096)
                assert piece, got
                got += piece


@pytest.mark.parametrize("method", ["scram-sha-256", "md5", "password"])
def test_postgres(run, place: Path, method: str) -> None:
    bin = Path(program("/usr/lib/postgresql/*/bin/initdb", package="apt-get install postgresql")).parent
    port, user = free_port(), NOBODY if os.geteuid() == 0 else None
    (place / "password").write_text("se cret")
    argv = [str(bin / "initdb"), "-D", str(place / "data"), "-U", "ann", f"--auth-host={method}", "--auth-local=trust"]
    argv += ["--pwfile", str(place / "password"), "-N"]  # it keeps the password as `--auth-host` wants it
    done = subprocess.run(argv, user=user, capture_output=True, text=True, check=False, cwd=place)
    assert done.returncode == 0, done.stderr
    argv = [str(bin / "postgres"), "-D", str(place / "data"), "-p", str(port), "-k", str(place), "-F"]
    with serving([*argv, "-c", "listen_addresses=127.0.0.1"], port, place):
        url = f"postgres://ann:se%20cret@127.0.0.1:{port}/postgres"

        def query(sql: str, *args: object) -> object:
            return run("postgres/query", {"url": url, "sql": sql} | ({"args": list(args)} if args else {}))

        until(lambda: "starting up" not in str(query("SELECT 1")))
        made = query("CREATE TABLE t (a int, b text, c jsonb, d bool, e numeric, f float8)")
        assert made == {"rows": [], "command": "CREATE", "count": 0}
        sql = "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6)"
        assert query(sql, 1, "ü'", {"x": [1]}, True, "1.10", 0.5) == {"rows": [], "command": "INSERT", "count": 1}
        row = {"a": 1, "b": "ü'", "c": {"x": [1]}, "d": True, "e": "1.10", "f": 0.5}
        assert query("SELECT * FROM t WHERE b = $1", "ü'") == {"rows": [row], "command": "SELECT", "count": 1}
        assert query("UPDATE t SET b = $1 WHERE a = $2 RETURNING b", None, 1)["rows"] == [{"b": None}]
        assert query("SELECT 1 AS x; SELECT 2 AS y")["rows"] == [{"y": 2}]
        assert query("SELEKT")["error"].endswith("(42601)")
        assert query("COPY t TO STDOUT")["error"] == "COPY is not possible here"
        wrong = run("postgres/query", {"url": url.replace("se%20cret", "no"), "sql": "SELECT 1"})
        assert wrong["error"].endswith("(28P01)")


def test_nats(run, place: Path) -> None:
    port = free_port()
    nats = shutil.copy(nats_server(), place)  # a normal user's too
    with serving([nats, "-a", "127.0.0.1", "-p", str(port), "--user", "me", "--pass", "secret"], port, place):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as reader:
            reader.sendall(b'CONNECT {"user":"me","pass":"secret","headers":true}\r\nSUB s.> 1\r\nPING\r\n')
            got = b""
            while b"PONG" not in got:
                got += reader.recv(4096)
            args = {"url": f"nats://me:secret@127.0.0.1:{port}", "subject": "s.a", "payload": {"v": 1}}
            assert run("nats/publish", args) == {"subject": "s.a", "bytes": 8}
            assert run("nats/publish", args | {"headers": {"A": "b"}})["bytes"] == 8
            while got.count(b'{"v": 1}\r\n') < 2:
                piece = reader.recv(4096)
                assert piece, got
                got += piece
            assert b"HMSG s.a 1 18 26\r\nNATS/1.0\r\nA: b\r\n\r\n" in got
        error = run("nats/publish", args | {"url": f"nats://127.0.0.1:{port}"})["error"]
        assert "Authorization Violation" in error
