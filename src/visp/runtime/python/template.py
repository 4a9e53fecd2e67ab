"""A Python that is up and warm, and whose children become containers: it holds no tenant's data, ever.

It is started like the launcher, under the launcher's own name, so that a child finds the interpreter in the very state
that a fresh one would have: flags, `sys.argv`, `sys.path`, encodings. Modules that actions use most are loaded already;
every one makes each fork a little dearer, so what is large (`asyncio`, `ssl`) is left to templates for those who import
it, and what draws secrets when it is loaded (`multiprocessing`) to nobody's. There are no threads here.
"""

import gc
import json
import random
import sys
import threading
import types

import enclosure

WARM = """
json io os types fcntl importlib.util traceback
base64 collections contextlib copy csv datetime enum functools itertools logging math operator random re socket string
struct textwrap threading time zlib
"""
"""The first line is what the launcher itself loads."""


def warm(names):
    for name in [*WARM.split(), *names]:
        try:
            __import__(name)
        except ImportError:
            pass


def define(source, path, names):
    """What a launcher defines, also `rehearse`; its last words would run it, if it were the program by now."""
    names["__name__"] = "launcher"
    exec(compile(source, path, "exec"), names)
    names["__name__"] = "__main__"
    return names


def fresh(names):
    """A program's names as the interpreter gives them, in the place of the template's own."""
    module = types.ModuleType("__main__")
    module.__dict__.update((name, value) for name, value in names.items() if name.startswith("__"))
    sys.modules["__main__"] = module
    return module.__dict__


def begin():
    """The `main` of the launcher that a child was told to be, and all that it has of the template.

    That is kept: a child pays for each page in which it lets something go.
    """
    warm(json.loads(enclosure.read_plan())["imports"])
    ready = enclosure.settle()
    del sys.modules["enclosure"]
    launcher = define(enclosure.read(sys.argv[0]), sys.argv[0], fresh(globals()))
    others = {argv: (words, define(source, words[0], {})) for argv, (words, source) in ready.others.items()}

    def rehearse():
        random.seed()  # this and the next are what of `os.fork` is missed
        threading.main_thread()._set_native_id()
        launcher["rehearse"]()
        for _, names in others.values():
            names["rehearse"]()

    gc.collect()
    gc.freeze()
    command = enclosure.serve(ready, rehearse)
    names = launcher
    if command is not None:
        sys.argv[:], names = others[command]
    return names["main"], (ready, launcher, others)


main, kept = begin()
main()
