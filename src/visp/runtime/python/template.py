"""A Python that is up and warm, and whose children become containers: it holds no tenant's data, ever.

It is started like the launcher, under the launcher's own name, so that a child finds the interpreter in the very state
that a fresh one would have: flags, `sys.argv`, `sys.path`, encodings. Modules that actions use most are loaded already;
every one makes each fork a little dearer, so what few use, or what draws secrets when it is loaded (`multiprocessing`),
is not among them. There are no threads here.
"""

import gc
import json
import random
import sys
import threading

import enclosure

WARM = """
json io os types fcntl importlib.util traceback
asyncio base64 collections contextlib copy csv dataclasses datetime decimal email.message enum functools hashlib hmac
html http.client inspect itertools logging math operator pathlib queue random re shutil socket ssl string struct
subprocess tempfile textwrap threading time typing unicodedata urllib.parse urllib.request uuid zlib
"""
"""The first line is what the launcher itself loads."""


def warm(names):
    for name in [*WARM.split(), *names]:
        try:
            __import__(name)
        except ImportError:
            pass


def begin(names):
    """The launcher's code, in a child that was told to run it; `names` become those of a fresh `__main__`."""
    warm(json.loads(enclosure.read_plan())["imports"])
    ready = enclosure.settle()
    with open(sys.argv[0], "rb") as file:
        code = compile(file.read(), sys.argv[0], "exec")
    gc.collect()
    gc.freeze()
    other = enclosure.serve(ready)
    random.seed()  # this and the next are what of `os.fork` is missed
    threading.main_thread()._set_native_id()
    if other is not None:
        sys.argv[:], code = other
    del sys.modules["enclosure"]
    for name in [name for name in names if not name.startswith("__")]:
        del names[name]
    names["__doc__"] = None
    return code


exec(begin(globals()), globals())
