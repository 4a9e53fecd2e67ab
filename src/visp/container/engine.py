"""Where a container engine is, and what it is asked for when it makes a container of an image.

Source: the limits that OpenWhisk's invoker gives to `docker run`. Everything here is an operator's or ours; of a user
there is the image's name alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from visp.container.view import Scratch
from visp.entity.relay import DOOR_NAME
from visp.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.container.base import ContainerSpec
    from visp.settings import Settings

UNIX = "unix://"
DEFAULT_HOST = "unix:///var/run/docker.sock"
MIB = 1024 * 1024
PORT = 8080
INSTANCE = "visp.instance"
"""A label: whose containers these are."""
NO_NETWORK = "none"
HOSTNAME = "action"
LEAST_SHARES = 2

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
"""What root inside keeps: official images run as root, unpack archives with other owners, write where their image gave
folders to another user, and step down to one. All else is dropped, and nothing can be gained."""
NOBODY = "65534:65534"
HARDENED_PROCESSES = 64
HARDENED_TMP = Scratch("/tmp", 64 * MIB)


def host_of(settings: Settings) -> str:
    """The engine's URL."""
    return settings.docker.host or os.environ.get("DOCKER_HOST", "") or DEFAULT_HOST


def may_answer(settings: Settings) -> bool:
    """Whether there is something that could be an engine: else nothing of this need be tried."""
    host = host_of(settings)
    return not host.startswith(UNIX) or os.path.exists(host.removeprefix(UNIX))


def creation(
    spec: ContainerSpec, settings: Settings, labels: dict[str, str], network: str, profile: str | None, *, sizes: bool
) -> dict[str, Any]:
    """The body of the engine's `POST /containers/create`.

    `profile` is a seccomp profile (None: the engine's own); `sizes`: whether the storage can bound the writable layer.
    """
    assert spec.image is not None
    docker, limits = settings.docker, settings.container
    memory_bytes = spec.memory_mb * MIB
    host: dict[str, Any] = {
        "Memory": memory_bytes,
        "MemorySwap": memory_bytes,
        "CpuShares": max(LEAST_SHARES, spec.memory_mb),
        "PidsLimit": HARDENED_PROCESSES if docker.hardened else limits.processes,
        "Ulimits": [_ulimit("nofile", limits.open_files), _ulimit("core", 0)],
        "CapDrop": ["ALL"],
        "CapAdd": [] if docker.hardened else list(CAPABILITIES),
        "SecurityOpt": ["no-new-privileges", *([] if profile is None else [f"seccomp={profile}"])],
        "NetworkMode": network,
        "ExtraHosts": [f"{DOOR_NAME}:127.0.0.1", f"{HOSTNAME}:127.0.0.1"] if network == NO_NETWORK else [],
        "LogConfig": {"Type": "none", "Config": {}},  # what it prints is read from its start, and kept nowhere else
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "RestartPolicy": {"Name": "no"},
        "Privileged": False,
        "ReadonlyRootfs": docker.hardened,
        "Tmpfs": {"/tmp": ",".join((*HARDENED_TMP.bounds, "mode=1777"))} if docker.hardened else {},
    }
    if docker.runtime:
        host["Runtime"] = docker.runtime
    if sizes and docker.layer_bytes:
        host["StorageOpt"] = {"size": str(docker.layer_bytes)}
    body: dict[str, Any] = {
        "Image": spec.image.name,
        "Env": [f"{name}={value}" for name, value in (_environment(docker.environment) | spec.env).items()],
        "Labels": labels,
        "Hostname": HOSTNAME,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    }
    if docker.hardened:
        body["User"] = NOBODY
    for word in parse_extra(docker.extra_args):
        _EXTRA[word.name](body, word.value)
    return body


def _ulimit(name: str, value: int) -> dict[str, Any]:
    return {"Name": name, "Soft": value, "Hard": value}


def _environment(text: str) -> dict[str, str]:
    """`A=b C=d`."""
    return {name: value for name, _, value in (word.partition("=") for word in text.split())}


# ── an operator's further arguments ─────────────────────────────────────────────────────────────────────────────


class Word(msgspec.Struct, frozen=True):
    name: str
    value: str


def parse_extra(text: str) -> list[Word]:
    """`name=value` words, named as for `docker run`; raises `SettingsError` for what is not in the list."""
    words = []
    for part in text.split():
        name, equals, value = part.removeprefix("--").partition("=")
        if name not in _EXTRA or not equals or not value:
            known = ", ".join(sorted(_EXTRA))
            raise SettingsError(f"[docker] extra_args: '{part}' is not name=value with one of {known}")
        words.append(Word(name, value))
        try:
            _EXTRA[name]({"HostConfig": {"Ulimits": []}, "Labels": {}}, value)
        except ValueError:
            raise SettingsError(f"[docker] extra_args: '{value}' cannot be the value of {name}") from None
    return words


def _add_ulimit(body: dict[str, Any], value: str) -> None:
    name, _, numbers = value.partition("=")
    soft, _, hard = numbers.partition(":")
    limits = [limit for limit in body["HostConfig"]["Ulimits"] if limit["Name"] != name]
    body["HostConfig"]["Ulimits"] = [*limits, {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}]


def _add_tmpfs(body: dict[str, Any], value: str) -> None:
    path, _, options = value.partition(":")
    body["HostConfig"].setdefault("Tmpfs", {})[path] = options


def _add_label(body: dict[str, Any], value: str) -> None:
    name, _, text = value.partition("=")
    body["Labels"].setdefault(name, text)


def _append(field: str) -> Callable[[dict[str, Any], str], None]:
    def add(body: dict[str, Any], value: str) -> None:
        body["HostConfig"].setdefault(field, []).append(value)

    return add


def _set(field: str, read: Callable[[str], object]) -> Callable[[dict[str, Any], str], None]:
    def put(body: dict[str, Any], value: str) -> None:
        body["HostConfig"][field] = read(value)

    return put


def _bytes(text: str) -> int:
    units = {"b": 1, "k": 1024, "m": MIB, "g": 1024 * MIB}
    unit = units.get(text[-1:].lower())
    return int(text) if unit is None else int(text[:-1]) * unit


_EXTRA: dict[str, Callable[[dict[str, Any], str], None]] = {
    "cpus": _set("NanoCpus", lambda text: int(float(text) * 1e9)),
    "cpuset-cpus": _set("CpusetCpus", str),
    "dns": _append("Dns"),
    "dns-option": _append("DnsOptions"),
    "dns-search": _append("DnsSearch"),
    "label": _add_label,
    "pids-limit": _set("PidsLimit", int),
    "shm-size": _set("ShmSize", _bytes),
    "tmpfs": _add_tmpfs,
    "ulimit": _add_ulimit,
}
"""Nothing of these opens what is closed."""
