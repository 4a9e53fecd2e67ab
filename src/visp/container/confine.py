"""Runs a command under Landlock and a filter of system calls, with no namespace and no privilege.

Started by the driver `landlock` under a system Python. Standard library only, Python 3.8 and newer. The plan is JSON on
descriptor 4: `{reads, writes, ports, limits, filter, argv, env}`. Files outside of the folders and files named by
`reads` and `writes` are closed to the command, and so are TCP but to `ports`, signals to processes outside and their
memory; of /proc it sees where its own memory lies. The first process stays outside and cannot be signalled from within;
what the command leaves behind becomes its child: its tree holds all that was begun. It ends as the command ends.

With the word `abi` it prints the kernel's version of Landlock, 0 for none.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys

PLAN = 4
REPLIES = 3
CANNOT_ENTER = 125
CREATE_RULES, ADD_RULE, RESTRICT = 444, 445, 446
"""Numbers that all machines share."""
BENEATH, PORT = 1, 2
EXECUTE, WRITE, READ, READ_FOLDER, TRUNCATE, DEVICE = 1, 2, 4, 8, 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE | READ | TRUNCATE | DEVICE
CONNECT = 2
DIE_WITH_PARENT, SECCOMP, SUBREAPER, NO_NEW_PRIVILEGES = 1, 22, 36, 38
FILTER = 2
OF_ITSELF = ("maps",)
"""What of /proc the command may read of itself: Bun asks there where its stack lies, and ends if it is not told."""
LEAST_ABI = 4
"""The first that knows of TCP."""

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def abi():
    return max(0, libc.syscall(CREATE_RULES, None, 0, 1))


def restrict(plan):
    """Handles all that the kernel's version knows, and allows what the plan names."""
    version = abi()
    if version < LEAST_ABI:
        raise OSError(0, f"Landlock ABI {LEAST_ABI} is needed, this kernel has {version}")
    everything = (1 << 13) - 1 | 1 << 13 | TRUNCATE | (DEVICE if version >= 5 else 0)
    scope = 3 if version >= 6 else 0
    handled = struct.pack("QQQ", everything, 3, scope)
    rules = check(libc.syscall(CREATE_RULES, handled, ctypes.c_size_t(24 if version >= 6 else 16), 0))
    for path in plan["reads"]:
        allow(rules, path, EXECUTE | READ | READ_FOLDER)
    for path in plan["writes"]:
        allow(rules, path, everything & ~DEVICE)
    for port in plan["ports"]:
        check(libc.syscall(ADD_RULE, rules, PORT, struct.pack("QQ", CONNECT, port), 0))
    check(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    check(libc.syscall(RESTRICT, rules, 0))
    os.close(rules)


def allow(rules, path, access):
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not os.path.isdir(path):
        access &= OF_FILES
    try:
        check(libc.syscall(ADD_RULE, rules, BENEATH, struct.pack("=Qi", access, descriptor), 0))
    finally:
        os.close(descriptor)


def filter_calls(program):
    code = ctypes.create_string_buffer(program, len(program))
    rules = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    check(libc.prctl(SECCOMP, FILTER, rules, 0, 0))


def own_files(pid):
    return [f"/proc/{pid}/{name}" for name in OF_ITSELF]


def hold(paths):
    """A rule is for a file as the kernel has it: one of /proc it may forget and make anew, unless somebody holds it."""
    for path in paths:
        os.open(path, os.O_PATH | os.O_CLOEXEC)


def wait_for(child):
    """Also for what was left to this process; ends as the child does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.closerange(0, REPLIES + 1)  # the end of the command is the end of its channels
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def main():
    plan = json.loads(os.pread(PLAN, os.fstat(PLAN).st_size, 0))
    os.closerange(REPLIES + 1, os.sysconf("SC_OPEN_MAX"))
    try:
        os.umask(0o022)
        os.chdir(plan["writes"][0])
        check(libc.prctl(SUBREAPER, 1, 0, 0, 0))
        waits, ready = os.pipe()
        child = os.fork()
        if child:
            hold(own_files(child))
            os.close(waits)
            os.close(ready)
            wait_for(child)
        check(libc.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0))
        os.close(ready)
        os.read(waits, 1)
        os.close(waits)
        plan["reads"] += own_files(os.getpid())
        restrict(plan)
        for number, value in plan["limits"]:
            resource.setrlimit(number, (value, value))
        filter_calls(bytes.fromhex(plan["filter"]))
        os.execve(plan["argv"][0], plan["argv"], plan["env"])
    except (OSError, ValueError) as error:
        os.write(2, f"the sandbox cannot be entered: {error}\n".encode())
        os._exit(CANNOT_ENTER)


if __name__ == "__main__":
    if sys.argv[1:] == ["abi"]:
        print(abi())
    else:
        main()
