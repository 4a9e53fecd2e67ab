"""Runs a WebAssembly module as an action inside its container: a command of WASI preview 1, which is the file `exec`.

JSON lines on standard input, replies as JSON lines on descriptor 3. The first line is init: `{"value": {name, main,
binary, folder, env}}`; every later line is a run. Each run is an instance of its own that sees no file: on its standard
input is the value, in its environment what init and run bring; its last line of output is the reply, the others and its
standard error are logs. `main` names an exported function without parameters in place of `_start`. The only argument is
how many MB of memory an instance may have.

Runs where the package `wasmtime` is installed.
"""

import json
import os
import sys

import wasmtime

FIRST_PRIVATE = 100
MIB = 1 << 20
STDOUT, STDERR = 1, 2
STDIN_FILE = os.path.join(os.environ.get("TMPDIR", "/tmp"), "stdin")
START = "_start"
NO_CODE = "Missing main/no code to execute."
NO_PROGRAM = "The action failed to generate or locate a binary. See logs for details."
NOT_A_DICTIONARY = "The action did not return a dictionary or array."
TWICE = "Cannot initialize the action more than once."
NOT_INITIALIZED = "Cannot run: the action was not initialized."


def open_channels():
    """Both move to where nothing else finds them."""
    import fcntl

    lines = open(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, FIRST_PRIVATE), "rb")
    replies = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, FIRST_PRIVATE)
    os.close(3)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return lines, replies


def write(descriptor, data):
    data = memoryview(data)
    while data:
        data = data[os.write(descriptor, data) :]


def log(text):
    write(STDERR, text.encode("utf-8", "replace") + b"\n")


def failed(sentence):
    return b"!" + json.dumps({"error": sentence}).encode()


class Printed:
    """A module's standard output: every line becomes a log line once another follows it."""

    def __init__(self):
        self.parts = []

    def take(self, data):
        data = bytes(data)
        before, end, rest = data.rpartition(b"\n")
        if not end:
            self.parts.append(data)
            return len(data)
        lines = (b"".join(self.parts) + before).rsplit(b"\n", 1)
        if len(lines) == 2:
            write(STDOUT, lines[0] + b"\n")
        if rest:
            write(STDOUT, lines[-1] + b"\n")
            self.parts = [rest]
        else:
            self.parts = [lines[-1], b"\n"]
        return len(data)

    def last(self):
        return b"".join(self.parts).rstrip(b"\r\n")


class NoCode(Exception):
    """An empty module."""


class Action:
    """A compiled module; raises what the compiler does."""

    def __init__(self, value, memory_mb):
        with open(os.path.join(value["folder"], "exec"), "rb") as file:
            code = file.read()
        if not code.strip():
            raise NoCode
        self.engine = wasmtime.Engine()
        self.module = wasmtime.Module(self.engine, code)
        self.linker = wasmtime.Linker(self.engine)
        self.linker.define_wasi()
        shown = {name: text for name, text in os.environ.items() if name.startswith("__OW_")}
        self.env = {**shown, **(value.get("env") or {})}
        main = value.get("main") or "main"
        self.start = START if main == "main" else main
        if self.start not in [export.name for export in self.module.exports]:
            raise wasmtime.WasmtimeError(f"the module exports no function '{self.start}'")
        self.memory_bytes = memory_mb * MIB

    def run(self, message):
        """The reply line for one run."""
        for name, text in message.items():
            if name != "value":
                self.env["__OW_" + name.upper()] = text
        with open(STDIN_FILE, "w", encoding="utf-8", errors="surrogatepass") as file:
            json.dump(message.get("value", {}), file, ensure_ascii=False, separators=(",", ":"))
        printed = Printed()
        wasi = wasmtime.WasiConfig()
        wasi.argv = ["exec"]
        wasi.env = list(self.env.items())
        wasi.stdin_file = STDIN_FILE
        wasi.stdout_custom = printed.take
        wasi.stderr_custom = told
        store = wasmtime.Store(self.engine)
        store.set_limits(memory_size=self.memory_bytes)
        store.set_wasi(wasi)
        try:
            self.linker.instantiate(store, self.module).exports(store)[self.start](store)
        except wasmtime.ExitTrap:
            pass  # how a program ends is not asked: what it printed is
        except Exception as error:
            if printed.last():
                write(STDOUT, printed.last() + b"\n")
            log(str(error))
            return failed(f"An error has occurred: {reason(error)}")
        return reply(printed.last())


def told(data):
    write(STDERR, bytes(data))
    return len(data)


def reason(error):
    """The end of what is a long story: which trap it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(": ")[2] or lines[-1] if lines else type(error).__name__


def reply(line):
    """What was printed last, if it is a JSON object or array; else it is a log line like the others."""
    try:
        if isinstance(json.loads(line), (dict, list)):
            return line
    except (ValueError, RecursionError):
        pass
    if line:
        write(STDOUT, line + b"\n")
    return failed(NOT_A_DICTIONARY)


def init(line):
    """The action, or None, and the reply."""
    value = json.loads(line)["value"]
    if not value.get("folder"):
        return None, failed(NO_CODE)
    try:
        return Action(value, int(sys.argv[1])), b'{"ok":true}'
    except NoCode:
        return None, failed(NO_CODE)
    except Exception as error:
        log(str(error))
        return None, failed(NO_PROGRAM)


def is_init(message):
    """An init line that comes again: a run body says for which activation it is."""
    value = message.get("value")
    return len(message) == 1 and isinstance(value, dict) and {"name", "main", "env"} <= value.keys()


def main():
    lines, replies = open_channels()
    line = lines.readline()
    if not line:
        return
    action, answer = init(line)
    write(replies, answer + b"\n")
    for line in lines:
        message = json.loads(line)
        if is_init(message):
            log(TWICE)
            answer = failed(TWICE)
        else:
            answer = failed(NOT_INITIALIZED) if action is None else action.run(message)
        write(replies, answer + b"\n")


if __name__ == "__main__":
    main()
