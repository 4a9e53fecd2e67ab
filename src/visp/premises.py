"""What a server stands on: its data folder, its secret, its socket, its manifest, its share of the machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shlex
import socket
import sys
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp.entity.gateway import parse_domains
from visp.entity.locking import KEY_BYTES, Locks, parse_keys
from visp.entity.network import Opening, Policy, is_domain, parse_networks, parse_openings, parse_policy
from visp.entity.relay import Relay, parse_relays
from visp.entity.runtime_manifest import Manifest, parse_manifest
from visp.errors import VispError
from visp.settings import Settings, default_data_dir

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping, Sequence

SECRET_BYTES = 32
ENDING_S = 1.0
LOOK_S = 0.02
RESTORING = ".restoring"
"""A folder in the data folder, for as long as what a restore puts there is not whole."""
FIRST_GIVEN = 3
"""The first descriptor that a service manager gives."""


class CannotStart(VispError):
    """The server cannot serve; the sentence says why and what to do."""


def prepare_data_dir(settings: Settings) -> Path:
    """The data folder, made if need be, for its owner alone; raises `CannotStart`, also for one half restored."""
    path = make_data_dir(settings)
    if (path / RESTORING).exists():
        raise CannotStart(f"a restore into {path} was not finished: run visp admin restore again, with --replace")
    return path


def make_data_dir(settings: Settings) -> Path:
    """The data folder, whatever is in it; raises `CannotStart`."""
    path = Path(settings.data_dir) if settings.data_dir else default_data_dir()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise CannotStart(
            f"the data folder {path} cannot be used: {error.strerror}; name another by --data-dir or VISP_DATA_DIR"
        ) from None
    return path.resolve()


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[int]:
    """The data folder is this server's for the block; raises `CannotStart` when it is another's.

    The descriptor may be inherited: the folder is free when every process that holds it has ended. So what a killed
    server's processes need to end is waited for.
    """
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until_s = time.monotonic() + ENDING_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise CannotStart(
                        f"another server uses {data_dir}: stop it, replace it by --takeover, "
                        "or choose another folder by --data-dir"
                    ) from None
                time.sleep(LOOK_S)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def listening(settings: Settings, *, is_shared: bool = False, setting: str = "--port") -> Iterator[socket.socket]:
    """The bound socket, which others of this server may bind too if it `is_shared`.

    Raises `CannotStart` when the address cannot be had, with the `setting` that chooses another port.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            f"choose another port by {setting}{' (0 lets the system choose)' if setting == '--port' else ''}"
        ) from None
    listener.setblocking(False)
    with listener:
        yield listener


def adopted(descriptor: int) -> socket.socket:
    """A socket that this process was given by its number, from now on its own alone."""
    given = socket.socket(fileno=descriptor)
    given.set_inheritable(False)
    given.setblocking(False)
    return given


def activated(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that a service manager gives (`LISTEN_FDS`), in its order; children are not told of them.

    Raises `CannotStart` for what does not listen, or is no TCP.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    given = []
    for descriptor in range(FIRST_GIVEN, FIRST_GIVEN + int(count)):
        try:
            each = adopted(descriptor)
        except OSError:
            raise _unfit(descriptor) from None
        is_listening = each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and each.type == socket.SOCK_STREAM
        if not is_listening or each.family not in (socket.AF_INET, socket.AF_INET6):
            each.close()
            raise _unfit(descriptor)
        given.append(each)
    return given


def _unfit(descriptor: int) -> CannotStart:
    return CannotStart(f"LISTEN_FDS: descriptor {descriptor} is no TCP socket that listens (ListenStream=)")


def settings_at(settings: Settings, listener: socket.socket) -> Settings:
    """The settings with the address that is listened on, wherever the socket is from: who is let in depends on it."""
    host, port = listener.getsockname()[:2]
    return msgspec.structs.replace(settings, host=host, port=port)


def check_address(settings: Settings, addresses: Sequence[tuple[str, int]]) -> None:
    """Whether the settings name where the running server listens; port 0 and its own host do. Raises `CannotStart`."""
    hosts = {host for host, _ in addresses}
    ports = {port for _, port in addresses}
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        if hosts & {str(entry[4][0]) for entry in found} and settings.port in (0, *ports):
            return
    said = ", ".join(f"{host}:{port}" for host, port in addresses)
    raise CannotStart(
        f"the running server listens on {said}, the settings say {settings.host}:{settings.port}: --takeover keeps the "
        "address; give the same --host and --port, or stop the server first"
    )


def secret_path(settings: Settings, data_dir: Path) -> Path:
    """Where the secret is, or is going to be."""
    return Path(settings.secret_file) if settings.secret_file else data_dir / "secret"


def read_locks(settings: Settings) -> Locks:
    """What parameters are locked with; raises `CannotStart` for a key that is none, or is missing."""
    stored = settings.parameter_storage
    keys = {}
    for scheme, text in (("aes-128", stored.aes_128), ("aes-256", stored.aes_256)):
        try:
            keys[scheme] = parse_keys(text, scheme)
        except ValueError as error:
            name = scheme.replace("-", "_")
            raise CannotStart(f"setting parameter_storage.{name} cannot be used: {error}") from None
    if stored.current in keys and not keys[stored.current]:
        name = stored.current.replace("-", "_")
        raise CannotStart(
            f"parameter_storage.current is {stored.current}, and parameter_storage.{name} has no key: "
            f"make one by `openssl rand -base64 {KEY_BYTES[stored.current]}`"
        )
    return Locks(stored.current, keys)


def read_relays(settings: Settings) -> dict[int, Relay]:
    """What containers may reach beside the platform; raises `CannotStart`."""
    try:
        return parse_relays(settings.network.relays)
    except ValueError as error:
        raise CannotStart(f"setting network.relays cannot be used: {error}") from None


def read_network(settings: Settings) -> tuple[Policy, tuple[Opening, ...]]:
    """What namespaces reach by default, and what is opened to some; raises `CannotStart`."""
    name = "policy"
    try:
        policy = parse_policy(settings.network.policy)
        name = "openings"
        return policy, parse_openings(settings.network.openings)
    except ValueError as error:
        raise CannotStart(f"setting network.{name} cannot be used: {error}") from None


def check_http(settings: Settings) -> None:
    """Whether the front door's settings can be understood; raises `CannotStart`."""
    try:
        parse_networks(settings.http.trusted_proxies)
    except ValueError as error:
        raise CannotStart(f"setting http.trusted_proxies cannot be used: {error}") from None
    if settings.http.domain and not is_domain(settings.http.domain):
        raise CannotStart(f"setting http.domain cannot be used: '{settings.http.domain}' is no domain in lower case")


def read_domains(settings: Settings) -> dict[str, str]:
    """Which namespace has which domain; raises `CannotStart`."""
    try:
        domains = parse_domains(settings.gateway.domains)
    except ValueError as error:
        raise CannotStart(f"setting gateway.domains cannot be used: {error}") from None
    for name in domains:
        if settings.http.domain and name.partition(".")[2] == settings.http.domain:
            raise CannotStart(
                f"setting gateway.domains cannot be used: '{name}' is a namespace's own host (http.domain)"
            )
    return domains


def read_feeds(settings: Settings) -> dict[str, str]:
    """Where feeds of an operator's own are: by name, `module:Class`; raises `CannotStart`."""
    feeds: dict[str, str] = {}
    for entry in filter(None, map(str.strip, settings.feeds.more.split(";"))):
        name, equals, place = (part.strip() for part in entry.partition("="))
        package, slash, feed = name.partition("/")
        if not (equals and slash and package and feed and place.partition(":")[2]):
            raise CannotStart(f"setting feeds.more cannot be used: '{entry}' is not `package/feed=module:Class`")
        feeds[name] = place
    return feeds


def read_packages(settings: Settings) -> tuple[str, ...]:
    """Names of the shipped packages that are to be installed; raises `CannotStart`."""
    asked = settings.catalog.packages.split()
    if not asked:
        return ()
    from visp import catalog

    known = catalog.names()
    if asked == ["all"]:
        return known
    for name in asked:
        if name not in known:
            raise CannotStart(f"setting catalog.packages cannot be used: there are {', '.join(known)}, and no '{name}'")
    return tuple(asked)


def read_build_environment(settings: Settings) -> dict[str, str]:
    """Variables of every build, as the setting has them; raises `CannotStart`."""
    given = {"VISP_FROM_SOURCE": "1"} if settings.build.from_source else {}
    try:
        words = shlex.split(settings.build.environment)
    except ValueError as error:
        raise CannotStart(f"setting build.environment cannot be used: {error}") from None
    for word in words:
        name, equals, value = word.partition("=")
        if not (equals and name.isascii() and name.isidentifier()):  # the word itself may be a secret
            raise CannotStart("setting build.environment cannot be used: it is NAME=value, with blanks between")
        given[name] = value
    return given


def read_secret(settings: Settings, data_dir: Path) -> bytes:
    """The secret that seals keys, made at first start.

    Raises `CannotStart` when its file is unusable or open to others.
    """
    path = secret_path(settings, data_dir)
    try:
        if not path.exists():
            _make_secret(path)
        if path.stat().st_mode & 0o077:
            raise CannotStart(f"the secret file {path} can be read by others: chmod 600 {path}")
        secret = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        raise CannotStart(f"the secret file {path} cannot be used: {error.strerror}") from None
    except ValueError:
        raise CannotStart(f"the secret file {path} does not hold hexadecimal digits") from None
    if len(secret) < SECRET_BYTES:
        raise CannotStart(f"the secret in {path} is shorter than {SECRET_BYTES} bytes")
    return secret


def _make_secret(path: Path) -> None:
    """It appears under its name only when it is whole and on disk: a start that is killed leaves none."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(SECRET_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):  # another server made it meanwhile: its secret counts
        os.link(draft, path)
    draft.unlink()


def read_manifest(settings: Settings) -> Manifest:
    """The runtimes manifest of the settings, or the one that is shipped; raises `CannotStart`."""
    if settings.manifest:
        try:
            return parse_manifest(Path(settings.manifest).read_bytes())
        except OSError as error:
            raise CannotStart(f"the manifest {settings.manifest} cannot be read: {error.strerror}") from None
    return parse_manifest(resources.files("visp.runtime").joinpath("manifest.json").read_bytes())


def memory_budget_mb(settings: Settings) -> int:
    """Memory for containers: the setting, or half of the machine's."""
    if settings.pool.memory_mb:
        return settings.pool.memory_mb
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (2 * 1024 * 1024)


def starts_at_once(settings: Settings) -> int:
    """How many containers may be starting: the setting, or as many as there are cores."""
    return settings.pool.starts_at_once or len(os.sched_getaffinity(0))


def share_of(settings: Settings) -> Settings:
    """What one of the server's shards may use: memory, starts and kept records are divided among them."""
    count = settings.workers
    pool = msgspec.structs.replace(
        settings.pool,
        memory_mb=max(1, memory_budget_mb(settings) // count),
        starts_at_once=max(1, starts_at_once(settings) // count),
        stem_cells=-(-settings.pool.stem_cells // count),
        stem_cells_most=-(-settings.pool.stem_cells_most // count),
    )
    retention = msgspec.structs.replace(settings.retention, bytes=-(-settings.retention.bytes // count))
    return msgspec.structs.replace(settings, pool=pool, retention=retention)


def announce(url: str, data_dir: Path) -> None:
    """Says that the server is ready and where: text on a terminal, else one JSON line."""
    if sys.stdout.isatty():
        print(f"visp is ready at {url} (data in {data_dir}; Ctrl-C stops it)", flush=True)
    else:
        line = {"url": url, "data_dir": str(data_dir), "pid": os.getpid()}
        print(msgspec.json.encode(line).decode(), flush=True)


def url_of(listener: socket.socket, settings: Settings) -> str:
    """The base URL of what listens there."""
    host, port = listener.getsockname()[:2]
    return f"{'https' if settings.tls.certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
