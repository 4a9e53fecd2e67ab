"""Runs a program as an action inside its container: as ActionLoop's proxy does, or as the docker skeleton does.

The first line is init: `{"value": {name, main, binary, folder, env}}`; the program is the file `exec` of the folder.
With the word `skeleton` every later line is a run of the program: the value on its standard input, and as its argument
where it is short enough; the last line that it prints is the reply. Else the program is started once, and reads and
writes in the place of this one: run bodies come as lines on its standard input, it answers each by one on descriptor 3.

Standard library only, and little of it: what is imported here is part of every cold start. Python 3.8 and newer.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

FIRST_PRIVATE = 100
REPLIES = 3
START_S, LOOK_S, LOOKS = 0.005, 0.00005, 4
"""How long ActionLoop's proxy waits for a program that ends at once; how often it is looked at meanwhile, and how many
times in a row it must be found waiting."""
ASKS = (b"0 0x0 ", b"63 0x0 ")
"""A read from descriptor 0, on x86-64 and on aarch64; each number is of a call that does not wait on the other."""
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""By Python, and programs would go on with that."""
ARGUMENT_BYTES = 131071
"""No longer argument is taken by the kernel."""
READ_BYTES = 1 << 20
NO_CODE = "Missing main/no code to execute."
NO_PROGRAM = "The action failed to generate or locate a binary. See logs for details."
NO_START = "Cannot start action. Check logs for details."
NOT_A_DICTIONARY = "The action did not return a dictionary or array."
TWICE = "Cannot initialize the action more than once."
KEPT = {"PATH", "HOME", "LANG", "PWD"}
PROXY_VERSION = "1.18.0"
"""Of the proxy whose contract this is."""
VERSION_FILE = "exec.env"
"""Which image a program was compiled for, where it says so."""


def private(descriptor):
    """The same channel under a high number that programs started by the action do not inherit."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_PRIVATE)


class Lines:
    """Lines of standard input: not one byte more is taken than what was sent, for another program may go on."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.rest = b""

    def __iter__(self):
        return self

    def __next__(self):
        parts = [self.rest]
        while b"\n" not in parts[-1]:
            data = os.read(self.descriptor, READ_BYTES)
            if not data:
                raise StopIteration
            parts.append(data)
        line, _, self.rest = b"".join(parts).partition(b"\n")
        return line


def write(descriptor, data):
    data = memoryview(data + b"\n")
    while data:
        data = data[os.write(descriptor, data) :]


def fail(descriptor, sentence):
    write(descriptor, b"!" + json.dumps({"error": sentence}).encode())


def prepare(value):
    """The path of the program; raises `LookupError` with the sentence of the init error."""
    folder = value.get("folder")
    if not folder:
        raise LookupError(NO_CODE)
    program = os.path.join(folder, "exec")
    if os.path.isfile(program) and os.path.getsize(program) == 0:
        raise LookupError(NO_CODE)
    if not os.access(program, os.X_OK):
        raise LookupError(NO_PROGRAM)
    os.chdir(folder)
    return program


# ── ActionLoop ──────────────────────────────────────────────────────────────────────────────────────────────────


def become(program, value, replies):
    """The program goes on in the place of this one; if it ends at once the init has failed, as in the proxy.

    It is a child: to throw away the memory that this process shares with a template takes longer than to start one.
    """
    env = environment(value)
    try:
        pid = os.posix_spawn(program, [program], env, setsigdef=IGNORED)
    except OSError as error:
        print(f"{program}: {error.strerror}", file=sys.stderr, flush=True)
        fail(replies, NO_START)
        return
    os.close(0)
    if "__OW_WAIT_FOR_ACK" not in env:  # else its first line is the answer to init
        if ends_at_once(pid):
            fail(replies, NO_START)
            return
        write(replies, b'{"ok":true}')
    os.close(REPLIES)
    os.close(replies)
    _, status = os.waitpid(pid, 0)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def ends_at_once(pid):
    """False as soon as it waits: it has come to where it reads its first line."""
    until, waited = time.monotonic() + START_S, 0
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        if shown(pid, "syscall").startswith(ASKS):
            return False
        waited = waited + 1 if state_of(pid) == b"S" else 0
        if waited == LOOKS:  # not for a lock, then, on its way there
            return False
        time.sleep(LOOK_S)
    return False


def state_of(pid):
    """The kernel's letter for what a process does; empty where that cannot be seen."""
    return shown(pid, "stat").rpartition(b")")[2][1:2]


def shown(pid, name):
    """What the kernel shows of a process; empty where it shows nothing."""
    try:
        with open(f"/proc/{pid}/{name}", "rb", 0) as file:
            return file.read()
    except OSError:
        return b""


def environment(value):
    """What the proxy gives a program, and what scripts do not do without."""
    env = {name: text for name, text in os.environ.items() if name.startswith("__OW_") or name in KEPT}
    env["__OW_PROXY_VERSION"] = PROXY_VERSION
    if os.environ.get("OW_WAIT_FOR_ACK"):
        env["__OW_WAIT_FOR_ACK"] = os.environ["OW_WAIT_FOR_ACK"]
    if os.path.isfile(VERSION_FILE):
        with open(VERSION_FILE, errors="replace") as file:
            env["__OW_EXECUTION_ENV"] = file.read(1024).strip()
    for name, given in (value.get("env") or {}).items():
        env[name] = given if isinstance(given, str) else json.dumps(given)
    return env


# ── the skeleton ────────────────────────────────────────────────────────────────────────────────────────────────


def serve(program, lines, replies):
    write(replies, b'{"ok":true}')
    for line in lines:
        message = json.loads(line)
        if is_init(message):
            print(TWICE, file=sys.stderr, flush=True)
            fail(replies, TWICE)
        else:
            write(replies, run(program, message))


def is_init(message):
    """An init line that comes again: a run body says for which activation it is."""
    value = message.get("value")
    return len(message) == 1 and isinstance(value, dict) and {"name", "main", "env"} <= value.keys()


def run(program, message):
    """The reply line for one run; what else the program prints is logs, written when it has ended."""
    value = json.dumps(message.get("value", {}), ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )
    env = dict(os.environ)
    env.update({"__OW_" + name.upper(): text for name, text in message.items() if name != "value"})
    argv = [program] if len(value) > ARGUMENT_BYTES else [program, value]
    try:
        ended = subprocess.run(argv, input=value, capture_output=True, env=env, check=False)
    except OSError as error:
        print(f"{program}: {error.strerror}", file=sys.stderr, flush=True)
        return b"!" + json.dumps({"error": NOT_A_DICTIONARY}).encode()
    printed = ended.stdout.rstrip(b"\r\n").rsplit(b"\n", 1)
    reply = parsed(printed[-1])
    logged = b"\n".join(printed if reply is None else printed[:-1])
    if logged:
        write(1, logged)
    if ended.stderr:
        write(2, ended.stderr.rstrip(b"\n"))
    if reply is None:
        return b"!" + json.dumps({"error": NOT_A_DICTIONARY}).encode()
    return reply


def parsed(line):
    """A JSON object or array on one line, as it was written; None for anything else."""
    text = line.strip()
    try:
        return text if isinstance(json.loads(text), (dict, list)) else None
    except (ValueError, RecursionError):
        return None


def rehearse():
    """What every start does, once before it counts: a forked process pays for each page of memory that it touches."""
    value = json.loads('{"value":{"name":"a","main":"main","binary":true,"folder":"/","env":{"__OW_A":"b"}}}')["value"]
    try:
        prepare(value)
    except LookupError:
        pass  # there is no program
    environment(value)
    os.close(private(1))


def main():
    lines = Lines(0)
    replies = private(REPLIES)
    line = next(lines, None)
    if line is None:
        return
    try:
        value = json.loads(line)["value"]
        program = prepare(value)
    except LookupError as error:
        print(error, file=sys.stderr, flush=True)
        fail(replies, str(error))
        return
    if sys.argv[1:] == ["skeleton"]:
        os.close(REPLIES)
        source = private(0)
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        lines.descriptor = source
        os.environ.update(value.get("env") or {})
        serve(program, lines, replies)
    else:
        become(program, value, replies)


if __name__ == "__main__":
    main()
