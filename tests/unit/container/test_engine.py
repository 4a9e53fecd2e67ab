"""What a container engine is asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from visp.container import seccomp
from visp.container.base import ContainerSpec
from visp.container.engine import NO_NETWORK, creation, parse_extra
from visp.entity.images import Pull, Wanted
from visp.settings import Docker, Settings, SettingsError

SPEC = ContainerSpec(
    id="c1",
    argv=(),
    env={"A": "1"},
    memory_mb=256,
    image=Wanted(name="registry/me/it:1", wrote="me/it:1", pull=Pull.TRIED),
)


def asked(network: str = NO_NETWORK, *, sizes: bool = False, **docker: Any) -> dict[str, Any]:
    return creation(SPEC, Settings(docker=Docker(**docker)), {"l": "v"}, network, "{}", sizes=sizes)


def test_limits_of_every_container() -> None:
    body = asked()
    host = body["HostConfig"]
    assert body["Image"] == "registry/me/it:1"
    assert body["Env"] == ["A=1"]
    assert host["Memory"] == host["MemorySwap"] == 256 << 20
    assert host["CapDrop"] == ["ALL"]
    assert not {"NET_RAW", "NET_ADMIN", "SYS_ADMIN", "MKNOD"} & set(host["CapAdd"])
    assert host["SecurityOpt"] == ["no-new-privileges", "seccomp={}"]
    assert (host["NetworkMode"], host["PidsLimit"], host["Privileged"]) == ("none", 1024, False)
    assert "visp.internal:127.0.0.1" in host["ExtraHosts"]
    assert "StorageOpt" not in host
    assert "User" not in body
    assert asked(sizes=True)["HostConfig"]["StorageOpt"] == {"size": str(1 << 30)}


def test_processors_are_shared_by_memory() -> None:
    assert asked()["HostConfig"]["CpuShares"] == 256


def test_hardened() -> None:
    body = asked(hardened=True)
    host = body["HostConfig"]
    assert (body["User"], host["ReadonlyRootfs"], host["CapAdd"], host["PidsLimit"]) == ("65534:65534", True, [], 64)
    assert host["Tmpfs"] == {"/tmp": f"size={64 << 20},nr_inodes={64 << 10},mode=1777"}


def test_an_operators_own() -> None:
    body = asked(
        runtime="runsc",
        environment="B=2 A=never",
        extra_args="--ulimit=nofile=5:6 shm-size=8m cpus=1.5 label=l=other label=m=n tmpfs=/x:size=1m dns=192.0.2.1",
    )
    host = body["HostConfig"]
    assert host["Runtime"] == "runsc"
    assert sorted(body["Env"]) == ["A=1", "B=2"]
    assert {"Name": "nofile", "Soft": 5, "Hard": 6} in host["Ulimits"]
    assert (host["ShmSize"], host["NanoCpus"], host["Tmpfs"], host["Dns"]) == (
        8 << 20,
        1_500_000_000,
        {"/x": "size=1m"},
        ["192.0.2.1"],
    )
    assert body["Labels"] == {"l": "v", "m": "n"}


@pytest.mark.parametrize(
    "text", ["privileged=true", "cap-add=ALL", "volume=/:/host", "ulimit", "cpus=many", "pid=host"]
)
def test_what_opens_something_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="extra_args"):
        parse_extra(text)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_for_engines_refuses_what_the_sandboxs_does(machine: str) -> None:
    profile = json.loads(seccomp.profile(machine))
    rules = [(name, rule["errnoRet"], bool(rule["args"])) for rule in profile["syscalls"] for name in rule["names"]]
    for name in ("ptrace", "bpf", "io_uring_setup", "keyctl", "unshare", "mount", "userfaultfd"):
        assert (name, 1, False) in rules
    assert ("clone3", 38, False) in rules
    named = {name for name, _, has_conditions in rules if not has_conditions}
    assert len(named) - 1 >= len(seccomp.ARCHITECTURES[machine].denied)
