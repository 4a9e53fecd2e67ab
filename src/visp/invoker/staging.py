"""A folder that is filled from what a sandbox says about an archive, believing nothing of it.

Every frame is checked again here, by rules of its own, and every path is walked from the folder's descriptor one name
at a time without following a link. The frames are described in `runtime/unpack.py`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import struct
import threading
from enum import Enum
from pathlib import Path

import msgspec

from visp import wording
from visp.runtime.base import CodeRefused

PREFIX = ".staging-"
BLOCK_BYTES = 4096
"""What a file or folder takes on disk is a multiple of this."""

TOTAL_BYTES = 256 * 1024 * 1024
ENTRIES = 20_000
SEGMENT_BYTES = 255
PATH_BYTES = 2048
DEPTH = 50
STEPS = 200_000
"""Folders that may be opened: an archive whose entries jump between deep ones costs more than its size shows."""
SENTENCE_BYTES = 4096
CHUNK_BYTES = 64 * 1024


class Bounds(msgspec.Struct, frozen=True):
    """How much a folder may come to hold."""

    bytes: int
    entries: int


UNPACKED = Bounds(TOTAL_BYTES, ENTRIES)

_HEAD = struct.Struct(">cL")
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Distrusted(Exception):
    """What came from the sandbox is not what its program writes."""


class TooMuch(Distrusted):
    """It is larger than it may be."""


class Letter(bytes, Enum):
    FOLDER = b"D"
    FILE = b"F"
    PROGRAM = b"X"
    BYTES = b"B"
    LINK = b"L"
    HARD_LINK = b"H"
    END = b"E"
    REFUSED = b"!"
    FAILED = b"?"


LONGEST = {
    Letter.FOLDER: PATH_BYTES,
    Letter.FILE: PATH_BYTES,
    Letter.PROGRAM: PATH_BYTES,
    Letter.BYTES: CHUNK_BYTES,
    Letter.LINK: 2 * PATH_BYTES + 1,
    Letter.HARD_LINK: 2 * PATH_BYTES + 1,
    Letter.END: 0,
    Letter.REFUSED: SENTENCE_BYTES,
    Letter.FAILED: SENTENCE_BYTES,
}


class Staging:
    """One unpacking: `take` what comes, then `move` to where it belongs, or `discard`. All of it blocks.

    A live one holds an exclusive lock on its folder, so that nobody takes it for what a killed server left.
    """

    def __init__(self, path: Path, bounds: Bounds = UNPACKED) -> None:
        self.path = path
        self._bounds = bounds
        self.disk_bytes = BLOCK_BYTES
        path.mkdir(mode=0o700)
        self._root = os.open(path, _FOLDER_FLAGS)
        fcntl.flock(self._root, fcntl.LOCK_EX)
        self._buffer = bytearray()
        self._chunk_left = 0
        self._is_complete = False
        self._total_bytes = 0
        self._kinds: dict[tuple[bytes, ...], Letter] = {(): Letter.FOLDER}
        self._file = -1
        self._file_mode = 0
        self._file_bytes = 0
        self._open: list[tuple[bytes, int]] = []  # the folders on the way to the last entry
        self._steps = 0
        self._ending = threading.RLock()

    @classmethod
    def below(cls, folder: Path, bounds: Bounds = UNPACKED) -> Staging:
        return cls(folder / f"{PREFIX}{secrets.token_hex(8)}", bounds)

    @property
    def is_complete(self) -> bool:
        """Whether the sandbox has said that this was all."""
        return self._is_complete

    def take(self, data: bytes) -> None:
        """Raises `CodeRefused` with the sandbox's sentence, `Distrusted`, or `OSError`."""
        view = memoryview(data)
        while view:
            if self._is_complete:
                raise Distrusted("more after the end")
            if self._chunk_left:
                piece = view[: self._chunk_left]
                self._write(piece)
                self._chunk_left -= len(piece)
                view = view[len(piece) :]
            else:
                view = self._take_frame(view)

    def _take_frame(self, view: memoryview) -> memoryview:
        """Collects a frame's head and, save for content, its payload; what is left of `view`."""
        view = self._collect(view, _HEAD.size)
        if len(self._buffer) < _HEAD.size:
            return view
        code, size = _HEAD.unpack_from(self._buffer)
        try:
            letter = Letter(code)
        except ValueError:
            raise Distrusted(f"a frame called {code!r}") from None
        if size > LONGEST[letter]:
            raise Distrusted(f"a frame of {size} bytes")
        if letter is Letter.BYTES:
            if self._file < 0:
                raise Distrusted("content without a file")
            self._chunk_left = size
            self._buffer.clear()
            return view
        view = self._collect(view, _HEAD.size + size)
        if len(self._buffer) == _HEAD.size + size:
            payload = bytes(self._buffer[_HEAD.size :])
            self._buffer.clear()
            self._close_file()
            self._act(letter, payload)
        return view

    def _collect(self, view: memoryview, size: int) -> memoryview:
        missing = max(0, size - len(self._buffer))
        self._buffer += view[:missing]
        return view[missing:]

    def _act(self, letter: Letter, payload: bytes) -> None:
        if letter is Letter.END:
            self._is_complete = True
        elif letter in (Letter.REFUSED, Letter.FAILED):
            raise CodeRefused(_printable(payload), is_final=letter is Letter.REFUSED)
        elif letter is Letter.FOLDER:
            self._make_folder(self._add(payload, letter))
        elif letter in (Letter.FILE, Letter.PROGRAM):
            path = self._add(payload, letter)
            self._file = os.open(path[-1], _NEW_FILE_FLAGS, 0o600, dir_fd=self._folder_of(path))
            self._file_mode = 0o555 if letter is Letter.PROGRAM else 0o444
        else:
            name, separator, target = payload.partition(b"\0")
            if not separator:
                raise Distrusted("a link without a target")
            self._link(self._add(name, letter), target, letter)

    def _add(self, name: bytes, letter: Letter) -> tuple[bytes, ...]:
        """The checked path of a new entry, whose folder is there already."""
        path = split(name)
        if path in self._kinds:
            raise Distrusted("an entry that is there twice")
        if self._kinds.get(path[:-1]) is not Letter.FOLDER:
            raise Distrusted("an entry that does not lie in a folder")
        if len(self._kinds) > self._bounds.entries:
            raise TooMuch(f"more than {self._bounds.entries} entries")
        self._kinds[path] = letter
        self.disk_bytes += BLOCK_BYTES
        return path

    def _make_folder(self, path: tuple[bytes, ...]) -> None:
        parent = self._folder_of(path)
        os.mkdir(path[-1], 0o700, dir_fd=parent)
        made = os.open(path[-1], _FOLDER_FLAGS, dir_fd=parent)
        try:
            os.fchmod(made, 0o755)
        finally:
            os.close(made)

    def _link(self, path: tuple[bytes, ...], target: bytes, letter: Letter) -> None:
        if letter is Letter.LINK:
            check_target(path, target)
            os.symlink(target, path[-1], dir_fd=self._folder_of(path))
            return
        goal = split(target)
        if self._kinds.get(goal) not in (Letter.FILE, Letter.PROGRAM, Letter.HARD_LINK):
            raise Distrusted("a hard link to what is no file")
        source = os.dup(self._folder_of(goal))
        try:
            os.link(goal[-1], path[-1], src_dir_fd=source, dst_dir_fd=self._folder_of(path), follow_symlinks=False)
        finally:
            os.close(source)

    def _folder_of(self, path: tuple[bytes, ...]) -> int:
        """The folder that holds `path`. What it shares with the last one's way is open already."""
        shared = 0
        while shared < min(len(self._open), len(path) - 1) and self._open[shared][0] == path[shared]:
            shared += 1
        while len(self._open) > shared:
            os.close(self._open.pop()[1])
        for segment in path[shared:-1]:
            self._steps += 1
            if self._steps > STEPS:
                raise CodeRefused(wording.CODE_SCATTERED)
            above = self._open[-1][1] if self._open else self._root
            self._open.append((segment, os.open(segment, _FOLDER_FLAGS, dir_fd=above)))
        return self._open[-1][1] if self._open else self._root

    def _write(self, piece: memoryview) -> None:
        self._total_bytes += len(piece)
        self._file_bytes += len(piece)
        if self._total_bytes > self._bounds.bytes:
            raise TooMuch(f"more than {self._bounds.bytes} bytes")
        while piece:
            piece = piece[os.write(self._file, piece) :]

    def _close_file(self) -> None:
        if self._file < 0:
            return
        os.fchmod(self._file, self._file_mode)
        os.close(self._file)
        self.disk_bytes += self._file_bytes - self._file_bytes % -BLOCK_BYTES
        self._file, self._file_bytes = -1, 0

    def move(self, to: Path) -> None:
        """The tree appears under its name, whole. If another server was first, that one counts."""
        with self._ending:
            os.fchmod(self._root, 0o755)
            try:
                os.rename(self.path, to)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            fcntl.flock(self._root, fcntl.LOCK_UN)  # a child between its fork and its program has the descriptor too
            self.discard()

    def discard(self) -> None:
        """Lets go of every descriptor, and removes what is left under the staging's own name."""
        with self._ending:  # who is cancelled while `move` goes on in its thread comes here at once
            shutil.rmtree(self.path, ignore_errors=True)
            for descriptor in (self._file, *(descriptor for _, descriptor in self._open), self._root):
                if descriptor >= 0:
                    os.close(descriptor)
            self._file = self._root = -1
            self._open = []


def split(name: bytes) -> tuple[bytes, ...]:
    """A path's names; raises `Distrusted` for anything but a relative, normalised path of bounded length."""
    path = tuple(name.split(b"/"))
    if len(name) > PATH_BYTES or len(path) > DEPTH:
        raise Distrusted("a path that is too long")
    for segment in path:
        if segment in (b"", b".", b"..") or len(segment) > SEGMENT_BYTES or b"\0" in segment or b"\\" in segment:
            raise Distrusted(f"a path with {segment[:SEGMENT_BYTES]!r} in it")
    return path


def check_target(path: tuple[bytes, ...], target: bytes) -> None:
    """A symbolic link's target may go up only first, and no further than to the root.

    Its own folder is no link, so what it goes up to is inside; a link on its way down leads inside by the same rule.
    """
    segments = target.split(b"/")
    up = next((index for index, segment in enumerate(segments) if segment != b".."), len(segments))
    if up > len(path) - 1:
        raise Distrusted("a link that leads out")
    if segments != [b"."] and segments[up:]:
        split(b"/".join(segments[up:]))


def remove_leftovers(folder: Path) -> int:
    """Removes the stagings that no live server holds; how many."""
    left = [entry.path for entry in os.scandir(folder) if entry.name.startswith(PREFIX)]
    return sum(remove_unlocked(Path(path)) for path in left)


def remove_unlocked(path: Path) -> bool:
    """Removes a folder unless somebody holds a lock on it; it is renamed first, so that it is never there in part."""
    try:
        held = os.open(path, _FOLDER_FLAGS)
    except OSError:
        return not path.exists()
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        doomed = path.with_name(f"{PREFIX}{secrets.token_hex(8)}")
        os.rename(path, doomed)
    except OSError:
        return not path.exists()
    else:
        shutil.rmtree(doomed, ignore_errors=True)
        return True
    finally:
        os.close(held)


def lock_shared(path: Path) -> int:
    """A descriptor that keeps `path` from being removed, by any server; -1 when it is gone or going."""
    try:
        held = os.open(path, _FOLDER_FLAGS)
    except OSError:
        return -1
    with contextlib.suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(held), os.stat(path, follow_symlinks=False)):
            return held
    os.close(held)
    return -1


def measure(path: Path) -> int:
    """What a tree takes on disk, about."""
    total = BLOCK_BYTES
    for folder, folders, files in os.walk(path):
        total += BLOCK_BYTES * (len(folders) + len(files))
        for name in files:
            with contextlib.suppress(OSError):
                size = os.stat(os.path.join(folder, name), follow_symlinks=False).st_size
                total += size - size % -BLOCK_BYTES
    return total


def _printable(sentence: bytes) -> str:
    """A sentence from the sandbox as a record may hold it."""
    text = sentence.decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
