"""Every setting: one frozen tree, read once at start.

Read from `visp.toml`, then `VISP_*` variables, then flags; tables nest with two underscores (`[limits]
invocations_per_minute` is `VISP_LIMITS__INVOCATIONS_PER_MINUTE`). Each leaf has a default, a unit in its name or
description, and a sentence; `docs/settings.md` lists them all, and a test compares.
"""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from visp.errors import VispError

if TYPE_CHECKING:
    from collections.abc import Mapping

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]


class Queue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[queue]`: what may be under way at once on this server."""

    activations: Annotated[
        Positive, Meta(description="activations in flight (waiting and running); one more is refused with 503")
    ] = 200_000
    payload_bytes: Annotated[
        Positive, Meta(description="bytes of arguments held for them; more is refused with 503")
    ] = 1 << 30
    delayed: Annotated[
        Positive,
        Meta(description="accepted activations and fires of a namespace that are not due yet; one more is 429"),
    ] = 10_000
    dead_letters: Annotated[
        Positive, Meta(description="dead letters kept for a namespace; the oldest goes when there is one more")
    ] = 10_000
    idempotency_keys: Annotated[
        Positive, Meta(description="idempotency keys of a namespace that are remembered for a day; one more is 429")
    ] = 1_000_000


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[limits]`: what a namespace may do unless an operator set its own; OpenWhisk's names."""

    invocations_per_minute: Annotated[Count, Meta(description="action invocations a minute; more is 429")] = 6_000_000
    fires_per_minute: Annotated[Count, Meta(description="trigger fires a minute; more is 429")] = 6_000_000
    concurrent_invocations: Annotated[Count, Meta(description="activations in flight; more is 429")] = 100_000
    concurrency: Annotated[
        int,
        Meta(
            ge=1,
            le=500,
            description="runs at once in one container that an action may ask for (nodejs, python)",
        ),
    ] = 1
    blocking_wait_ms: Annotated[
        Positive, Meta(description="longest wait of a blocking invocation before it falls back to 202")
    ] = 60_000


class Pool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[pool]`: the containers of this server."""

    memory_mb: Annotated[
        Count, Meta(description="memory for containers, by their actions' limits; 0 takes half of the machine's")
    ] = 0
    pause_grace_s: Annotated[Seconds, Meta(description="a container idle for this long is paused")] = 10.0
    idle_s: Annotated[Seconds, Meta(description="a container idle for this long is removed at the latest")] = 3600.0
    keep_alive: Annotated[
        Literal["greedy-dual", "timeout", "lru"],
        Meta(description="which idle containers stay: by use and cost of a start, a fixed time, or the latest used"),
    ] = "greedy-dual"
    starts_at_once: Annotated[
        Count, Meta(description="container starts under way at once; 0 takes the number of cores")
    ] = 0
    stem_cells: Annotated[
        Count,
        Meta(description="warm containers without code kept for each kind that the manifest gives stem cells; 0: none"),
    ] = 2
    stem_cells_most: Annotated[
        Count, Meta(description="at most so many of each kind and memory while cold starts ask for more")
    ] = 8
    provisioned_share: Annotated[
        float,
        Meta(ge=0, le=1, description="part of the memory that containers may hold for actions with `provision`"),
    ] = 0.5
    start_timeout_s: Annotated[
        Seconds, Meta(description="a container whose launcher is not up by then has failed to start")
    ] = 15.0


class Container(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[container]`: what one local container may use besides its memory."""

    processes: Annotated[
        Positive,
        Meta(description="processes and threads; at most 1024 with a memory cgroup, else 64 is the safe bound"),
    ] = 1024
    processes_without_cgroup: Annotated[
        Positive, Meta(description="the same where no memory cgroup can be written")
    ] = 64
    open_files: Annotated[Positive, Meta(description="open descriptors of each process")] = 1024
    file_bytes: Annotated[Positive, Meta(description="size of one file, and of /tmp, in bytes")] = 64 * 1024 * 1024
    blanks: Annotated[
        Count, Meta(description="blank cells kept ready for each kind that has a template; demand raises it; 0: none")
    ] = 4
    blanks_limit: Annotated[Positive, Meta(description="blank cells kept ready at most for each kind")] = 32
    import_templates: Annotated[
        Count, Meta(description="templates that have loaded what single actions import, besides the common ones")
    ] = 4
    zygotes: Annotated[
        Count, Meta(description="programs that stand still so that containers are copies of them, at once; 0: none")
    ] = 4
    cells_dir: Annotated[
        str, Meta(description="folder for launchers, code and run folders; empty: chosen by uid (docs/operations.md)")
    ] = ""


class Runtimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[runtimes]`: what `visp runtime install` installs."""

    folder: Annotated[
        str, Meta(description="folder of installed runtimes, which every container sees; empty: chosen by uid")
    ] = ""


class Build(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[build]`: compiling code, and resolving what it depends on."""

    timeout_s: Annotated[Seconds, Meta(description="a build that is not done by then has failed")] = 300.0
    memory_mb: Annotated[Positive, Meta(description="memory of a build, with what it writes")] = 2048
    scratch_bytes: Annotated[Positive, Meta(description="what a build may write, in bytes")] = 1 << 30
    files: Annotated[Positive, Meta(description="files and folders of what a build makes")] = 60_000
    bytes: Annotated[Positive, Meta(description="size of what a build makes, in bytes")] = 512 * 1024 * 1024
    at_once: Annotated[
        Positive, Meta(description="builds under way at once; others wait, and namespaces take turns")
    ] = 1
    waiting: Annotated[
        Positive,
        Meta(description="builds of a namespace under way or waiting at once; one more with `?build=wait` is 429"),
    ] = 16
    from_source: Annotated[
        bool, Meta(description="builds Python packages that have no wheel: their authors' code then runs in the build")
    ] = False
    environment: Annotated[
        str,
        Meta(
            description="variables of every build, as `NAME=value` with blanks between: registries, mirrors and their "
            "keys, which any action's author can read",
            extra={"is_secret": True},
        ),
    ] = ""


class Docker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[docker]`: containers of images, by a container engine on this machine."""

    mode: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="images run where an engine answers (auto), must (on), or do not run (off)"),
    ] = "auto"
    host: Annotated[
        str, Meta(description="URL of the engine; empty: DOCKER_HOST, else unix:///var/run/docker.sock")
    ] = ""
    runtime: Annotated[
        str, Meta(description="the engine's runtime for containers, such as runsc; empty: its default")
    ] = ""
    hardened: Annotated[
        bool,
        Meta(description="images run read-only as uid 65534, without any capability; those that need more do not run"),
    ] = False
    layer_bytes: Annotated[
        Count,
        Meta(description="what a container may write, in bytes, where the engine's storage can bound it; 0: no bound"),
    ] = 1 << 30
    environment: Annotated[str, Meta(description="further variables of every image: `NAME=value NAME=value`")] = ""
    extra_args: Annotated[
        str,
        Meta(description="further arguments of `docker run`, of a safe list: `ulimit=nofile=2048 shm-size=64m`"),
    ] = ""
    starts_at_once: Annotated[Positive, Meta(description="containers of images started at once; others wait")] = 8
    start_timeout_s: Annotated[Seconds, Meta(description="a container that the engine has not started by then")] = 60.0
    pull_timeout_s: Annotated[Seconds, Meta(description="an image that is not pulled by then")] = 600.0
    runtimes_registry: Annotated[str, Meta(description="registry of the manifest's images that name none")] = ""
    user_images_registry: Annotated[str, Meta(description="registry of users' images that name none")] = ""
    bypass_pull_for_local_images: Annotated[
        bool, Meta(description="images whose prefix is local_image_prefix are never pulled")
    ] = False
    local_image_prefix: Annotated[str, Meta(description="prefix of images that were made on this machine")] = ""


class Ledger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ledger]`: the log of accepted work and records."""

    durability: Annotated[
        Literal["power", "process"],
        Meta(
            description="accepted work is acknowledged after a sync (power: survives a power cut) "
            "or after a write (process: survives kill -9)"
        ),
    ] = "power"
    segment_bytes: Annotated[Positive, Meta(description="size of one segment file")] = 64 * 1024 * 1024
    unindexed_records: Annotated[
        Positive, Meta(description="records held in memory until they are indexed; beyond it new work is refused")
    ] = 50_000
    unindexed_bytes: Annotated[Positive, Meta(description="bytes of such records")] = 256 * 1024 * 1024


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[retention]`: how long activation records are kept."""

    days: Annotated[
        float,
        Meta(
            description="records that started more than this many days ago are removed, but for namespaces with a "
            "limit `retentionDays`; 0 keeps them whatever their age"
        ),
    ] = 7.0
    bytes: Annotated[
        Count,
        Meta(description="records are removed, oldest first, beyond this size of the index in bytes; 0 for no bound"),
    ] = 10 << 30
    every_s: Annotated[Seconds, Meta(description="seconds between two sweeps")] = 60.0


class Waits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[waits]`: those who wait for records (`?wait=`) and follow them (server-sent events)."""

    at_once: Annotated[
        Positive,
        Meta(description="requests that may wait for a record or follow records; one more is refused with 503"),
    ] = 10_000
    longest_s: Annotated[
        Seconds, Meta(description="longest wait of a request with `wait`; one that asks for more waits this long")
    ] = 60.0
    stream_s: Annotated[
        Seconds, Meta(description="a stream of events ends after this long; its reader comes again")
    ] = 3600.0
    stream_records: Annotated[
        Positive, Meta(description="records that wait for a slow reader of a stream; further ones are counted as lost")
    ] = 1000
    heartbeat_s: Annotated[
        float, Meta(gt=0, description="a stream on which nothing happens carries a comment this often")
    ] = 15.0


class Hooks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[hooks]`: calls of completion web hooks, and of whatever else users name an address of."""

    reach: Annotated[
        Literal["internet", "any"],
        Meta(description="addresses that may be called: those of the internet, or private ones and this machine's too"),
    ] = "internet"
    timeout_s: Annotated[float, Meta(gt=0, description="a call that is not answered by then has failed")] = 10.0
    give_up_s: Annotated[Seconds, Meta(description="a call that keeps failing is tried for this long")] = 86_400.0
    at_once: Annotated[Positive, Meta(description="calls of a namespace under way at once")] = 8
    waiting: Annotated[
        Positive, Meta(description="calls of a namespace that wait; a further one is dropped, and counted")
    ] = 10_000


class Gateway(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway]`: calls of APIs."""

    domains: Annotated[
        str,
        Meta(
            description="domains that namespaces may give to their APIs: `shop.example.com alice; api.example.org bob`"
        ),
    ] = ""
    app_id_url: Annotated[
        str,
        Meta(
            description="where keys of App ID are, the provider of tokens `app-id` (before `/<tenant>/publickeys`); "
            "empty: that provider lets nobody in"
        ),
    ] = ""
    mock_tokens: Annotated[
        bool, Meta(description="lets the provider of tokens `mock` take the token `test`; for tests alone")
    ] = False


class Feeds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[feeds]`: sources of events outside."""

    reach: Annotated[
        Literal["auto", "internet", "any"],
        Meta(
            description="addresses that sources may be at: those of the internet, or private ones and this machine's "
            "too; auto: the latter while visp itself listens on loopback alone"
        ),
    ] = "auto"
    roots: Annotated[
        str, Meta(description="folders whose files may be watched by everybody, with colons between; empty: none")
    ] = ""
    more: Annotated[
        str,
        Meta(description="feeds of your own: `package/feed=module:Class`, with semicolons between"),
    ] = ""
    whole_minutes: Annotated[
        bool, Meta(description="patterns of alarms have whole minutes alone: a sixth field for seconds is 0 or refused")
    ] = False
    delay_limit_s: Annotated[
        int,
        Meta(
            ge=0,
            le=59,
            description="alarms by patterns of five fields fire up to so many seconds later, each at a second of its "
            "own that stays the same; those with `strict` do not",
        ),
    ] = 0


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[network]`: what actions reach beside the platform's own API."""

    relays: Annotated[
        str,
        Meta(
            description="ports of a container's loopback address that lead to a service, and namespaces that may use "
            "them: `6379=127.0.0.1:6379 guest; 5432=db.example:5432 alice bob`"
        ),
    ] = ""
    policy: Annotated[
        str,
        Meta(
            description="what namespaces reach that have no policy of their own (limit `network`): `internet`, `none`, "
            "or a list like `api.example.com:443 *.example.org 198.51.100.0/24`"
        ),
    ] = "internet"
    openings: Annotated[
        str,
        Meta(
            description="private addresses and networks that some namespaces may reach: `10.1.0.0/16 alice; "
            "192.168.1.5:5432 guest bob`"
        ),
    ] = ""
    packets: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="whether containers send packets of their own, where this server is root and may filter them; "
            "else the proxy is their only way; on: even beside a firewall that drops what it does not know"
        ),
    ] = "auto"
    connections: Annotated[
        Positive, Meta(description="connections that lead out of one container at once, through the proxy")
    ] = 64
    all_connections: Annotated[Positive, Meta(description="and of all containers together")] = 4096
    idle_s: Annotated[Seconds, Meta(description="after so long without a byte such a connection ends, in seconds")] = (
        300.0
    )


class Catalog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[catalog]`: the packages of `whisk.system`."""

    packages: Annotated[
        str,
        Meta(
            description="shipped packages that are kept in `whisk.system`, with blanks between: `utils alarms`; all; "
            "empty: none. Those that are there already stay"
        ),
    ] = "all"


class Operator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[operator]`: who may disable this server by a request; nobody, unless both are set."""

    user: Annotated[str, Meta(description="name that `POST /disable` takes")] = ""
    password: Annotated[str, Meta(description="and its password", extra={"is_secret": True})] = ""


class ParameterStorage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[parameter_storage]`: whether parameters of actions and packages are kept encrypted; OpenWhisk's names."""

    current: Annotated[
        Literal["off", "noop", "aes-128", "aes-256"],
        Meta(description="how values are locked when they are written; off and noop: not at all"),
    ] = "off"
    aes_128: Annotated[
        str,
        Meta(
            description="base64 of a 16-byte key; after a comma older ones, which only unlock",
            extra={"is_secret": True},
        ),
    ] = ""
    aes_256: Annotated[
        str, Meta(description="the same for aes-256, whose keys have 32 bytes", extra={"is_secret": True})
    ] = ""


class Http(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[http]`: bounds of the front door, checked before anything is parsed."""

    head_timeout_s: Annotated[Seconds, Meta(description="a request whose head is not complete by then is closed")] = (
        10.0
    )
    body_timeout_s: Annotated[Seconds, Meta(description="a request whose body is not complete by then is closed")] = (
        60.0
    )
    send_timeout_s: Annotated[
        Seconds, Meta(description="a client that takes nothing of an answer for this long is cut off")
    ] = 60.0
    keep_alive_s: Annotated[Seconds, Meta(description="an idle connection is closed after this long")] = 75.0
    connections: Annotated[Positive, Meta(description="open connections; one more is closed at once")] = 20_000
    body_bytes: Annotated[Positive, Meta(description="largest request body, in bytes")] = 50 * 1024 * 1024
    trusted_proxies: Annotated[
        str,
        Meta(
            description="addresses and networks of proxies, with blanks between, whose X-Forwarded-For, -Proto and "
            "-Host are believed"
        ),
    ] = ""
    domain: Annotated[
        str,
        Meta(description="domain below which each namespace has a host of its own for its web actions; empty: none"),
    ] = ""
    compress_bytes: Annotated[
        Count,
        Meta(description="answers of a textual type of this size are compressed for clients that read gzip; 0: none"),
    ] = 1024
    server_timing: Annotated[
        Literal["off", "asked", "always"],
        Meta(
            description="whether answers of activations say by Server-Timing where their time went: to who asks with a "
            "key and X-OW-Server-Timing: on (asked), or to all"
        ),
    ] = "asked"
    bodies_bytes: Annotated[
        Positive, Meta(description="bytes of request bodies held while they are received; more is refused with 503")
    ] = 1 << 30
    shutdown_s: Annotated[
        Seconds, Meta(description="how long SIGTERM lets running requests and activations finish")
    ] = 10.0


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tls]`: whether the port speaks https."""

    certificate: Annotated[
        str, Meta(description="file with the certificate and its chain (PEM); empty: the port speaks plain http")
    ] = ""
    key: Annotated[
        str, Meta(description="file with the certificate's key (PEM, no passphrase, not open to others)")
    ] = ""
    certificates: Annotated[
        str,
        Meta(
            description="folder with certificates of further domains, each `<domain>.crt` with its key `<domain>.key`; "
            "empty: none"
        ),
    ] = ""
    http2: Annotated[bool, Meta(description="whether clients may choose HTTP/2 when hands are shaken (ALPN)")] = True
    redirect_port: Annotated[
        int, Meta(ge=0, le=65535, description="port for plain http, all of which is sent to https (308); 0: none")
    ] = 0


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The root; its own leaves stand at the top of `visp.toml`."""

    host: Annotated[
        str, Meta(description="address to listen on; on anything but loopback the well-known guest key does not exist")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 lets the system choose")] = 3233
    data_dir: Annotated[
        str, Meta(description="folder of everything that is kept; empty: the platform's data folder of this user")
    ] = ""
    workers: Annotated[
        int,
        Meta(ge=1, le=64, description="shards: processes that share the port, the memory for containers and the work"),
    ] = 1
    driver: Annotated[
        str,
        Meta(
            description="container driver: auto, fork, bwrap, nsjail, landlock, runsc, docker, process (needs "
            "trust_all_code), or module:Class"
        ),
    ] = "auto"
    trust_all_code: Annotated[
        bool, Meta(description="allows the driver that isolates nothing; only where every action's author is trusted")
    ] = False
    allow_weak_sandbox: Annotated[
        bool, Meta(description="lets driver landlock serve more than one namespace, though it walls off less")
    ] = False
    manifest: Annotated[
        str,
        Meta(
            description="runtimes manifest (JSON file in OpenWhisk's format with `local` parts); empty: the shipped one"
        ),
    ] = ""
    secret_file: Annotated[
        str, Meta(description="file with the secret that seals keys; empty: `secret` in the data folder")
    ] = ""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least level that is logged")
    ] = "info"
    queue: Queue = Queue()
    limits: Limits = Limits()
    pool: Pool = Pool()
    container: Container = Container()
    runtimes: Runtimes = Runtimes()
    build: Build = Build()
    docker: Docker = Docker()
    ledger: Ledger = Ledger()
    retention: Retention = Retention()
    waits: Waits = Waits()
    hooks: Hooks = Hooks()
    gateway: Gateway = Gateway()
    feeds: Feeds = Feeds()
    network: Network = Network()
    catalog: Catalog = Catalog()
    operator: Operator = Operator()
    parameter_storage: ParameterStorage = ParameterStorage()
    http: Http = Http()
    tls: Tls = Tls()


ROOT_RUNTIMES = "/var/lib/visp-runtimes"


def runtimes_folder(settings: Settings) -> Path:
    """Where runtimes are installed: the same for every server of this user."""
    if settings.runtimes.folder:
        return Path(settings.runtimes.folder)
    if os.geteuid() == 0:
        return Path(ROOT_RUNTIMES)
    return default_data_dir() / "runtimes"


def runtimes_fault(folder: Path) -> str | None:
    """Why a server of root's may not use a folder of runtimes, which it runs programs from, or its containers cannot.

    None where it may, or the folder is not there.
    """
    if os.geteuid() != 0:
        return None
    mend = "name another folder by [runtimes] folder"
    for path in (folder, *folder.parents):
        try:
            found = path.stat()
        except OSError:
            continue
        if found.st_uid != 0:
            return f"{folder} holds programs that root would run, and {path} does not belong to root: {mend}"
        if found.st_mode & 0o022 and not (path != folder and found.st_mode & stat.S_ISVTX):
            return f"{folder} holds programs that root would run, and others can write to {path}: chmod go-w {path}"
        if not found.st_mode & 0o001:
            return f"containers cannot reach {folder}, for {path} is closed to others: {mend}"
    return None


class SettingsError(VispError):
    """A setting that cannot be; the text names it, where it came from, and what would do."""


class Leaf(msgspec.Struct, frozen=True):
    """One setting as documentation and `visp config show` see it."""

    path: tuple[str, ...]
    sentence: str
    default: Any
    is_secret: bool = False

    @property
    def toml_name(self) -> str:
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        return "VISP_" + "__".join(part.upper() for part in self.path)


def leaves() -> list[Leaf]:
    """Every setting, in the order of the tree."""
    return _leaves(Settings, Settings(), ())


def _leaves(kind: type[Any], defaults: Any, path: tuple[str, ...]) -> list[Leaf]:
    out: list[Leaf] = []
    for field in msgspec.structs.fields(kind):
        default = getattr(defaults, field.name)
        if isinstance(default, msgspec.Struct):
            out += _leaves(type(default), default, (*path, field.name))
        else:
            metadata = field.type.__metadata__
            sentence = next((m.description or "" for m in metadata if m.description), "")
            is_secret = any((m.extra or {}).get("is_secret", False) for m in metadata)
            out.append(Leaf((*path, field.name), sentence, default, is_secret))
    return out


class Loaded(msgspec.Struct, frozen=True):
    """The settings in force, and for each leaf that is not its default, where it came from."""

    settings: Settings
    origins: dict[tuple[str, ...], str]


def load(
    *, config: Path | None = None, environ: Mapping[str, str] = os.environ, flags: Mapping[str, Any] | None = None
) -> Loaded:
    """Reads file, variables and flags, later over earlier. `flags` maps dotted names (`ledger.durability`) to values.

    `config` None takes `VISP_CONFIG`, else `visp.toml` in the working directory if it is there. Raises `SettingsError`.
    """
    tree: dict[str, Any] = {}
    origins: dict[tuple[str, ...], str] = {}
    known = {leaf.path: leaf for leaf in leaves()}
    file = config or (Path(environ["VISP_CONFIG"]) if environ.get("VISP_CONFIG") else None)
    if file is None and Path("visp.toml").is_file():
        file = Path("visp.toml")
    if file is not None:
        for path, value in _flatten(_read_toml(file)):
            _set(tree, origins, known, path, value, str(file))
    by_variable = {leaf.variable: leaf.path for leaf in known.values()}
    for variable, text in environ.items():
        if variable in by_variable:
            _set(tree, origins, known, by_variable[variable], text, variable)
        elif variable.startswith("VISP_") and "__" in variable:
            raise SettingsError(f"{variable} is no setting; `visp config show` lists them all")
    for name, value in (flags or {}).items():
        if value is not None:
            _set(tree, origins, known, tuple(name.split(".")), value, "--" + name.split(".")[-1].replace("_", "-"))
    try:
        return Loaded(msgspec.convert(tree, Settings, strict=False), origins)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is no TOML: {error}") from None


def _flatten(table: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    out: list[tuple[tuple[str, ...], Any]] = []
    for key, value in table.items():
        out += _flatten(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]
    return out


def _set(
    tree: dict[str, Any],
    origins: dict[tuple[str, ...], str],
    known: dict[tuple[str, ...], Leaf],
    path: tuple[str, ...],
    value: Any,
    origin: str,
) -> None:
    if path not in known:
        raise SettingsError(f"{'.'.join(path)} in {origin} is no setting; `visp config show` lists them all")
    branch = tree
    for part in path[:-1]:
        branch = branch.setdefault(part, {})
    branch[path[-1]] = value
    origins[path] = origin


def _explain(error: msgspec.ValidationError, origins: dict[tuple[str, ...], str]) -> str:
    text, _, where = str(error).partition(" - at `$.")
    path = tuple(where.rstrip("`").split("."))
    return f"setting {'.'.join(path)} (from {origins.get(path, 'its default')}): {text}"


def default_data_dir() -> Path:
    """Where a server keeps everything unless told otherwise: `/var/lib/visp` for root, else the user's data folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/visp")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "visp"
