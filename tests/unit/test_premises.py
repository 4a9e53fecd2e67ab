"""What a server stands on: made when it lacks, refused with a sentence when it cannot be used."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from visp import premises
from visp.premises import CannotStart
from visp.settings import Pool, Retention, Settings


def settings(**fields: object) -> Settings:
    return Settings(**fields)  # type: ignore[arg-type]


def test_the_data_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = premises.prepare_data_dir(settings(data_dir=str(tmp_path / "a" / "b")))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match=r"file/data cannot be used: .*--data-dir"):
        premises.prepare_data_dir(settings(data_dir=str(tmp_path / "file" / "data")))


def test_the_secret_is_made_once_and_stays(tmp_path: Path) -> None:
    first = premises.read_secret(settings(), tmp_path)
    assert len(first) == premises.SECRET_BYTES
    assert premises.read_secret(settings(), tmp_path) == first
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("ab" * 32, 0o644, "can be read by others: chmod 600"),
        ("no digits", 0o600, "does not hold hexadecimal digits"),
        ("abcd", 0o600, "shorter than 32 bytes"),
        ("", 0o600, "shorter than 32 bytes"),
    ],
)
def test_a_secret_that_protects_nothing_is_refused(tmp_path: Path, content: str, mode: int, said: str) -> None:
    file = tmp_path / "elsewhere"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(CannotStart, match=said):
        premises.read_secret(settings(secret_file=str(file)), tmp_path)


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=rf"127.0.0.1:{port}: .*--port"), premises.listening(settings(port=port)):
            pass


def test_port_0_lets_the_system_choose() -> None:
    with premises.listening(settings(port=0)) as listener:
        assert listener.getsockname()[1] > 0


def test_the_shipped_manifest_reads_and_a_missing_one_is_named() -> None:
    assert premises.read_manifest(settings()).find("nodejs:20") is not None
    with pytest.raises(CannotStart, match=r"/absent\.json cannot be read"):
        premises.read_manifest(settings(manifest="/absent.json"))


def test_a_data_folder_is_one_server_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(premises, "ENDING_S", 0.0)
    refused = pytest.raises(CannotStart, match=r"another server uses .*--data-dir")
    with premises.locked(tmp_path), refused, premises.locked(tmp_path):
        pass
    with premises.locked(tmp_path):
        pass


def test_a_data_folder_is_free_when_the_last_process_of_a_server_has_ended(tmp_path: Path) -> None:
    with premises.locked(tmp_path) as lock:
        shard = subprocess.Popen(["sleep", "0.2"], pass_fds=(lock,))
    with premises.locked(tmp_path):  # waits for it
        assert shard.poll() is not None or not Path(f"/proc/{shard.pid}/fd/{lock}").exists()
    shard.wait()


def test_a_shared_port_is_had_by_several(tmp_path: Path) -> None:
    with premises.listening(settings(port=0), is_shared=True) as first:
        port = first.getsockname()[1]
        with premises.listening(settings(port=port), is_shared=True) as second:
            assert second.getsockname()[1] == port
        first.listen()
        with pytest.raises(CannotStart), premises.listening(settings(port=port)):
            pass


def test_shards_share_what_the_server_may_use() -> None:
    pool = Pool(memory_mb=1000, starts_at_once=3, stem_cells=3)
    share = premises.share_of(settings(workers=2, pool=pool, retention=Retention(bytes=11)))
    assert (share.pool.memory_mb, share.pool.starts_at_once, share.pool.stem_cells) == (500, 1, 2)
    assert share.retention.bytes == 6
    assert premises.share_of(settings(workers=64, pool=pool, retention=Retention(bytes=0))).retention.bytes == 0
    assert premises.share_of(settings(workers=64, pool=Pool(memory_mb=5))).pool.memory_mb == 1


def environ_of(pid: int | str, count: int | str) -> dict[str, str]:
    return {"LISTEN_PID": str(pid), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": "http", "HOME": "/"}


def test_the_sockets_of_a_service_manager_are_taken_and_children_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        given = listener.dup()
        given.set_inheritable(True)
        monkeypatch.setattr(premises, "FIRST_GIVEN", given.detach())
        environ = environ_of(os.getpid(), 1)
        (taken,) = premises.activated(environ)
        with taken:
            assert taken.getsockname() == listener.getsockname()
            assert not taken.get_inheritable()
            at = premises.settings_at(settings(host="0.0.0.0", port=1), taken)
            assert (at.host, at.port) == listener.getsockname()
        assert environ == {"HOME": "/"}


@pytest.mark.parametrize(("pid", "count"), [("1", "1"), ("", "1"), ("own", ""), ("own", "x")])
def test_sockets_for_another_process_are_not_ours(pid: str, count: str) -> None:
    assert premises.activated(environ_of(os.getpid() if pid == "own" else pid, count)) == []


def test_a_given_socket_that_does_not_listen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for family in (socket.AF_INET, socket.AF_UNIX):
        monkeypatch.setattr(premises, "FIRST_GIVEN", socket.socket(family).detach())
        with pytest.raises(CannotStart, match="no TCP socket that listens"):
            premises.activated(environ_of(os.getpid(), 1))


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 3233), ("localhost", 3233), ("127.0.0.1", 0)])
def test_a_takeover_keeps_the_address(host: str, port: int) -> None:
    premises.check_address(settings(host=host, port=port), [("127.0.0.1", 3233)])


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 3234), ("0.0.0.0", 3233), ("no.such.host.invalid", 3233)])
def test_a_takeover_does_not_move(host: str, port: int) -> None:
    with pytest.raises(CannotStart, match=r"listens on 127\.0\.0\.1:3233, .*give the same --host and --port"):
        premises.check_address(settings(host=host, port=port), [("127.0.0.1", 3233)])
