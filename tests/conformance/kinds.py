"""The kinds that are held to one behaviour: their programs, and where they are known to differ.

A kind is an entry of `KINDS`, with a folder of programs. Its `everything` does what its argument's `do` says, and is
compiled once for all tests:

- `hello` name → `{"greeting": "Hello, NAME!"}`
- `same` value → `{"value": …}`
- `unicode` text: prints it, → `{"winter": "TEXT ☃ TEXT"}`
- `env` names → `{"env": {NAME: its value or null}, "keys": the argument's, sorted}`
- `error` → `{"error": {"code": 7}, "more": 1}`; `throw`: what its language throws, with the text `boom`
- `number` → 5; `nothing` → its language's nothing
- `logs`: the lines `out 1`, `err 1`, `out 2`, `err 2`, each to its stream, → `{}`
- `long` bytes → `{"text": "xxx…"}`; `length` text, of ASCII → `{"length": …}`
- `count` → `{"count": how often it has run in this container}`
- `chance`, of `CHANCE`: numbers by chance, of the usual kind and of the kind for keys → `{"chance": [TEXT, TEXT]}`
- `die`: is killed; `sleep`: for a minute; `eat`: takes memory until it may not

An array as argument → the same, backwards (typed languages: another program). With `main` as `other` says →
`{"by": "other"}`.

What a kind of programs that are compiled elsewhere is given is compiled by the tests.

`package` is a folder to be zipped: → `{"beside": "imported", "data": "read", "is_here": true}` by code and a file
beside it, and by looking into the working directory.
"""

from __future__ import annotations

import base64
import functools
import io
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from visp.premises import read_manifest
from visp.runtime import local
from visp.settings import load, runtimes_folder

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = Path(__file__).parent / "programs"
SUCCESS, APPLICATION, DEVELOPER = "success", "application error", "action developer error"
NO_RESPONSE = "The action did not produce a valid response and exited unexpectedly."
NOT_A_DICTIONARY = "The action did not return a dictionary or array."
EXITED = "command exited"
OUT_OF_MEMORY = "The action exhausted its memory and was aborted."
NO_BINARY = "The action failed to generate or locate a binary. See logs for details."
CHANCE = frozenset({"nodejs", "bun", "python", "php", "ruby", "java"})
"""Families whose containers may be children or copies of one process."""
MISSING = "Missing main/no code to execute."


@dataclass(frozen=True)
class Ending:
    """How a run is to end: its status, and the whole result, or what is in its error's text (or in the logs)."""

    status: str
    result: Any = None
    said: str = ""
    logged: str = ""


def fails(said: str, logged: str = "") -> Ending:
    return Ending(DEVELOPER, said=said, logged=logged)


Files = dict[str, bytes]


@dataclass(frozen=True)
class Library:
    """A real library of its ecosystem, in the archive of a program that uses it."""

    text: str
    made: Any
    files: Callable[[], Files]


@dataclass(frozen=True)
class Kind:
    """`install` says how a machine gets it. `is_common`: every machine that tests has it. `is_own`: the action's
    program speaks on the wire itself. `is_by_image`: nothing of it is on this machine.

    `everything` is the name of its program, in the folder that `programs` names in place of its family's; `compile` is
    given its path, where the kind takes no source. `arrays` is the name of a program for arrays, where types keep them
    apart. `timeout_ms` is enough to start it and to let it run out. `in_order`: its lines of both streams are logged as
    they were written. `eaten`: any of these endings is right. What is None does not exist for this kind.
    """

    name: str
    install: str
    everything: str
    thrown: Ending
    number: Ending | None
    nothing: Ending
    died: str | None
    broken: tuple[str, Ending]
    eaten: tuple[Ending, ...]
    is_common: bool = False
    is_own: bool = False
    is_by_image: bool = False
    image: str | None = None
    programs: str | None = None
    compile: Callable[[Path], str] | None = None
    main: str | None = None
    other: str | None = "other"
    absent: tuple[str, Ending] | None = None
    arrays: str | None = None
    counts: bool = True
    in_order: bool = True
    memory_mb: int = 256
    timeout_ms: int = 1000
    package: dict[str, Any] | None = field(
        default_factory=lambda: {"beside": "imported", "data": "read", "is_here": True}
    )
    package_main: str | None = None
    library: Library | None = None
    empty: Ending | None = field(default_factory=lambda: fails(MISSING))

    @property
    def folder(self) -> Path:
        return PROGRAMS / (self.programs or self.name.partition(":")[0])

    @property
    def code(self) -> str:
        program = self.folder / self.everything
        return program.read_text() if self.compile is None else self.compile(program)

    @property
    def code_for_arrays(self) -> str:
        return self.code if self.arrays is None else (self.folder / self.arrays).read_text()

    def exec(self, code: str, main: str | None = None) -> dict[str, Any]:
        """What of an action says how it runs."""
        exec = {"kind": self.name, "code": code} | ({} if self.image is None else {"image": self.image})
        return exec | ({} if main is None and self.main is None else {"main": main or self.main})

    def missing(self, home: Path) -> str | None:
        """Why it cannot run here, and what mends that; `home` is the folder of installed runtimes."""
        return None if self.is_by_image or self.name in installed(home) else f"{self.name} is not here: {self.install}"


@functools.cache
def installed(home: Path) -> frozenset[str]:
    """What a server of this machine offers without images."""
    manifest = read_manifest(load(environ=os.environ).settings)
    return frozenset(local.find(manifest, lambda name, *_: Path("/nowhere") / name, home))


def runtimes_here() -> Path:
    """What is installed on this machine, as its servers find it."""
    return runtimes_folder(load(environ=os.environ).settings)


def zipped(files: Files) -> str:
    """An archive of these, as code."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), content)
    return base64.b64encode(out.getvalue()).decode()


def tree(folder: Path, prefix: str = "", leaves: Callable[[Path], bool] = lambda path: True) -> Files:
    """The files below a folder, by their path in an archive."""
    return {prefix + str(path.relative_to(folder)): path.read_bytes() for path in _walk(folder) if leaves(path)}


def _walk(folder: Path) -> Iterator[Path]:
    for path, _, names in os.walk(folder):
        yield from (Path(path) / name for name in names if not name.endswith(".pyc"))


# ── libraries ───────────────────────────────────────────────────────────────────────────────────────────────────


def _python_library() -> Files:
    import markdown

    program = (PROGRAMS / "python/library.py").read_bytes()
    return {"__main__.py": program} | tree(Path(markdown.__file__).parent, "markdown/")


def _nodejs_library() -> Files:
    modules = ROOT / "demo/node_modules"
    if not (modules / "openwhisk").is_dir():
        pytest.skip("npm's openwhisk is not here: npm ci --prefix demo, as make test does")
    program = (PROGRAMS / "nodejs/library.js").read_bytes()
    return {"index.js": program} | tree(modules, "node_modules/", lambda path: "@octokit" not in path.parts)


def _php_library() -> Files:
    semver = Path("/usr/share/php/Composer/Semver")
    if not semver.is_dir():
        pytest.skip("composer's semver is not here: apt-get install php-composer-semver")
    program = (PROGRAMS / "php/library.php").read_bytes()
    loader = b"<?php require __DIR__ . '/composer/autoload.php';\n"
    return {"index.php": program, "vendor/autoload.php": loader} | tree(semver, "vendor/composer/")


def _ruby_library() -> Files:
    return {"main.rb": (PROGRAMS / "ruby/library.rb").read_bytes()}


def _java_library() -> Files:
    jar = Path("/usr/share/java/commons-lang3.jar")
    if not jar.exists():
        pytest.skip("commons-lang3 is not here: apt-get install libcommons-lang3-java")
    return tree(PROGRAMS / "java/library") | {"lib/commons-lang3.jar": jar.read_bytes()}


# ── the kinds ───────────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def _wasm(program: Path) -> str:
    """By Go, which the machine of tests has."""
    go = shutil.which("go", path="/usr/local/go/bin:/usr/bin")
    if go is None:
        pytest.skip("modules of WebAssembly are compiled by Go: install it in /usr/local/go")
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "everything.wasm"
        argv = [go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(module), str(program)]
        env = os.environ | {
            "GOOS": "wasip1",
            "GOARCH": "wasm",
            "GOCACHE": f"{folder}/cache",
            "GOFLAGS": "-buildvcs=false",
        }
        subprocess.run(argv, check=True, capture_output=True, env=env)
        return base64.b64encode(module.read_bytes()).decode()


def _nodejs(version: int, *, is_common: bool = False) -> Kind:
    return Kind(
        f"nodejs:{version}",
        f"Node.js {version} (visp runtime install nodejs:{version})",
        "everything.js",
        is_common=is_common,
        thrown=Ending(DEVELOPER, {"error": "An error has occurred: Error: boom"}),
        number=Ending(DEVELOPER, {"error": "The action did not return a dictionary."}),
        nothing=fails("The action did not produce a valid JSON or JSON Array response: null"),
        died=NO_RESPONSE,
        broken=("function main () { return ] }", fails("SyntaxError: Unexpected token ']'")),
        absent=("nope", fails("Action entrypoint 'nope' is not a function.")),
        eaten=(fails(OUT_OF_MEMORY), fails("exited unexpectedly"), fails("An error has occurred: RangeError")),
        library=Library("host", "function", _nodejs_library),
    )


def _python(version: str, *, is_common: bool = False) -> Kind:
    return Kind(
        f"python:{version}",
        f"a system Python {version} (visp runtime install python:{version})",
        "everything.py",
        is_common=is_common,
        thrown=Ending(APPLICATION, {"error": "boom"}, logged="ValueError: boom"),
        number=fails(NOT_A_DICTIONARY),
        nothing=fails(NOT_A_DICTIONARY),
        died=EXITED,
        broken=("def main(args) return", fails(NO_BINARY, "SyntaxError")),
        absent=("nope", fails("Invalid action: no function named 'nope'")),
        eaten=(fails(OUT_OF_MEMORY), Ending(APPLICATION, logged="MemoryError"), fails(EXITED)),
        library=Library("*word*", "<p><em>word</em></p>", _python_library),
    )


KINDS = (
    _nodejs(20, is_common=True),
    _nodejs(18),
    _nodejs(22),
    _nodejs(24),
    replace(
        _nodejs(20),
        name="bun:1",
        install="visp runtime install bun",
        programs="nodejs",
        is_common=False,
        nothing=fails(NOT_A_DICTIONARY),
        died=EXITED,
        broken=("function main () { return ] }", fails("Initialization has failed due to: BuildMessage: Unexpected ]")),
    ),
    _python("3.11", is_common=True),
    replace(_python("3.10"), library=None),  # Python-Markdown's expressions are of 3.11
    _python("3.12"),
    _python("3.13"),
    Kind(
        "deno:2",
        "visp runtime install deno",
        "everything.ts",
        thrown=Ending(APPLICATION, {"error": "boom"}, logged="boom"),
        number=fails(NOT_A_DICTIONARY),
        nothing=fails(NOT_A_DICTIONARY),
        died=EXITED,
        broken=("export function main () { return ] }", fails(NO_BINARY, "Expression expected")),
        absent=("nope", fails(NO_BINARY, "a function 'nope'")),
        eaten=(fails(OUT_OF_MEMORY), fails(EXITED), Ending(APPLICATION, said="llocation failed")),
        timeout_ms=5000,
    ),
    Kind(
        "wasm:1",
        "visp runtime install wasm",
        "everything.go",
        compile=_wasm,
        other=None,
        counts=False,
        in_order=False,
        thrown=fails(NOT_A_DICTIONARY, "panic: boom"),
        number=fails(NOT_A_DICTIONARY),
        nothing=fails(NOT_A_DICTIONARY),
        died=None,
        broken=("(module (nothing))", fails(NO_BINARY, "nothing")),
        absent=("nope", fails(NO_BINARY, "the module exports no function 'nope'")),
        eaten=(fails(OUT_OF_MEMORY), fails(NOT_A_DICTIONARY, "out of memory"), fails("An error has occurred")),
        timeout_ms=20_000,
        package=None,
    ),
    Kind(
        "native:1",
        "a system Python (apt-get install python3)",
        "everything",
        is_common=True,
        is_own=True,
        thrown=fails(EXITED, "ValueError: boom"),
        number=fails(NOT_A_DICTIONARY),
        nothing=fails(NOT_A_DICTIONARY),
        died=EXITED,
        broken=("#!/usr/bin/no-such-program\n", fails("Cannot start action. Check logs for details.")),
        other=None,
        eaten=(fails(OUT_OF_MEMORY), fails(EXITED, "MemoryError")),
    ),
    Kind(
        "blackbox",
        "a system Python (apt-get install python3)",
        "everything",
        is_common=True,
        image="openwhisk/dockerskeleton",
        programs="skeleton",
        thrown=fails(NOT_A_DICTIONARY, "ValueError: boom"),
        number=fails(NOT_A_DICTIONARY),
        nothing=fails(NOT_A_DICTIONARY),
        died=NOT_A_DICTIONARY,
        broken=("#!/usr/bin/no-such-program\n", fails(NOT_A_DICTIONARY, "No such file or directory")),
        other=None,
        counts=False,
        eaten=(fails(OUT_OF_MEMORY), fails(NOT_A_DICTIONARY)),
        empty=None,
    ),
    Kind(
        "go:1.26",
        "Go 1.26 in /usr/local/go",
        "everything.go",
        is_own=True,
        arrays="arrays.go",
        other="other",
        thrown=fails(EXITED, "panic: boom"),
        number=fails(NOT_A_DICTIONARY),
        nothing=fails(NOT_A_DICTIONARY),
        died=EXITED,
        broken=("package main\n\nfunc Main( {\n", fails("syntax error")),
        absent=("nope", fails("undefined: Nope")),
        eaten=(fails(OUT_OF_MEMORY), fails(EXITED, "out of memory")),
        empty=None,
    ),
    Kind(
        "php:8.2",
        "apt-get install php-cli php-mbstring",
        "everything.php",
        thrown=fails(NOT_A_DICTIONARY, "boom"),
        number=fails(NOT_A_DICTIONARY),
        nothing=Ending(SUCCESS, {}),
        died=EXITED,
        broken=("<?php function main( { }", fails(NO_BINARY, "ParseError")),
        absent=("nope", fails("Function nope does not exist.")),
        eaten=(fails(OUT_OF_MEMORY), fails(NOT_A_DICTIONARY, "Out of memory"), fails(EXITED)),
        timeout_ms=2000,
        library=Library("^1.2", True, _php_library),
    ),
    Kind(
        "ruby:3.1",
        "apt-get install ruby",
        "everything.rb",
        thrown=fails("Invalid Action: the execution was not successful. / ", "boom"),
        number=fails(NOT_A_DICTIONARY),
        nothing=fails(NOT_A_DICTIONARY),
        died=EXITED,
        broken=("def main(args) }", fails("Invalid Ruby Code: failed to parse the input code", "SyntaxError")),
        absent=("nope", fails("Invalid Ruby Code: method checking failed / ")),
        eaten=(fails(OUT_OF_MEMORY), fails("the execution was not successful", "NoMemoryError"), fails(EXITED)),
        timeout_ms=3000,
        library=Library("<a>word</a>", "word", _ruby_library),
    ),
    Kind(
        "java:17",
        "apt-get install openjdk-17-jre-headless libgoogle-gson-java",
        "Everything.java",
        main="Everything",
        other="Everything#other",
        thrown=fails(
            "An error has occurred while invoking the action (see logs for details): java.lang.Exception: boom",
            "Exception: boom",
        ),
        number=None,
        nothing=fails("java.lang.NullPointerException: The action returned null"),
        died=EXITED,
        broken=("public class Everything { int }", fails("<identifier> expected")),
        absent=(
            "Everything#nope",
            fails("An error has occurred (see logs for details): java.lang.NoSuchMethodException"),
        ),
        eaten=(fails(OUT_OF_MEMORY), fails("java.lang.OutOfMemoryError")),
        timeout_ms=8000,
        package={"beside": "imported", "data": "read"},
        package_main="Main",
        library=Library("word", "drow", _java_library),
        empty=None,
    ),
    Kind(
        "swift:5.7",
        "visp runtime install swift",
        "everything.swift",
        is_own=True,
        thrown=Ending(APPLICATION, {"error": "boom"}),
        number=Ending(APPLICATION, said="which is no JSON object or array"),
        nothing=Ending(APPLICATION, said="which is no JSON object or array"),
        died=EXITED,
        broken=("func main(args: Any) -> Any { return ] }", fails("main.swift:1:38: error: expected expression")),
        absent=("nope", fails("cannot find 'nope' in scope")),
        eaten=(fails(OUT_OF_MEMORY), fails(EXITED)),
        timeout_ms=3000,
        package={"beside": "imported"},
    ),
    Kind(
        "rust:1.95",
        'visp runtime install rust:1.95 --from "$(rustc --print sysroot)"',
        "everything.rs",
        is_own=True,
        thrown=Ending(APPLICATION, {"error": "boom"}),
        number=fails(NOT_A_DICTIONARY),
        nothing=fails(NOT_A_DICTIONARY),
        died=EXITED,
        broken=("pub fn main() -> { }", fails("expected type")),
        absent=("nope", fails("cannot find")),
        eaten=(fails(OUT_OF_MEMORY), fails(EXITED)),
        timeout_ms=2000,
        package={"beside": "imported"},
    ),
)
