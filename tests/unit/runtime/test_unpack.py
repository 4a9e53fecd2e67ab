"""The unpacker: what it makes of good archives, and that no hostile one gets further than a sentence."""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from visp.runtime import unpack
from visp.runtime.unpack import BYTES, FILE, FOLDER, HARD_LINK, LINK, PROGRAM, Refused

_spec = importlib.util.spec_from_file_location("archives", Path(__file__).parents[1] / "archives.py")
assert _spec is not None
assert _spec.loader is not None
archives = importlib.util.module_from_spec(_spec)
sys.modules["archives"] = archives
_spec.loader.exec_module(archives)
Z, zip_of, header, tar_file, END = archives.Z, archives.zip_of, archives.header, archives.tar_file, archives.END

PROGRAM_PATH = Path(unpack.__file__)
MEMORY_KB = 200_000


def entries(archive: bytes, *, alone: str = "") -> dict[str, object]:
    """What an archive holds: folders None, files their content, programs in a tuple, links their target in a list."""
    found: dict[str, object] = {}
    path = ""
    for letter, payload in unpack.unpack(archive, alone):
        data = bytes(payload)
        if letter == BYTES:
            held = found[path]
            found[path] = (held[0] + data,) if isinstance(held, tuple) else held + data
        elif letter in (LINK, HARD_LINK):
            name, _, target = data.partition(b"\0")
            found[name.decode()] = [letter.decode(), target.decode()]
        else:
            path = data.decode()
            assert path not in found
            found[path] = {FOLDER: None, FILE: b"", PROGRAM: (b"",)}[letter]
    return found


def run(archive: bytes, *arguments: str) -> tuple[list[tuple[bytes, bytes]], int]:
    """The program itself, with little memory: its frames, and how it ended. Its input is not closed."""
    limited = f'ulimit -v {MEMORY_KB}; exec "$@" 3>&1 1>&2'
    command = ["/bin/sh", "-c", limited, "sh", sys.executable, "-I", "-S", str(PROGRAM_PATH), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(struct.pack(">Q", len(archive)) + archive)
        process.stdin.flush()
        said = process.stdout.read()
    frames, at = [], 0
    while at < len(said):
        letter, size = struct.unpack_from(">cL", said, at)
        frames.append((letter, said[at + 5 : at + 5 + size]))
        at += 5 + size
    return frames, process.returncode


# ── hostile ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", archives.HOSTILE)
def test_hostile_archive_is_refused_with_a_sentence(name: str) -> None:
    make, words = archives.HOSTILE[name]
    archive, given = make(), 0

    def look() -> None:
        nonlocal given
        for letter, payload in unpack.unpack(archive):
            assert letter in (BYTES, LINK) or not {b"..", b"", b"."} & set(bytes(payload).split(b"/"))
            given += len(payload) if letter == BYTES else 0

    with pytest.raises(Refused) as caught:
        look()
    assert given <= max(unpack.FREE_BYTES, unpack.RATIO * len(archive))
    sentence = str(caught.value)
    assert words in sentence
    assert sentence.isprintable()
    assert len(sentence) < 300


def test_tar_of_headers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "ENTRIES", 100)
    with pytest.raises(Refused, match="one more than the 100 entries"):
        entries(header(b"g", b"g") * 301 + END)


@pytest.mark.parametrize(
    "name",
    [
        "zip ratio",
        "zip ratio hidden",
        "zip deflate garbage",
        "tar.gz ratio",
        "tar.gz bomb in a header",
        "tar.gz bad sum",
    ],
)
def test_the_program_says_why_and_needs_little_memory(name: str) -> None:
    make, words = archives.HOSTILE[name]
    frames, status = run(make())
    assert status == 0
    assert [letter for letter, _ in frames] == [b"!"]
    assert words in frames[0][1].decode()


# ── good ────────────────────────────────────────────────────────────────────────────────────────────────────────

TREE = {"package.json": b"{}", "index.js": b"exports.main = 1", "lib/deep/data.bin": bytes(range(256)) * 999}
AS_ENTRIES = {"package.json": b"{}", "index.js": b"exports.main = 1", "lib": None, "lib/deep": None} | {
    "lib/deep/data.bin": TREE["lib/deep/data.bin"]
}


def streamed_zip() -> bytes:
    """With sizes after the content, as programs write that cannot seek."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, data in TREE.items():
            archive.writestr(name, data)
    return bytes(pipe.data)


def zip64() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in TREE.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
    return out.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda: archives.zip_files(TREE),
        streamed_zip,
        zip64,
        lambda: archives.tar_folder(TREE),
        lambda: gzip.compress(archives.tar_folder(TREE)),
        lambda: (
            gzip.compress(archives.tar_folder(TREE)[:700]) + gzip.compress(archives.tar_folder(TREE)[700:]) + b"junk"
        ),
        lambda: archives.tar_folder({"./" + name: data for name, data in TREE.items()}),
        lambda: zip_of(*(Z(name=name.encode(), data=data) for name, data in TREE.items()), comment=b"made by hand"),
    ],
    ids=["zip", "streamed zip", "zip64", "tar", "tar.gz", "tar.gz in two members", "tar with ./", "zip with a comment"],
)
def test_good_archive_keeps_every_byte(make) -> None:
    assert entries(make()) == AS_ENTRIES


def test_the_program_ends_with_an_end() -> None:
    frames, status = run(archives.zip_files({"a/b": b"content"}))
    assert status == 0
    assert frames == [(b"D", b"a"), (b"F", b"a/b"), (b"B", b"content"), (b"E", b"")]


def test_the_program_takes_a_program_when_told_so() -> None:
    frames, _ = run(b"\x7fELF rest", "program")
    assert frames == [(b"X", b"exec"), (b"B", b"\x7fELF rest"), (b"E", b"")]


def test_links_inside_stay_links() -> None:
    archive = zip_of(
        Z(name=b"node_modules/tool/cli.js", data=b"#!/usr/bin/env node"),
        archives.zip_link(b"node_modules/.bin/tool", b"../tool/cli.js"),
        archives.zip_link(b"node_modules/me", b".."),
        archives.zip_link(b"virtualenv/lib64", b"./lib//"),
        archives.zip_link(b"here", b"."),
    )
    found = entries(archive)
    assert found["node_modules/.bin/tool"] == ["L", "../tool/cli.js"]
    assert found["node_modules/me"] == ["L", ".."]
    assert found["virtualenv/lib64"] == ["L", "lib"]
    assert found["here"] == ["L", "."]


def test_hard_link_to_an_earlier_file() -> None:
    found = entries(tar_file(b"d/a", b"data") + header(b"b", b"1", target=b"./d/a") + END)
    assert found == {"d": None, "d/a": b"data", "b": ["H", "d/a"]}


def test_what_can_be_executed() -> None:
    found = entries(
        zip_of(
            Z(name=b"mode", mode=0o100755),
            Z(name=b"setuid", mode=archives.SETUID),
            Z(name=b"script", data=b"#!/bin/sh"),
            Z(name=b"elf", data=b"\x7fELF"),
            Z(name=b"plain", data=b"# !"),
        )
    )
    assert {name for name, content in found.items() if isinstance(content, tuple)} == {
        "mode",
        "setuid",
        "script",
        "elf",
    }
    assert entries(tar_file(b"x", mode=0o4755) + END) == {"x": (b"x",)}


def test_names_in_any_alphabet() -> None:
    found = entries(zip_of(Z(name="naïve.js".encode()), Z(name=b"old-\x81.js"), Z(name=b"A"), Z(name=b"a")))
    assert list(found) == ["naïve.js", "old-ü.js", "A", "a"]


def test_long_names_of_both_tars() -> None:
    long = "/".join(["n" * 150] * 5)
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=format) as archive:
            archive.addfile(tarfile.TarInfo(long))
        assert entries(out.getvalue())[long] == b""


def test_archive_in_an_archive_stays_one() -> None:
    """Also when the inner ones would be a bomb, or the archive itself: nothing is unpacked twice."""
    inner = archives.zip_files({"bomb": bytes(9 * archives.MIB)})
    assert entries(archives.zip_files({"a.zip": inner, "b.zip": inner})) == {"a.zip": inner, "b.zip": inner}


def test_small_content_may_have_any_ratio() -> None:
    archive = archives.zip_files({"zeros": bytes(9 * archives.MIB)})
    assert len(entries(archive)["zeros"]) == 9 * archives.MIB  # type: ignore[arg-type]


def test_empty_archives() -> None:
    assert entries(zip_of()) == {}
    assert entries(header(b"./", b"5") + END) == {}


def test_runs_on_the_oldest_python_that_actions_may_have() -> None:
    """Nothing in it needs more than the syntax of 3.8; what only types need is not imported when it runs."""
    import ast

    ast.parse(PROGRAM_PATH.read_text(), feature_version=(3, 8))
    assert not stat.S_IMODE(os.stat(PROGRAM_PATH).st_mode) & 0o111
