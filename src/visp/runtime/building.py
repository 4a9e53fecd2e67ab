"""Builds an action's code inside a sandbox: what comes of it goes to descriptor 3 as a tree.

Its arguments are a kind's `build.py`, the folder of the code, the one of what is primed, and `main`: paths, so that
drivers which mount nothing can say where these lie in truth. `build.py` has `build(source, target, main)`, which fills
the folder `target` from the folder `source`, and raises `Failed`. What the programs that it `run`s print goes to
standard output as it comes: it is what the deployer sees of a build under way. With `--prime` as a last argument there
is no code: `prime(target)` prepares what later builds are shown. All that is written is below `TMP`.

The frames are those of `unpack.py`, and `?` sentence: it went wrong for reasons that another try may not have. Standard
library only; Python 3.8 and newer. The host believes nothing of it and checks every frame again.
"""

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import traceback

REPLIES = 3
CHUNK_BYTES = 64 * 1024
SENTENCE_BYTES = 4000
TMP = os.environ.get("TMPDIR", "/tmp")
WORK, TARGET = os.path.join(TMP, "build"), os.path.join(TMP, "built")
PROGRAM = "exec"
PRIMED, PRIME = "/visp/primed", "--prime"
"""Where what was primed is seen, and the word that asks for it."""
UNREACHED = (
    "could not connect", "couldn't connect", "could not resolve", "couldn't resolve", "could not reach",
    "not reach host", "name resolution", "name or service not known", "no such host", "connection refused",
    "connection reset", "connection timed out", "network is unreachable", "failed to establish a new connection",
    "i/o timeout", "tls handshake timeout", "econnrefused", "econnreset", "enotfound", "etimedout", "eai_again",
    "err_socket_timeout", "tunnel connection failed", "proxyconnect", "proxyerror", "failed to open tcp connection",
    "unable to connect to", "unknown host", "connectionrefused", "failed to connect", "dns error",
    "error sending request", "bad gateway", "bad+gateway", "gateway timeout",
)  # fmt: skip
"""What package managers say of a registry that does not answer."""
AGAIN = (
    "A registry could not be reached. Try again later; an operator names another one, or a mirror, by the setting "
    "[build] environment."
)


class Failed(Exception):
    """The text is for the developer; `is_final`: the same code fails the same way again."""

    def __init__(self, sentence, is_final=True):
        super().__init__(sentence)
        self.is_final = is_final


def run(argv, folder, env=None, is_final=True):
    """Runs a program whose failure is the build's; its last words are then the sentence."""
    said = bytearray()
    with subprocess.Popen(
        argv,
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        for line in process.stdout:
            os.write(1, line)
            said += line
            del said[: -2 * SENTENCE_BYTES]
    if process.returncode != 0:
        name = os.path.basename(argv[0])
        text = bytes(said).decode("utf-8", "replace").strip() or f"{name} ended with status {process.returncode}"
        raise Failed(text, is_final)


class Unreached(Failed):
    """A registry did not answer."""


def resolve(argv, folder, env=None):
    """Runs a package manager. What a registry has can change, so that its failure need not be the last word."""
    try:
        run(argv, folder, env, is_final=False)
    except Failed as failed:
        said = str(failed)
        if not any(word in said.lower() for word in UNREACHED):
            raise
        raise Unreached(f"{said}\n{AGAIN}", is_final=False) from None


def say(text):
    """A line that the deployer sees."""
    os.write(1, text.encode("utf-8", "replace") + b"\n")


def copy(source, target):
    """The tree `source` as one that can be written."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    for folder, _, names in os.walk(target):
        os.chmod(folder, 0o755)
        for name in names:
            if not os.path.islink(os.path.join(folder, name)):
                os.chmod(os.path.join(folder, name), os.stat(os.path.join(folder, name)).st_mode | 0o200)


def walk(folder, path=b""):
    """`(letter, payload)` of every entry, folders before what is in them; of a file, then its content."""
    for name in sorted(os.listdir(os.path.join(folder, path))):
        inside = os.path.join(path, name) if path else name
        full = os.path.join(folder, inside)
        if os.path.islink(full):
            yield b"L", inside + b"\0" + os.readlink(full)
        elif os.path.isdir(full):
            yield b"D", inside
            yield from walk(folder, inside)
        elif os.path.isfile(full):
            yield b"X" if os.access(full, os.X_OK) else b"F", inside
            with open(full, "rb") as file:
                while True:
                    chunk = file.read(CHUNK_BYTES)
                    if not chunk:
                        break
                    yield b"B", chunk


def main(recipe, source, name, is_priming):
    with open(REPLIES, "wb", buffering=4 * CHUNK_BYTES) as replies:

        def reply(letter, payload=b""):
            replies.write(struct.pack(">cL", letter, len(payload)))
            replies.write(payload)

        try:
            os.makedirs(TARGET)
            if is_priming:
                recipe.prime(TARGET)
            else:
                recipe.build(source, TARGET, name)
            for letter, payload in walk(os.fsencode(TARGET)):
                reply(letter, payload)
        except Failed as failed:
            sentence = str(failed).encode("utf-8", "replace")
            reply(b"!" if failed.is_final else b"?", sentence[-SENTENCE_BYTES:])
        except Exception:  # the host reads what was printed until the replies end
            traceback.print_exc()
            sys.exit(1)
        else:
            reply(b"E")


if __name__ == "__main__":
    sys.modules["building"] = sys.modules["__main__"]
    program, source, PRIMED, name = sys.argv[1:5]
    spec = importlib.util.spec_from_file_location("recipe", program)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    main(recipe, source, name, PRIME in sys.argv[5:])
