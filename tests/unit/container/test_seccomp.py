"""The filter of system calls, run by a small machine of its own, for both architectures."""

from __future__ import annotations

import errno
import struct

import pytest

from visp.container import seccomp

ALLOWED, KILLED = "allowed", "killed"
UNIX, INTERNET, NETLINK, STREAM, DATAGRAM = 1, 2, 16, 1, 2
SOCK_CLOEXEC = 0o2000000
MPTCP = 262
MACHINES = sorted(seccomp.ARCHITECTURES)


def verdict(program: bytes, audit: int, number: int, *arguments: int) -> str | int:
    """What the kernel would do with a call: an errno, or a word."""
    data = struct.pack("<IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at = held = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code == 0x20:
            (held,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            held &= value
        elif code == 0x06:
            return {0x7FFF0000: ALLOWED, 0x80000000: KILLED}.get(value, value & 0xFFFF)
        else:
            holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
            at += yes if holds else no


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(machine: str, number: int, *arguments: int, confined: bool = False) -> str | int:
    audit = seccomp.ARCHITECTURES[machine].audit
    return verdict(seccomp.program(machine, confined=confined), audit, number, *arguments)


def test_what_is_denied_is_denied_everywhere(machine: str) -> None:
    for confined in (False, True):
        for number in seccomp.ARCHITECTURES[machine].denied:
            assert ask(machine, number, confined=confined) == errno.EPERM
        assert ask(machine, seccomp.ARCHITECTURES[machine].clone3, confined=confined) == errno.ENOSYS


def test_all_else_is_allowed(machine: str) -> None:
    known = seccomp.ARCHITECTURES[machine]
    heeded = {*known.denied, known.clone3, known.clone, known.socket, known.ioctl}
    heeded_confined = heeded | {known.socketpair, known.listen, known.prlimit, *dict(known.sends)}
    for number in range(1024):
        assert number in heeded or ask(machine, number) == ALLOWED
        assert number in heeded_confined or ask(machine, number, confined=True) == ALLOWED


def test_both_machines_deny_the_same_kernel() -> None:
    x86, arm = (seccomp.ARCHITECTURES[name] for name in ("x86_64", "aarch64"))
    only_of_x86 = {154, 172, 173}
    assert len(set(x86.denied) - only_of_x86) == len(set(arm.denied))


def test_foreign_architecture_and_abi_kill(machine: str) -> None:
    other = next(name for name in MACHINES if name != machine)
    assert verdict(seccomp.program(machine), seccomp.ARCHITECTURES[other].audit, 0) == KILLED
    if machine == "x86_64":
        assert ask(machine, 0x40000000) == KILLED


def test_processes_but_no_namespaces_are_made(machine: str) -> None:
    clone = seccomp.ARCHITECTURES[machine].clone
    assert ask(machine, clone, 17) == ALLOWED
    for flag in (0x00020000, 0x02000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(machine, clone, 17 | flag) == errno.EPERM


def test_terminals_are_not_typed_into(machine: str) -> None:
    ioctl = seccomp.ARCHITECTURES[machine].ioctl
    assert ask(machine, ioctl, 0, 0x5412) == errno.EPERM
    assert ask(machine, ioctl, 0, 0x5401) == ALLOWED


def test_families_of_sockets(machine: str) -> None:
    socket = seccomp.ARCHITECTURES[machine].socket
    assert ask(machine, socket, INTERNET, DATAGRAM) == ALLOWED
    assert ask(machine, socket, UNIX, STREAM) == ALLOWED
    assert ask(machine, socket, NETLINK, 3) == errno.EAFNOSUPPORT


def test_confined_sockets_are_those_that_landlock_sees(machine: str) -> None:
    known = seccomp.ARCHITECTURES[machine]
    for family in (INTERNET, 10):
        for protocol in (0, 6):
            assert ask(machine, known.socket, family, STREAM | SOCK_CLOEXEC, protocol, confined=True) == ALLOWED
        assert ask(machine, known.socket, family, DATAGRAM, 17, confined=True) == errno.EPERM
        assert ask(machine, known.socket, family, 5, 0, confined=True) == errno.EPERM
        assert ask(machine, known.socket, family, STREAM, MPTCP, confined=True) == errno.EPERM
    for family in (UNIX, NETLINK):
        assert ask(machine, known.socket, family, STREAM, confined=True) == errno.EAFNOSUPPORT
    assert ask(machine, known.socketpair, UNIX, STREAM, confined=True) == ALLOWED
    assert ask(machine, known.socketpair, UNIX, DATAGRAM | SOCK_CLOEXEC, confined=True) == errno.EPERM
    assert ask(machine, known.listen, 3, 1, confined=True) == errno.EPERM
    for number, argument in known.sends:
        for flags, result in ((0x4000, ALLOWED), (0x20004000, errno.EPERM)):
            assert ask(machine, number, *[0] * argument, flags, confined=True) == result


def test_confined_code_limits_itself_alone(machine: str) -> None:
    prlimit = seccomp.ARCHITECTURES[machine].prlimit
    assert ask(machine, prlimit, 0, 7, confined=True) == ALLOWED
    assert ask(machine, prlimit, 1, 7, confined=True) == errno.EPERM
    assert ask(machine, prlimit, 1, 7) == ALLOWED


def test_nsjail_is_told_the_same(machine: str) -> None:
    told = seccomp.policy(machine)
    assert all(f"SYSCALL[{number}]" in told for number in seccomp.ARCHITECTURES[machine].denied)
    assert told.endswith("DEFAULT ALLOW")


def test_other_machines_have_none() -> None:
    for make in (seccomp.program, seccomp.policy):
        with pytest.raises(LookupError):
            make("riscv64")
