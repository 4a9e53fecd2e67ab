"""Unpacks an action's archive inside a sandbox: its bytes come on standard input, its entries go to descriptor 3.

Input: 8 bytes, big endian, how many bytes follow; then those bytes. Output: frames of one letter, a length (4 bytes,
big endian) and a payload. `D` path, a folder; `F` or `X` path, a file, or one that can be executed, whose content is
the `B` frames after it; `L` and `H` path NUL target, a symbolic or hard link; `E`, all is said; `!` sentence, the
archive is refused. Parents come before what is in them, each path once, relative, normalised.

Zip (stored, deflate), tar and tar.gz, told apart by how they begin. Both formats are read here rather than by the
standard library: its readers hold every entry in memory, and what they check differs between versions of Python.

One file because it is shown to a sandbox as one. Standard library only; Python 3.8 and newer. The host believes nothing
of it and checks every frame again.
"""

from __future__ import annotations

import re
import struct
import sys
import zlib
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    Frame = tuple[bytes, bytes | memoryview]
    Data = bytes | bytearray

MIB = 1024 * 1024
ARCHIVE_BYTES = 64 * MIB
ENTRIES = 20_000
TOTAL_BYTES = 256 * MIB
RATIO = 100
FREE_BYTES = 10 * MIB
"""An archive of any ratio may give this much."""
SEGMENT_BYTES = 255
PATH_BYTES = 2048
"""Half of what the kernel takes: the host's folder, or `/action`, comes before it."""
DEPTH = 50
CHUNK_BYTES = 64 * 1024
EXTENSION_BYTES = 64 * 1024
"""What extends one tar header; it is held as a whole."""
EXTENSIONS_BYTES = 8 * MIB
GZIP_MEMBERS = 10_000
SHOWN_LETTERS = 80

FOLDER, FILE, PROGRAM, BYTES, LINK, HARD_LINK, END, REFUSED = (b"D", b"F", b"X", b"B", b"L", b"H", b"E", b"!")
REPLIES = 3

GZIP_MAGIC = b"\x1f\x8b\x08"
CUT_OFF = "it ends early; was it cut off?"
NO_ARCHIVE = "The action's code is neither a zip nor a tar archive."


class Refused(Exception):
    """The archive is not unpacked; the text is a sentence for its developer."""


def refuse(name: bytes | None, rule: str) -> NoReturn:
    """`name` None: it is about the whole archive."""
    subject = "the archive" if name is None else f"entry '{shown(name)}'"
    raise Refused(f"The action's code cannot be unpacked: {subject} {rule}.")


def damaged(what: str) -> NoReturn:
    raise Refused(f"The action's code cannot be unpacked: the archive is damaged ({what}).")


def shown(name: bytes) -> str:
    """A name as a sentence can hold it: short, and what does not print is escaped."""
    text = readable(name)
    start = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:SHOWN_LETTERS])
    return start + ("…" if len(text) > SHOWN_LETTERS else "")


def readable(name: bytes) -> str:
    """UTF-8, or else what old zip programs wrote."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437")


def unpack(data: Data, alone: str = "") -> Iterator[Frame]:
    """The frames of an archive, without the last one; raises `Refused`, perhaps after some.

    `alone`: what is no archive is a file `exec`, which can be executed (`program`) or is what it looks like (`source`);
    else it is refused.
    """
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return unzip(data)
    if data[:3] == GZIP_MAGIC:
        return untar(Stream(bounded(gunzip(data), len(data))))
    if is_tar_header(bytes(data[:512])):
        return untar(Stream(pieces(memoryview(data))))
    if alone:
        return content(b"exec", 0o755 if alone == "program" else 0o644, pieces(memoryview(data)))
    raise Refused(NO_ARCHIVE)


def content(path: bytes, mode: int, chunks: Iterator[bytes | memoryview]) -> Iterator[Frame]:
    """A file; programs and scripts can be executed whatever their mode says. Set-user-id and the like are dropped."""
    first = next(chunks, b"")
    is_program = mode & 0o111 or first[:4] == b"\x7fELF" or first[:2] == b"#!"
    yield (PROGRAM if is_program else FILE), path
    if first:
        yield BYTES, first
    for chunk in chunks:
        yield BYTES, chunk


def pieces(data: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(data), CHUNK_BYTES):
        yield data[at : at + CHUNK_BYTES]


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Names:
    """The paths of an archive so far: what each is, and that no entry leads out of it or through another."""

    def __init__(self) -> None:
        self._kinds: dict[bytes, bytes] = {b"": FOLDER}

    def add(self, name: bytes, kind: bytes) -> Iterator[Frame]:
        """Checks `name`, then gives the folders above it that are not there yet, and itself if it is a folder."""
        path = clean(name)
        missing, above = [], parent(path)
        while above not in self._kinds:
            missing.append(above)
            above = parent(above)
        if self._kinds[above] == LINK:
            refuse(name, "lies below a symbolic link")
        if self._kinds[above] != FOLDER:
            refuse(name, "lies below what is no folder")
        for folder in reversed(missing):
            yield self._put(name, folder, FOLDER)
        if not path and kind != FOLDER:
            refuse(name, "has no name")
        held = self._kinds.get(path)
        if kind == FOLDER and held == FOLDER:
            return
        if held is not None:
            refuse(name, "is there twice")
        frame = self._put(name, path, kind)
        if kind == FOLDER:
            yield frame

    def _put(self, name: bytes, path: bytes, kind: bytes) -> Frame:
        if len(self._kinds) > ENTRIES:
            refuse(name, f"is one more than the {ENTRIES:,} entries that an archive may have")
        self._kinds[path] = kind
        return kind, path

    def link(self, name: bytes, target: bytes) -> Iterator[Frame]:
        """A symbolic link that stays inside: `..` only in front, so that no other link can lend it a way out."""
        if target.startswith(b"/"):
            refuse(name, "links to an absolute path")
        path = clean(name)
        segments = split(target)
        up = 0
        while up < len(segments) and segments[up] == b"..":
            up += 1
        if up > path.count(b"/"):
            refuse(name, "links to what is outside of the archive")
        check_segments(name, segments[up:])
        yield from self.add(name, LINK)
        yield LINK, path + b"\0" + (b"/".join(segments) or b".")

    def hard_link(self, name: bytes, target: bytes) -> Iterator[Frame]:
        """A second name of a file that came before."""
        goal = clean(target)
        if self._kinds.get(goal) != FILE:
            refuse(name, "is a hard link to what is no earlier file of the archive")
        yield from self.add(name, FILE)
        yield HARD_LINK, clean(name) + b"\0" + goal


def clean(name: bytes) -> bytes:
    """The path that a name stands for, relative and normalised; refuses what could mean another place."""
    if name.startswith(b"/"):
        refuse(name, "has an absolute path")
    if re.match(rb"[A-Za-z]:", name):
        refuse(name, "has a drive letter")
    segments = split(name)
    check_segments(name, segments)
    return b"/".join(segments)


def parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def split(path: bytes) -> list[bytes]:
    return [segment for segment in readable(path).encode().split(b"/") if segment not in (b"", b".")]


def check_segments(name: bytes, segments: list[bytes]) -> None:
    for segment in segments:
        if segment == b"..":
            refuse(name, "leads upward (..)")
        if b"\0" in segment:
            refuse(name, "has a NUL in its name")
        if b"\\" in segment:
            refuse(name, "has a backslash in its name")
        if len(segment) > SEGMENT_BYTES:
            refuse(name, f"has a name longer than {SEGMENT_BYTES} bytes")
    if len(segments) > DEPTH:
        refuse(name, f"is more than {DEPTH} folders deep")
    if sum(map(len, segments)) + len(segments) > PATH_BYTES:
        refuse(name, f"has a path longer than {PATH_BYTES:,} bytes")


def check_total(name: bytes | None, total: int) -> None:
    if total > TOTAL_BYTES:
        refuse(name, f"takes what is unpacked beyond {TOTAL_BYTES // MIB} MB")


def check_ratio(name: bytes | None, total: int, archive_bytes: int) -> None:
    if total > max(FREE_BYTES, RATIO * archive_bytes):
        refuse(name, f"takes what is unpacked beyond {RATIO} times the archive's size")


# ── zip ─────────────────────────────────────────────────────────────────────────────────────────────────────────

END_RECORD = struct.Struct("<4s4H2LH")
END_RECORD_64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR_64 = struct.Struct("<4sLQL")
CENTRAL = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
COMMENT_BYTES = 65_535
STORED, DEFLATED = 0, 8
ENCRYPTED = 0x0001 | 0x0040 | 0x2000
MADE_ON_UNIX = (3, 19)
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF


class Zipped(NamedTuple):
    """An entry as the central directory tells it; `start` is where its content begins."""

    name: bytes
    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    mode: int
    offset: int
    start: int


def unzip(data: Data) -> Iterator[Frame]:
    """Everything that the directory claims is checked before the first entry is unpacked, and again while it is."""
    entries = list(central_directory(data))
    last = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        if entry.offset < last:
            refuse(entry.name, "overlaps another")
        last = entry.start + entry.packed_bytes
    total = 0
    for entry in entries:
        total += entry.size_bytes
        check_total(entry.name, total)
        check_ratio(entry.name, total, len(data))
    names = Names()
    for entry in entries:
        yield from unzip_entry(memoryview(data), entry, names)


def unzip_entry(data: memoryview, entry: Zipped, names: Names) -> Iterator[Frame]:
    kind = entry.mode & 0o170000
    if entry.name.endswith(b"/") or kind == 0o040000:
        yield from names.add(entry.name, FOLDER)
    elif kind == 0o120000:
        if entry.size_bytes > PATH_BYTES:
            refuse(entry.name, f"links to a path longer than {PATH_BYTES:,} bytes")
        yield from names.link(entry.name, b"".join(inflate_entry(data, entry)))
    elif kind not in (0, 0o100000):
        refuse(entry.name, "is a device, a FIFO or a socket")
    else:
        yield from names.add(entry.name, FILE)
        yield from content(clean(entry.name), entry.mode, inflate_entry(data, entry))


def central_directory(data: Data) -> Iterator[Zipped]:
    start, end, count = find_directory(data)
    view, at, seen = memoryview(data), start, 0
    while at < end:
        if end - at < CENTRAL.size:
            damaged("its directory ends early")
        fields = CENTRAL.unpack_from(data, at)
        signature, made, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes, note_bytes = fields[:13]
        external, offset = fields[15:]
        if signature != b"PK\x01\x02":
            damaged("its directory does not read")
        at += CENTRAL.size
        name = bytes(view[at : at + name_bytes])
        extra = bytes(view[at + name_bytes : at + name_bytes + extra_bytes])
        at += name_bytes + extra_bytes + note_bytes
        if at > end:
            damaged("its directory ends early")
        seen += 1
        if seen > ENTRIES:
            refuse(name, f"is one more than the {ENTRIES:,} entries that an archive may have")
        if flags & ENCRYPTED:
            refuse(name, "is encrypted")
        if method not in (STORED, DEFLATED):
            refuse(name, f"is compressed by method {method}; stored and deflate are known")
        size, packed, offset = sizes_64(name, extra, size, packed, offset)
        mode = external >> 16 if made >> 8 in MADE_ON_UNIX else 0
        begin = content_start(data, name, method, offset)
        if begin + packed > start:
            damaged(f"entry '{shown(name)}' reaches beyond its end")
        yield Zipped(name, method, crc, packed, size, mode, offset, begin)
    if seen != count:
        damaged(f"it has {seen:,} entries and says {count:,}")


def find_directory(data: Data) -> tuple[int, int, int]:
    """Where the central directory begins and ends, and how many entries it says it has."""
    end = len(data)
    while True:
        end = data.rfind(b"PK\x05\x06", max(0, len(data) - END_RECORD.size - COMMENT_BYTES), end)
        if end < 0:
            damaged("it has no end record; was it cut off?")
        if end + END_RECORD.size <= len(data):
            fields = END_RECORD.unpack_from(data, end)
            if end + END_RECORD.size + fields[7] <= len(data):
                break
    _, disk, directory_disk, count_here, count, size, start, _ = fields
    if FULL_16 in (count, count_here) or FULL_32 in (size, start):
        end, disk, directory_disk, count_here, count, size, start = find_directory_64(data, end)
    if disk or directory_disk or count_here != count:
        damaged("it is one part of several")
    if start + size > end:
        damaged("its directory lies beyond its end")
    return start, start + size, count


def find_directory_64(data: Data, end: int) -> tuple[int, int, int, int, int, int, int]:
    at = end - LOCATOR_64.size
    if at < 0:
        damaged("it has no zip64 record")
    signature, _, record, _ = LOCATOR_64.unpack_from(data, at)
    if signature != b"PK\x06\x07" or record + END_RECORD_64.size > at:
        damaged("it has no zip64 record")
    signature, _, _, _, disk, directory_disk, count_here, count, size, start = END_RECORD_64.unpack_from(data, record)
    if signature != b"PK\x06\x06":
        damaged("it has no zip64 record")
    return record, disk, directory_disk, count_here, count, size, start


def sizes_64(name: bytes, extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Those of the three that do not fit into 32 bits stand in an extra field, in this order."""
    if FULL_32 not in (size, packed, offset):
        return size, packed, offset
    at = 0
    while at + 4 <= len(extra):
        id, length = struct.unpack_from("<2H", extra, at)
        if id == 1:
            there = min(length, len(extra) - at - 4) // 8
            wide = iter(struct.unpack_from(f"<{there}Q", extra, at + 4))
            values = [next(wide, FULL_32) if value == FULL_32 else value for value in (size, packed, offset)]
            return values[0], values[1], values[2]
        at += 4 + length
    damaged(f"entry '{shown(name)}' has no zip64 sizes")


def content_start(data: Data, name: bytes, method: int, offset: int) -> int:
    """Where an entry's content begins. Its own header must agree with the directory: readers trust one or the other."""
    if offset + LOCAL.size > len(data):
        damaged(f"entry '{shown(name)}' lies beyond its end")
    signature, _, flags, local_method, _, _, _, _, _, name_bytes, extra_bytes = LOCAL.unpack_from(data, offset)
    begin = offset + LOCAL.size
    if signature != b"PK\x03\x04" or local_method != method or data[begin : begin + name_bytes] != name:
        damaged(f"entry '{shown(name)}' differs from the directory")
    if flags & ENCRYPTED:
        refuse(name, "is encrypted")
    return begin + int(name_bytes) + int(extra_bytes)


def inflate_entry(data: memoryview, entry: Zipped) -> Iterator[bytes | memoryview]:
    """The content, checked against the size and sum that the directory claims."""
    packed = data[entry.start : entry.start + entry.packed_bytes]
    chunks = pieces(packed) if entry.method == STORED else inflate(packed, zlib.decompressobj(-15))
    size, crc = 0, 0
    for chunk in chunks:
        size += len(chunk)
        if size > entry.size_bytes:
            refuse(entry.name, "is larger than the archive says")
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if size != entry.size_bytes:
        refuse(entry.name, "is smaller than the archive says")
    if crc != entry.crc:
        refuse(entry.name, "does not have the check sum that the archive says")


def inflate(packed: memoryview, inflater: zlib._Decompress) -> Generator[bytes, None, int]:
    """Bounded pieces, then how much of `packed` that took."""
    at, rest = 0, b""
    while not inflater.eof:
        given = rest or packed[at : at + CHUNK_BYTES]
        at += 0 if rest else len(given)
        try:
            out = inflater.decompress(given, CHUNK_BYTES)
        except zlib.error as error:
            damaged(str(error))
        rest = inflater.unconsumed_tail
        if out:
            yield out
        elif not given:
            damaged(CUT_OFF)
    return at - len(inflater.unused_data)


# ── tar ─────────────────────────────────────────────────────────────────────────────────────────────────────────

BLOCK_BYTES = 512
ZEROS = bytes(BLOCK_BYTES)
TAR_FILES = (b"0", b"\0", b"7")
TAR_FOLDER, TAR_LINK, TAR_HARD_LINK = b"5", b"2", b"1"
TAR_SPECIAL = (b"3", b"4", b"6")
TAR_SPARSE = b"S"
GNU_NAME, GNU_LINK, PAX, PAX_GLOBAL = b"L", b"K", b"x", b"g"
OVERHEAD_BYTES = 32 * MIB
"""What headers and padding may take beside the content."""


def gunzip(data: Data) -> Iterator[bytes]:
    """The content of one gzip file, or of several in a row; what follows them is ignored."""
    packed = memoryview(data)
    for _ in range(GZIP_MEMBERS):
        used = yield from inflate(packed, zlib.decompressobj(31))
        packed = packed[used:]
        if packed[:2] != GZIP_MAGIC[:2]:
            return
    damaged(f"it has more than {GZIP_MEMBERS:,} gzip members")


def bounded(chunks: Iterator[bytes], archive_bytes: int) -> Iterator[bytes]:
    """A stream that is refused as soon as it has given too much: headers can be a bomb as well."""
    total = 0
    for chunk in chunks:
        total += len(chunk)
        check_total(None, total - OVERHEAD_BYTES)
        check_ratio(None, total, archive_bytes)
        yield chunk


class Stream:
    """Reads exactly as much as is asked for from pieces of any size."""

    def __init__(self, chunks: Iterator[bytes | memoryview]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Raises `Refused` when there is less."""
        parts: list[bytes | memoryview] = []
        while size > len(self._rest):
            parts.append(self._rest)
            size -= len(self._rest)
            chunk = next(self._chunks, None)
            if chunk is None:
                damaged(CUT_OFF)
            self._rest = memoryview(chunk)
        parts.append(self._rest[:size])
        self._rest = self._rest[size:]
        return b"".join(parts)

    def drain(self) -> None:
        """To the end: only there a compressed stream proves that it is whole."""
        for _ in self._chunks:
            pass


class Tarred(NamedTuple):
    """A header, with what its extensions say."""

    name: bytes
    type: bytes
    size_bytes: int
    mode: int
    target: bytes


def untar(stream: Stream) -> Iterator[Frame]:
    names, total, headers, extensions = Names(), 0, 0, 0
    overrides: dict[str, bytes] = {}
    while True:
        block = stream.read(BLOCK_BYTES)
        if block == ZEROS:
            break
        if not is_tar_header(block):
            if headers == 0:
                raise Refused(NO_ARCHIVE)
            damaged("a header of it does not read")
        headers += 1
        entry = tar_entry(block, overrides)
        if headers > 3 * ENTRIES:
            refuse(entry.name, f"is one more than the {ENTRIES:,} entries that an archive may have")
        if entry.type in (GNU_NAME, GNU_LINK, PAX, PAX_GLOBAL):
            extensions += entry.size_bytes
            if entry.size_bytes > EXTENSION_BYTES or extensions > EXTENSIONS_BYTES:
                refuse(entry.name, f"has headers longer than {EXTENSION_BYTES:,} bytes, or than 8 MB with all others")
            extend(overrides, entry, b"".join(tar_content(stream, entry.size_bytes)))
            continue
        overrides = {}
        if entry.type in TAR_FILES and not entry.name.endswith(b"/"):
            total += entry.size_bytes
            check_total(entry.name, total)
            yield from names.add(entry.name, FILE)
            yield from content(clean(entry.name), entry.mode, tar_content(stream, entry.size_bytes))
        else:
            yield from untar_other(entry, names)
    stream.drain()


def untar_other(entry: Tarred, names: Names) -> Iterator[Frame]:
    """What has no content."""
    if entry.type == TAR_FOLDER or entry.type in TAR_FILES:
        return names.add(entry.name, FOLDER)
    if entry.type == TAR_LINK:
        return names.link(entry.name, entry.target)
    if entry.type == TAR_HARD_LINK:
        return names.hard_link(entry.name, entry.target)
    if entry.type in TAR_SPECIAL:
        refuse(entry.name, "is a device or a FIFO")
    if entry.type == TAR_SPARSE:
        refuse(entry.name, "is a sparse file")
    refuse(entry.name, f"is of a type that is not known ({shown(entry.type)})")


def tar_content(stream: Stream, size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = stream.read(min(left, CHUNK_BYTES))
        left -= len(chunk)
        yield chunk
    stream.read(-size % BLOCK_BYTES)


def is_tar_header(block: bytes) -> bool:
    """Whether the sum of a header is right; it is what every tar has, old ones without a magic too."""
    if len(block) < BLOCK_BYTES or block == ZEROS:
        return False
    digits = block[148:156].strip(b" \0")
    return bool(re.match(rb"[0-7]+\Z", digits)) and int(digits, 8) == sum(block) - sum(block[148:156]) + 8 * 32


def tar_entry(block: bytes, overrides: dict[str, bytes]) -> Tarred:
    name = text_field(block[:100])
    prefix = text_field(block[345:500])
    if block[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    name = overrides.get("path", name)
    size = number_field(name, block[124:136])
    if "size" in overrides:
        if not re.match(rb"[0-9]{1,15}\Z", overrides["size"]):
            damaged(f"the size of entry '{shown(name)}' does not read")
        size = int(overrides["size"])
    target = overrides.get("linkpath", text_field(block[157:257]))
    return Tarred(name, block[156:157], size, number_field(name, block[100:108]), target)


def extend(overrides: dict[str, bytes], entry: Tarred, body: bytes) -> None:
    """What an extension header says about the entry after it. Global ones say nothing that matters here."""
    if entry.type == GNU_NAME:
        overrides["path"] = body[:-1] if body.endswith(b"\0") else body
    elif entry.type == GNU_LINK:
        overrides["linkpath"] = body[:-1] if body.endswith(b"\0") else body
    elif entry.type == PAX:
        for key, value in pax_records(entry.name, body):
            if key.startswith(b"GNU.sparse."):
                refuse(overrides.get("path", entry.name), "is a sparse file")
            overrides[key.decode("utf-8", "replace")] = value


def pax_records(name: bytes, body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`length key=value` lines; the length counts the whole line."""
    at = 0
    while at < len(body):
        found: re.Match[bytes] | None = re.compile(rb"([0-9]{1,7}) ([^=]+)=").match(body, at)
        end = at + int(found.group(1)) if found else 0
        if found is None or end <= found.end() or end > len(body) or body[end - 1 : end] != b"\n":
            damaged(f"a header of entry '{shown(name)}' does not read")
        yield found.group(2), body[found.end() : end - 1]
        at = end


def text_field(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def number_field(name: bytes, field: bytes) -> int:
    """Octal digits, or GNU's big endian bytes under a set first bit."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not re.match(rb"[0-7]*\Z", digits):
        damaged(f"a number of entry '{shown(name)}' does not read")
    return int(digits or b"0", 8)


# ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────


def read_archive() -> bytearray:
    with open(0, "rb", closefd=False) as source:
        (size,) = struct.unpack(">Q", source.read(8))
        if size > ARCHIVE_BYTES:
            raise Refused(f"The action's code is larger than {ARCHIVE_BYTES // MIB} MB.")
        data = bytearray(size)
        with memoryview(data) as view:
            at = 0
            while at < size:
                read = source.readinto(view[at:])
                if not read:
                    sys.exit("standard input ended early")
                at += read
    return data


def main() -> None:
    with open(REPLIES, "wb", buffering=4 * CHUNK_BYTES) as replies:

        def say(letter: bytes, payload: bytes | memoryview = b"") -> None:
            replies.write(struct.pack(">cL", letter, len(payload)))
            replies.write(payload)

        try:
            data, alone = read_archive(), "".join(sys.argv[1:])
            for _ in unpack(data, alone):
                pass  # twice: what is refused costs the host not one file
            for letter, payload in unpack(data, alone):
                say(letter, payload)
        except Refused as refused:
            say(REFUSED, str(refused).encode("utf-8", "replace"))
        else:
            say(END)


if __name__ == "__main__":
    main()
