"""Runs inside a sandbox and tries to leave it; one JSON line on descriptor 3. Standard library only.

Called with one argument, JSON: `{"secret": path, "port": number, "abstract": name, "path": name, "pid": number}`, what
the host has put up to be found. The answer maps each attempt to null (refused) or to what came of it; `facts` holds
what is compared with what it must be.
"""

import ctypes
import errno
import json
import os
import platform
import socket
import struct
import sys

TIMEOUT_S = 0.5
DESCRIPTORS = 4096
SECCOMP, NO_NEW_PRIVILEGES = 21, 39
CALLS = {  # name: (x86_64, aarch64, arguments); each must be refused
    "bpf": (321, 280, (0, 0, 0)),
    "io_uring_setup": (425, 425, (8, 0)),
    "keyctl": (250, 219, (0, -3, 0)),
    "ptrace": (101, 117, (0, 0, 0, 0)),
    "perf_event_open": (298, 241, (0, 0, -1, -1, 0)),
    "userfaultfd": (323, 282, (0,)),
    "kexec_load": (246, 104, (0, 0, 0, 0)),
    "init_module": (175, 105, (0, 0, 0)),
    "syslog": (103, 116, (3, 0, 0)),
    "personality": (135, 92, (0xFFFFFFFF,)),
    "chroot": (161, 51, (b"/",)),
    "swapon": (167, 224, (b"/x", 0)),
    "open_by_handle_at": (304, 265, (-1, 0, 0)),
    "setns": (308, 268, (-1, 0)),
    "pivot_root": (155, 41, (b"/", b"/")),
    "unshare_user": (272, 97, (0x10000000,)),
    "unshare_mount": (272, 97, (0x00020000,)),
}
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
SYSCTLS = ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sys/vm/overcommit_memory")


def attempt(action):
    """None when it was refused, else what it gave."""
    try:
        return str(action())[:100]
    except OSError:
        return None


def read(path):
    with open(path, "rb") as file:
        return f"read {len(file.read(200))} bytes"


def open_to_write(path):
    os.close(os.open(path, os.O_WRONLY))
    return "opened for writing"


def connect(family, address):
    with socket.socket(family) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect(address)
        return "reached"


def raw_socket():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()
    return "opened"


def other_family():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
    return "opened"


def see(pid):
    os.kill(pid, 0)
    return "can be signalled"


def inherited_names():
    """Names of the host's files that the first process was started with."""
    with open("/proc/1/environ", "rb") as file:
        content = file.read()
    if not content:
        raise OSError
    return content[:80]


def call(libc, number, arguments):
    """In a child: a call that succeeds may spoil the caller."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        ctypes.set_errno(0)
        result = libc.syscall(number, *arguments)
        os.write(writer, b"%d" % (0 if result >= 0 else ctypes.get_errno()))
        os._exit(0)
    os.close(writer)
    answer = os.read(reader, 16)
    os.close(reader)
    os.waitpid(pid, 0)
    if not answer or int(answer) in REFUSALS:
        return None
    return f"not refused: {errno.errorcode.get(int(answer), answer.decode())}"


def writable():
    found = []
    for folder in ("/", "/usr", "/etc", "/var/tmp", "/home", "/root", "/run", "/action", "/dev", "/tmp", "/dev/shm"):
        path = os.path.join(folder, ".probe")
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            os.unlink(path)
            found.append(folder)
        except OSError:
            pass
    return found


def interfaces():
    with open("/proc/net/dev") as file:
        return [line.split(":")[0].strip() for line in file if ":" in line]


def own_status():
    """None where /proc is not seen."""
    try:
        with open("/proc/self/status") as file:
            return dict(line.strip().split(":", 1) for line in file if ":" in line)
    except OSError:
        return None


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def facts(libc):
    out = {
        "uid": [os.getuid(), os.getgid()],
        "groups": [group for group in os.getgroups() if group != os.getgid()],
        "descriptors": [number for number in range(DESCRIPTORS) if is_open(number)],
        "writable": writable(),
        "no_new_privileges": str(libc.prctl(NO_NEW_PRIVILEGES, 0, 0, 0, 0)),
    }
    status = own_status()
    if status is None:
        header, sets = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
        libc.capget(header, sets)
        words = struct.unpack("6I", sets.raw)
        out["capabilities"] = [f"{word:x}".strip("0") for word in words]
        out["seccomp"] = str(libc.prctl(SECCOMP, 0, 0, 0, 0))
        return out
    out["capabilities"] = [status[name].strip().strip("0") for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")]
    out["bounding"] = status["CapBnd"].strip().strip("0")
    out["seccomp"] = status["Seccomp"].strip()
    out["interfaces"] = interfaces()
    out["processes"] = len([name for name in os.listdir("/proc") if name.isdigit()])
    return out


def main():
    host = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    column = 0 if platform.machine() == "x86_64" else 1
    out = {
        "host_secret": attempt(lambda: read(host["secret"])),
        "shadow": attempt(lambda: read("/etc/shadow")),
        "passwd": attempt(lambda: read("/etc/passwd")),
        "root_home": attempt(lambda: os.listdir("/root")),
        "first_environ": attempt(inherited_names),
        "tcp_loopback": attempt(lambda: connect(socket.AF_INET, ("127.0.0.1", host["port"]))),
        "unix_abstract": attempt(lambda: connect(socket.AF_UNIX, "\0" + host["abstract"])),
        "unix_path": attempt(lambda: connect(socket.AF_UNIX, host["path"])),
        "raw_socket": attempt(raw_socket),
        "other_family": attempt(other_family),
    }
    if host["pid"]:
        out["host_process"] = attempt(lambda: see(host["pid"]))
        out["host_process_files"] = attempt(lambda: read(f"/proc/{host['pid']}/environ"))
    for path in SYSCTLS:
        out["sysctl " + path] = attempt(lambda path=path: open_to_write(path))
    for name, numbers in CALLS.items():
        out["call " + name] = call(libc, numbers[column], numbers[2])
    out["call mount"] = None if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) != 0 else "mounted"
    try:
        known = facts(libc)
    except OSError as error:
        known = {"error": str(error)}
    os.write(3, (json.dumps({"attempts": out, "facts": known}) + "\n").encode())


main()
