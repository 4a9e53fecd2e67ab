"""Runs a Python action inside its container: JSON lines on standard input, replies as JSON lines on descriptor 3.

The first line is init: `{"value": {name, main, binary, code | folder, env}}`. Every later line is a run body:
`{"value", "namespace", "action_name", "action_version", "activation_id", "transaction_id", "deadline", "api_key"?}`.
A reply is what the kind's official image answers: a plain line for 200, a line that begins with `!` for an error
status. The line `{"rest":true}` says that nothing is under way and a pause is near; it has no answer. Standard output
and error are the logs, flushed before each reply. A result that comes in parts, and several runs at once (`concurrency`
in init's value), are `extras.py`'s.

Standard library only, and little of it: what is imported here is part of every cold start. Python 3.8 and newer. Before
user code is loaded both channels move to descriptors that no child inherits.
"""

import fcntl
import io
import json
import os
import sys
import time
import types

FIRST_PRIVATE = 100
BUFFER_BYTES = 1 << 20
IMPORT_S = 0.005
"""What takes less is not worth being loaded before."""
NOT_FOUND = "The action failed to generate or locate a binary. See logs for details."
PROGRAM = sys.argv[0]
REHEARSAL = """
import os
def main(args):
    name = args.get("name", "a")
    return {"value": f"{name}!", "more": [1, 2.5, None], "length": len(os.environ)}
"""
TWICE = "Cannot initialize the action more than once."
NOT_A_DICTIONARY = "The action did not return a dictionary or array."


def private(descriptor):
    """The same channel under a high number that programs started by the action do not inherit."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_PRIVATE)
    os.close(descriptor)
    return moved


def open_channels():
    lines = io.BufferedReader(io.FileIO(private(0), "r"), BUFFER_BYTES)
    replies = private(3)
    null = os.open(os.devnull, os.O_RDONLY)
    if null != 0:
        os.dup2(null, 0)
        os.close(null)
    sys.stdin = open(0, closefd=False)
    sys.stdout.reconfigure(line_buffering=True)
    return lines, replies


def write(replies, text):
    data = memoryview(text.encode("utf-8", "surrogatepass") + b"\n")
    while data:
        data = data[os.write(replies, data) :]


def fail(replies, sentence):
    write(replies, "!" + json.dumps({"error": sentence}))


def show_error():
    """The current exception with its traceback, on standard error."""
    sys.__excepthook__(*sys.exc_info())


def flush():
    sys.stdout.flush()
    sys.stderr.flush()


def extras():
    """The rest of this launcher, which lies beside it and is read when it is first needed."""
    found = sys.modules.get("visp_extras")
    if found is None:
        file = PROGRAM.replace("launcher.py", "extras.py")
        found = types.ModuleType("visp_extras")
        with open(file) as source:
            exec(compile(source.read(), file, "exec"), found.__dict__)
        sys.modules["visp_extras"] = found
    return found


# ── init ────────────────────────────────────────────────────────────────────────────────────────────────────────


def load(value):
    """The user's function; raises whatever the user's code raises, or `LookupError` with what is missing."""
    os.environ.update(value.get("env") or {})
    name = value.get("main") or "main"
    module = load_folder(value["folder"]) if value.get("folder") else load_text(value.get("code") or "")
    found = getattr(module, name, None)
    if not callable(found):
        raise LookupError(f"Invalid action: no function named '{name}'")
    return found


def load_text(code):
    if not code.strip():
        raise LookupError("Missing main/no code to execute.")
    module = types.ModuleType("main__")
    module.__file__ = "/action/main__.py"
    sys.modules["main__"] = module
    sys.path.insert(0, "/action")
    exec(compile(code, module.__file__, "exec"), module.__dict__)
    return module


def load_folder(folder):
    os.chdir(folder)
    sys.path.insert(0, folder)
    environment = os.path.join(folder, "virtualenv")
    if os.path.isdir(environment):
        activate(environment)
    file = os.path.join(folder, "__main__.py")
    if not os.path.isfile(file):
        raise LookupError("Zip file does not include __main__.py at its root")
    import importlib.util

    spec = importlib.util.spec_from_file_location("main__", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["main__"] = module
    spec.loader.exec_module(module)
    return module


def activate(environment):
    """A virtual environment in the archive: its own script if it has one, and its packages in front of the system's."""
    script = os.path.join(environment, "bin", "activate_this.py")
    if os.path.isfile(script):
        with open(script) as file:
            exec(compile(file.read(), script, "exec"), {"__file__": script})
    library = os.path.join(environment, "lib")
    for entry in sorted(os.listdir(library)) if os.path.isdir(library) else ():
        packages = os.path.join(library, entry, "site-packages")
        if os.path.isdir(packages) and packages not in sys.path:
            sys.path.insert(1, packages)


def init(line, lines, replies):
    """The user's function, or None: then the reply says why. Does not return where several runs come at once."""
    value = json.loads(line)["value"]
    concurrency = value.get("concurrency") or 1
    several = extras().Several(replies, encode) if concurrency > 1 else None
    loaded, began_s = len(sys.modules), time.monotonic()
    try:
        found = load(value)
    except LookupError as error:
        print(error, file=sys.stderr)
        sentence = str(error)
    except BaseException:
        show_error()
        sentence = NOT_FOUND
    else:
        flush()
        slow = time.monotonic() - began_s > IMPORT_S
        answer = imported([*sys.modules][loaded:]) if slow else {"ok": True}
        if several is not None:
            write(replies, encode({**answer, "concurrent": True, "stream": True}))
            several.serve(found, lines.fileno(), concurrency, finish, failed, begin)
        write(replies, encode({**answer, "stream": True}) if slow else '{"ok":true,"stream":true}')
        return found
    flush()
    fail(replies, sentence)
    return None


def imported(names):
    """The answer that names what of the standard library was loaded: next time it will be there already."""
    ours = getattr(sys, "stdlib_module_names", ())
    names = [name for name in names if name.partition(".")[0] in ours]
    return {"ok": True, "imports": names}


# ── run ─────────────────────────────────────────────────────────────────────────────────────────────────────────

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
shown = {}


def show(message):
    """Each field of the run body as an environment variable; setting one is slow, so only what has changed."""
    for name, value in message.items():
        if name != "value" and shown.get(name) != value:
            shown[name] = value
            os.environ["__OW_" + name.upper()] = value


def begin(line):
    """The message of a run; None for a line that is none."""
    message = json.loads(line)
    if "rest" in message:
        return rest()
    show(message)
    return message


def run(action, message, lines, replies):
    """The reply line for one run."""
    show(message)
    try:
        result = action(message.get("value", {}))
        if not isinstance(result, (dict, list)):
            result = whole(result, lines, replies)
    except Exception as error:
        return failed(error)
    return finish(result)


def whole(result, lines, replies):
    """What is awaited, awaited; of what comes in parts nothing is left once they are passed on."""
    if isinstance(result, types.CoroutineType):
        import asyncio

        return asyncio.run(awaited(result, lines, replies))
    kind = type(result)
    if hasattr(kind, "__next__") or hasattr(kind, "__aiter__"):
        extras().Alone(lines, replies, encode).pass_on(result)
        return {}
    return result


async def awaited(coroutine, lines, replies):
    result = await coroutine
    kind = type(result)
    if hasattr(kind, "__next__") or hasattr(kind, "__aiter__"):
        await extras().Alone(lines, replies, encode).pass_on_async(result)
        return {}
    return result


def failed(error):
    """The reply for the exception that is being handled."""
    show_error()
    return encode({"error": str(error)})


def finish(result):
    """The reply for what the action returned."""
    if not isinstance(result, (dict, list)):
        return "!" + encode({"error": NOT_A_DICTIONARY})
    try:
        return encode(result)
    except (TypeError, ValueError, RecursionError) as error:
        show_error()
        return "!" + encode({"error": f"The result is not JSON: {error}"})


def rest():
    """What the last runs left behind is given back before the container stands still."""
    import ctypes
    import gc

    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        pass  # another C library


def is_init(message):
    """An init line that comes again: a run body says for which activation it is."""
    value = message.get("value")
    return len(message) == 1 and isinstance(value, dict) and {"name", "main", "env"} <= value.keys()


def rehearse():
    """What every start does, once before it counts: a forked process pays for each page of memory that it touches."""
    module = types.ModuleType("rehearsal")
    exec(compile(REHEARSAL, "rehearsal", "exec"), module.__dict__)
    message = json.loads('{"value":{"name":"a","code":"","env":{}},"deadline":"1"}')
    finish(module.main(message))
    with open(os.devnull) as null:
        null.read()


def main():
    lines, replies = open_channels()
    line = lines.readline()
    if not line:
        return
    action = init(line, lines, replies)
    stdout, stderr = sys.stdout, sys.stderr
    parse = json.loads
    for line in iter(lines.readline, b""):
        if action is None:
            fail(replies, "Cannot run: the action was not initialized.")
            continue
        if line[:1] == b"+":
            continue  # credit for parts that have all been written
        message = parse(line)
        if "rest" in message:
            rest()
            continue
        if is_init(message):
            print(TWICE, file=sys.stderr, flush=True)
            fail(replies, TWICE)
            continue
        text = run(action, message, lines, replies)
        if stdout is sys.stdout:
            stdout.flush()
            stderr.flush()
        else:
            flush()
        write(replies, text)


if __name__ == "__main__":
    main()
