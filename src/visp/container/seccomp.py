"""The filter of system calls that every sandboxed process runs under, as a classic BPF program.

Refused: attack surface of the kernel that an action never needs (EPERM), new namespaces by `clone` (EPERM; `clone3`
gives ENOSYS, so that libc falls back to `clone`), sockets other than UNIX, IPv4 and IPv6 (EAFNOSUPPORT), terminal
injection by `ioctl` (EPERM). A foreign architecture or ABI kills.

Where there is no network namespace (`confined`) also: UNIX sockets but pairs, all that Landlock's rules for TCP do not
see (datagrams, other protocols over IP, fast open, listening), and limits of other processes.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import Final

import msgspec

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND, _THIRD = 0, 4, 16, 24, 32
_X32_BIT = 0x40000000
_NEW_NAMESPACES = 0x7E020000
_FAMILIES: Final = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6."""
_INTERNET: Final = (2, 10)
_KINDS, _STREAM, _DATAGRAM = 0xF, 1, 2
_TCP: Final = (0, 6)
_FAST_OPEN = 0x20000000
"""A flag of sending that connects without asking whether one may."""
_INJECTIONS: Final = (0x5412, 0x541C)
"""TIOCSTI, TIOCLINUX."""


class _Architecture(msgspec.Struct, frozen=True):
    audit: int
    clone: int
    clone3: int
    socket: int
    ioctl: int
    socketpair: int
    listen: int
    sends: tuple[tuple[int, int], ...]
    """Calls that send, and which of their arguments holds the flags: sendto, sendmsg, sendmmsg."""
    prlimit: int
    denied: tuple[int, ...]
    has_x32: bool = False


_SHARED = (*range(425, 434), 438, 442, 443, 447)
"""Numbers that all machines share: io_uring, the mount calls, pidfd_getfd, mount_setattr, quotactl_fd, memfd_secret."""

_X86_64 = _Architecture(
    audit=0xC000003E,
    clone=56,
    clone3=435,
    socket=41,
    ioctl=16,
    socketpair=53,
    listen=50,
    sends=((44, 3), (46, 2), (307, 3)),
    prlimit=302,
    has_x32=True,
    denied=(
        # ptrace, syslog, personality, modify_ldt, pivot_root, adjtimex, chroot, acct, settimeofday, mount, umount2
        *(101, 103, 135, 154, 155, 159, 161, 163, 164, 165, 166),
        # swapon, swapoff, reboot, sethostname, setdomainname, iopl, ioperm, init_module, delete_module, quotactl
        *(167, 168, 169, 170, 171, 172, 173, 175, 176, 179),
        # lookup_dcookie, clock_settime, mbind, set_mempolicy, kexec_load, add_key, request_key, keyctl, migrate_pages
        *(212, 227, 237, 238, 246, 248, 249, 250, 256),
        # unshare, vmsplice, move_pages, perf_event_open, fanotify_init, name_to_handle_at, open_by_handle_at
        *(272, 278, 279, 298, 300, 303, 304),
        # clock_adjtime, setns, process_vm_readv, process_vm_writev, kcmp, finit_module, kexec_file_load, bpf
        *(305, 308, 310, 311, 312, 313, 320, 321),
        323,  # userfaultfd
        *_SHARED,
    ),
)

_AARCH64 = _Architecture(
    audit=0xC00000B7,
    clone=220,
    clone3=435,
    socket=198,
    ioctl=29,
    socketpair=199,
    listen=201,
    sends=((206, 3), (211, 2), (269, 3)),
    prlimit=261,
    denied=(
        # lookup_dcookie, umount2, mount, pivot_root, chroot, vmsplice, quotactl, acct, personality, kexec_load
        *(18, 39, 40, 41, 51, 75, 60, 89, 92, 104),
        # init_module, delete_module, clock_settime, syslog, ptrace, reboot, sethostname, setdomainname, settimeofday
        *(105, 106, 112, 116, 117, 142, 161, 162, 170),
        # adjtimex, add_key, request_key, keyctl, swapon, swapoff, mbind, set_mempolicy, migrate_pages, move_pages
        *(171, 217, 218, 219, 224, 225, 235, 237, 238, 239),
        # perf_event_open, fanotify_init, name_to_handle_at, open_by_handle_at, clock_adjtime, setns, unshare
        *(241, 262, 264, 265, 266, 268, 97),
        # process_vm_readv, process_vm_writev, kcmp, finit_module, bpf, userfaultfd, kexec_file_load
        *(270, 271, 272, 273, 280, 282, 294),
        *_SHARED,
    ),
)

ARCHITECTURES: Final = {"x86_64": _X86_64, "aarch64": _AARCH64}


def program(machine: str | None = None, *, confined: bool = False) -> bytes:
    """The filter for a machine (`platform.machine()`), as bubblewrap reads it; raises `LookupError` for another one."""
    architecture = ARCHITECTURES[machine or platform.machine()]
    code = _load(_ARCHITECTURE) + _step(_EQUAL, architecture.audit, 1, 0) + _give(_KILL)
    code += _load(_NUMBER)
    if architecture.has_x32:
        code += _step(_AT_LEAST, _X32_BIT, 0, 1) + _give(_KILL)
    bodies = dict.fromkeys(architecture.denied, _give(_REFUSE | errno.EPERM))
    bodies |= {
        architecture.clone3: _give(_REFUSE | errno.ENOSYS),
        architecture.clone: _load(_FIRST) + _unless_any(_NEW_NAMESPACES),
        architecture.socket: _load(_FIRST) + _one_of(_FAMILIES, _ALLOW, _REFUSE | errno.EAFNOSUPPORT),
        architecture.ioctl: _load(_SECOND) + _one_of(_INJECTIONS, _REFUSE | errno.EPERM, _ALLOW),
    }
    if confined:
        bodies |= _confine(architecture)
    return b"".join([*code, *_choose(_intervals(bodies))])


def policy(machine: str | None = None) -> str:
    """The same filter in the language of nsjail; it is kept from foreign architectures by itself."""
    architecture = ARCHITECTURES[machine or platform.machine()]
    denied = ", ".join(f"SYSCALL[{number}]" for number in architecture.denied)
    injections = " || ".join(f"request == {number}" for number in _INJECTIONS)
    families = " && ".join(f"family != {number}" for number in _FAMILIES)
    return (
        f"POLICY visp {{ ERRNO({errno.EPERM}) {{ {denied}, "
        f"SYSCALL[{architecture.clone}](flags) {{ (flags & {_NEW_NAMESPACES}) != 0 }}, "
        f"SYSCALL[{architecture.ioctl}](file, request) {{ {injections} }} }}, "
        f"ERRNO({errno.ENOSYS}) {{ SYSCALL[{architecture.clone3}] }}, "
        f"ERRNO({errno.EAFNOSUPPORT}) {{ SYSCALL[{architecture.socket}](family) {{ {families} }} }} }} "
        "USE visp DEFAULT ALLOW"
    )


def _confine(architecture: _Architecture) -> dict[int, list[bytes]]:
    no_family, no = _give(_REFUSE | errno.EAFNOSUPPORT), _give(_REFUSE | errno.EPERM)
    kind = _load(_SECOND) + _step(_AND, _KINDS)
    sends = {number: _load(_FIRST + 8 * flags) + _unless_any(_FAST_OPEN) for number, flags in architecture.sends}
    return sends | {
        architecture.socket: _load(_FIRST)
        + _unless(_INTERNET, no_family)
        + kind
        + _unless((_STREAM,), no)
        + _load(_THIRD)
        + _one_of(_TCP, _ALLOW, _REFUSE | errno.EPERM),
        # one of a pair of datagram sockets can send to any path
        architecture.socketpair: kind + _one_of((_DATAGRAM,), _REFUSE | errno.EPERM, _ALLOW),
        architecture.listen: no,
        architecture.prlimit: _load(_FIRST) + _one_of((0,), _ALLOW, _REFUSE | errno.EPERM),
    }


def _intervals(bodies: dict[int, list[bytes]]) -> list[tuple[int, list[bytes]]]:
    """All numbers, as the first of each run with one body, which ends in a verdict: what has none is allowed."""
    allow = _give(_ALLOW)
    found = [(0, allow)]
    for number, body in sorted(bodies.items()):
        if found[-1][0] == number:
            found.pop()
        if not found or found[-1][1] != body:
            found.append((number, body))
        found.append((number + 1, allow))
    return found


def _choose(intervals: list[tuple[int, list[bytes]]]) -> list[bytes]:
    """By halves: the kernel tries each of its calls when the filter is put up, a part of every start."""
    if len(intervals) == 1:
        return intervals[0][1]
    half = len(intervals) // 2
    low, high = _choose(intervals[:half]), _choose(intervals[half:])
    return _step(_AT_LEAST, intervals[half][0], len(low), 0) + low + high


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> list[bytes]:
    return [struct.pack("<HBBI", code, yes, no, value)]


def _load(offset: int) -> list[bytes]:
    return _step(_LOAD, offset)


def _give(verdict: int) -> list[bytes]:
    return _step(_RETURN, verdict)


def _unless_any(bits: int) -> list[bytes]:
    """Refused when what is loaded has any of the bits."""
    return _step(_ANY_BIT, bits, 0, 1) + _give(_REFUSE | errno.EPERM) + _give(_ALLOW)


def _unless(values: tuple[int, ...], verdict: list[bytes]) -> list[bytes]:
    """The verdict when what is loaded is none of the values, else on."""
    last = len(values) - 1
    tests = [_step(_EQUAL, value, last - index + len(verdict), 0) for index, value in enumerate(values)]
    return [step for test in tests for step in test] + verdict


def _one_of(values: tuple[int, ...], yes: int, no: int) -> list[bytes]:
    """One verdict when what is loaded is among the values, else the other."""
    tests = [_step(_EQUAL, value, len(values) - index, 0) for index, value in enumerate(values)]
    return [step for test in tests for step in test] + _give(no) + _give(yes)


# ── the same for container engines, which compile it by themselves ──────────────────────────────────────────────

_DENIED_BY_NAME: Final = (
    "acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init finit_module fsconfig "
    "fsmount fsopen fspick init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp "
    "kexec_file_load kexec_load keyctl lookup_dcookie mbind memfd_secret migrate_pages modify_ldt mount mount_setattr "
    "move_mount move_pages name_to_handle_at open_by_handle_at open_tree perf_event_open personality pidfd_getfd "
    "pivot_root process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot request_key set_mempolicy "
    "setdomainname sethostname setns settimeofday swapoff swapon syslog umount umount2 unshare userfaultfd vmsplice"
)
_ENGINE_ARCHITECTURES: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


def profile(machine: str | None = None) -> str:
    """The filter as `docker run --security-opt seccomp=` takes it; raises `LookupError` for another machine."""
    refused = _rule(_DENIED_BY_NAME.split(), errno.EPERM)
    rules = [refused, _rule(["clone3"], errno.ENOSYS)]
    bits = [1 << place for place in range(32) if 1 << place & _NEW_NAMESPACES]
    rules += [_rule(["clone"], errno.EPERM, _when(0, bit, "MASKED_EQ", bit)) for bit in bits]
    others = [family for family in range(max(_FAMILIES)) if family not in _FAMILIES]
    rules += [_rule(["socket"], errno.EAFNOSUPPORT, _when(0, family, "EQ")) for family in others]
    rules.append(_rule(["socket"], errno.EAFNOSUPPORT, _when(0, max(_FAMILIES), "GT")))
    rules += [_rule(["ioctl"], errno.EPERM, _when(1, request, "EQ")) for request in _INJECTIONS]
    return msgspec.json.encode(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": [_ENGINE_ARCHITECTURES[machine or platform.machine()]],
            "syscalls": rules,
        }
    ).decode()


def _rule(names: list[str], number: int, *conditions: dict[str, object]) -> dict[str, object]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": list(conditions)}


def _when(index: int, value: int, comparison: str, second: int = 0) -> dict[str, object]:
    return {"index": index, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{comparison}"}
