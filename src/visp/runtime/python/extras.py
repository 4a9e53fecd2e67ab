"""What the launcher of Python kinds needs for some actions alone: results that come in parts, several runs at once.

It is read when it is first asked for: no other cold start pays for it. Standard library only, Python 3.8 and newer.

A part of a result is a line that begins with `+`: JSON, or `:` and the base64 of bytes. As many bytes of parts are
written as there is credit for, then the launcher waits for a line `+<bytes>` that gives more.

With several runs at once every line on descriptor 3 begins with `@<activation_id> `, and so does each line of credit.
What a run prints, in its own context, is a line with `>` (standard output) or `#` (standard error) before it; what is
printed outside of any run, by programs or by threads of the action's own, goes where it always does.
"""

import os
import sys
from binascii import b2a_base64

WINDOW_BYTES = 256 * 1024
"""The credit that each run begins with."""
TEXT_PIECE = 16 * 1024
BYTES_PIECE = 48 * 1024
VALUE_BYTES = 512 * 1024
LINE_BYTES = 64 * 1024
READ_BYTES = 64 * 1024


def parts_of(chunk, encode):
    """The part lines of one chunk: text and bytes in pieces, any other value whole."""
    if isinstance(chunk, str):
        for at in range(0, len(chunk), TEXT_PIECE):
            yield b"+" + encode(chunk[at : at + TEXT_PIECE]).encode("utf-8", "replace")
    elif isinstance(chunk, (bytes, bytearray, memoryview)):
        whole = memoryview(chunk).cast("B")
        for at in range(0, len(whole), BYTES_PIECE):
            yield b"+:" + b2a_base64(whole[at : at + BYTES_PIECE], newline=False)
    else:
        line = b"+" + encode(chunk).encode("utf-8", "replace")
        if len(line) > VALUE_BYTES:
            raise ValueError("A part of the result is larger than %d bytes." % VALUE_BYTES)
        yield line


def write_all(descriptor, data):
    data = memoryview(data)
    while data:
        data = data[os.write(descriptor, data) :]


# ── one run at a time ───────────────────────────────────────────────────────────────────────────────────────────


class Alone:
    """Passes on the result of a run that has the process for itself: to wait for credit is to read the next line."""

    def __init__(self, lines, replies, encode):
        self.lines = lines
        self.replies = replies
        self.encode = encode
        self.credit = WINDOW_BYTES

    def send(self, chunk):
        for line in parts_of(chunk, self.encode):
            write_all(self.replies, line + b"\n")
            self.credit -= len(line)
            while self.credit <= 0:
                given = self.lines.readline()
                if not given:
                    os._exit(0)  # nobody listens any more
                self.credit += int(given[1:])

    def pass_on(self, result):
        if hasattr(type(result), "__next__"):
            for chunk in result:
                self.send(chunk)
        else:
            import asyncio

            asyncio.run(self.pass_on_async(result))

    async def pass_on_async(self, result):
        if hasattr(type(result), "__next__"):
            self.pass_on(result)
        else:
            async for chunk in result:
                self.send(chunk)


# ── several runs at once ────────────────────────────────────────────────────────────────────────────────────────


class Run:
    """One of them: its name on the wire, its credit, and the beginnings of lines that it has printed."""

    __slots__ = ("credit", "ready", "rest", "tag")

    def __init__(self, id):
        self.tag = b"@" + id.encode() + b" "
        self.credit = WINDOW_BYTES
        self.ready = None
        """Set when there is credit again, for a result that comes through the event loop."""
        self.rest = {b">": b"", b"#": b""}
        """None once it is over."""


class Several:
    """Runs under way in this process: `async` ones as tasks of one event loop, all others in threads."""

    def __init__(self, replies, encode):
        import contextvars
        import io
        import threading

        self.replies = replies
        self.encode = encode
        self.runs = {}
        self.tasks = set()
        self.current = contextvars.ContextVar("visp_run", default=None)
        self.writing = threading.Lock()
        self.granted = threading.Condition()
        several = self

        class Printed(io.RawIOBase):
            """Standard output or error: what a run prints goes to descriptor 3 in its name."""

            def __init__(self, descriptor, mark):
                self.descriptor = descriptor
                self.mark = mark

            def writable(self):
                return True

            def fileno(self):
                return self.descriptor

            def write(self, data):
                run = several.current.get()
                if run is None or not several.print(run, self.mark, bytes(data)):
                    write_all(self.descriptor, data)
                return len(data)

        for name, descriptor, mark in (("stdout", 1, b">"), ("stderr", 2, b"#")):
            old = getattr(sys, name)
            old.flush()
            new = io.TextIOWrapper(Printed(descriptor, mark), old.encoding, old.errors, write_through=True)
            setattr(sys, name, new)

    def print(self, run, mark, data):
        """False for a run that is over: what it left behind prints for nobody."""
        with self.writing:
            if run.rest is None:
                return False
            lines = (run.rest[mark] + data).split(b"\n")
            rest = lines.pop()
            while len(rest) > LINE_BYTES:
                lines.append(rest[:LINE_BYTES])
                rest = rest[LINE_BYTES:]
            run.rest[mark] = rest
            head = run.tag + mark
            write_all(self.replies, b"".join([head + line + b"\n" for line in lines]))
        return True

    def reply(self, run, text):
        """The last that is heard of a run."""
        with self.writing:
            lines = [run.tag + mark + rest for mark, rest in run.rest.items() if rest]
            run.rest = None
            lines.append(run.tag + text.encode("utf-8", "surrogatepass"))
            write_all(self.replies, b"\n".join(lines) + b"\n")

    def write_part(self, run, line):
        with self.writing:
            write_all(self.replies, run.tag + line + b"\n")
        with self.granted:
            run.credit -= len(line)

    def pass_on(self, run, result):
        """In a thread."""
        for chunk in result:
            for line in parts_of(chunk, self.encode):
                self.write_part(run, line)
                with self.granted:
                    while run.credit <= 0:
                        self.granted.wait()

    async def pass_on_async(self, run, result):
        import asyncio

        run.ready = asyncio.Event()
        async for chunk in result:
            for line in parts_of(chunk, self.encode):
                self.write_part(run, line)
                while run.credit <= 0:
                    run.ready.clear()
                    await run.ready.wait()

    def grant(self, line):
        id, _, count = line[1:].partition(b" +")
        run = self.runs.get(id)
        if run is None:
            return
        with self.granted:
            run.credit += int(count)
            self.granted.notify_all()
        if run.ready is not None:
            run.ready.set()

    def serve(self, action, descriptor, concurrency, finish, fail, begin):
        """Runs whatever comes until nothing can come any more; never returns.

        `finish(result)` and `fail(error)` make reply lines, `begin(line)` parses one and shows it in the environment.
        """
        import asyncio
        import contextvars
        import inspect
        from concurrent.futures import ThreadPoolExecutor

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        threads = ThreadPoolExecutor(concurrency)
        is_async = inspect.iscoroutinefunction(action)

        def call(run, value):
            """In a thread: the reply, or what is to be awaited."""
            try:
                result = action(value)
                if hasattr(type(result), "__next__") and not inspect.isawaitable(result):
                    self.pass_on(run, result)
                    result = {}
            except Exception as error:
                return fail(error)
            return result if is_of_loop(result) else finish(result)

        def is_of_loop(result):
            return inspect.isawaitable(result) or hasattr(type(result), "__aiter__")

        async def answer(run, value):
            self.current.set(run)
            if is_async:
                result = action(value)
            else:
                result = await loop.run_in_executor(threads, contextvars.copy_context().run, call, run, value)
            if not isinstance(result, str):
                result = await awaited(run, result)
            del self.runs[run.tag[1:-1]]
            self.reply(run, result)

        async def awaited(run, result):
            try:
                if inspect.isawaitable(result):
                    result = await result
                if hasattr(type(result), "__aiter__"):
                    await self.pass_on_async(run, result)
                    result = {}
                elif hasattr(type(result), "__next__"):
                    await loop.run_in_executor(threads, contextvars.copy_context().run, self.pass_on, run, result)
                    result = {}
            except (Exception, asyncio.CancelledError) as error:
                return fail(error)
            return finish(result)

        def take(line):
            if line[:1] == b"@":
                self.grant(line)
                return
            message = begin(line)
            if message is None:
                return
            run = Run(message["activation_id"])
            self.runs[run.tag[1:-1]] = run
            task = loop.create_task(answer(run, message.get("value", {})))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        pieces = []

        def read():
            data = os.read(descriptor, READ_BYTES)
            if not data:
                end(0)
            *whole, rest = data.split(b"\n")
            for line in whole:
                pieces.append(line)
                line = b"".join(pieces)
                pieces.clear()
                take(line)
            if rest:
                pieces.append(rest)

        def end(code):
            """At once: threads that are left would be waited for."""
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

        loop.add_reader(descriptor, read)
        try:
            loop.run_forever()
        except SystemExit as exit:
            end(exit.code if isinstance(exit.code, int) else 0 if exit.code is None else 1)
        end(1)
