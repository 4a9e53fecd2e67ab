"""Archives made by hand, the hostile ones above all: what each is, and words of the sentence that refuses it."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

MIB = 1024 * 1024
LINK, FIFO, DEVICE, SOCKET, SETUID = 0o120777, 0o010644, 0o060644, 0o140644, 0o104755


@dataclass(frozen=True, kw_only=True)
class Z:
    """An entry of a zip. What is None is told as it is; everything else is a lie on purpose."""

    name: bytes
    data: bytes = b"x"
    method: int = 8
    mode: int = 0o100644
    flags: int = 0
    crc: int | None = None
    size: int | None = None
    packed: bytes | None = None
    packed_size: int | None = None
    local_name: bytes | None = None
    offset_of: int | None = None
    extra: bytes = b""


def zip_of(
    *entries: Z, count: int | None = None, disk: int = 0, end: bytes | None = None, comment: bytes = b""
) -> bytes:
    out, directory, offsets = bytearray(), bytearray(), []
    for entry in entries:
        packed = entry.packed
        if packed is None:
            packed = _deflate(entry.data) if entry.method == 8 else entry.data
        crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
        size = len(entry.data) if entry.size is None else entry.size
        packed_size = len(packed) if entry.packed_size is None else entry.packed_size
        offsets.append(len(out))
        if entry.offset_of is None:
            local_name = entry.name if entry.local_name is None else entry.local_name
            sizes = (crc, packed_size, size, len(local_name), 0)
            out += (
                struct.pack("<4s5H3L2H", b"PK\3\4", 20, entry.flags, entry.method, 0, 0, *sizes) + local_name + packed
            )
        else:
            offsets[-1] = offsets[entry.offset_of]
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 3 << 8 | 20, 20, entry.flags, entry.method, 0, 0, crc, packed_size, size,
            len(entry.name), len(entry.extra), 0, 0, 0, entry.mode << 16, offsets[-1],
        ) + entry.name + entry.extra  # fmt: skip
    number = len(entries) if count is None else count
    record = struct.pack("<4s4H2LH", b"PK\5\6", disk, 0, number, number, len(directory), len(out), len(comment))
    return bytes(out) + bytes(directory) + (record if end is None else end) + comment


def _deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()


@cache
def deflated_zeros(mib: int) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(deflater.compress(bytes(MIB)) for _ in range(mib)) + deflater.flush()


def zip_files(files: dict[str, bytes]) -> bytes:
    """As the standard library writes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


# ── tar ─────────────────────────────────────────────────────────────────────────────────────────────────────────

END = bytes(1024)


def header(name: bytes, type: bytes = b"0", size: int | bytes = 0, target: bytes = b"", mode: int = 0o644) -> bytes:
    """A header; a size in bytes stands there as it is."""
    number = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(512)
    block[0 : min(len(name), 100)] = name[:100]
    block[100:108] = b"%07o\0" % mode
    block[124:136] = number
    block[148:156] = b" " * 8
    block[156:157] = type
    block[157 : 157 + len(target)] = target
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def tar_file(name: bytes, data: bytes = b"x", mode: int = 0o644) -> bytes:
    return header(name, size=len(data), mode=mode) + padded(data)


def gnu_name(name: bytes, type: bytes = b"L") -> bytes:
    return header(b"././@LongLink", type, len(name) + 1) + padded(name + b"\0")


def pax(**records: bytes) -> bytes:
    body = b"".join(pax_line(key.replace("__", ".").encode(), value) for key, value in records.items())
    return header(b"PaxHeaders/x", b"x", len(body)) + padded(body)


def pax_line(key: bytes, value: bytes) -> bytes:
    line = b" " + key + b"=" + value + b"\n"
    size = len(line) + 1
    while len(str(size)) + len(line) != size:
        size = len(str(size)) + len(line)
    return str(size).encode() + line


def tar_folder(entries: dict[str, bytes]) -> bytes:
    """As the standard library writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@cache
def zeros_gz(mib: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A gzip file of so many zero bytes between the others, made without holding them."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [deflater.compress(before), *(deflater.compress(bytes(MIB)) for _ in range(mib)), deflater.compress(after)]
    return b"".join(parts) + deflater.flush()


# ── hostile ─────────────────────────────────────────────────────────────────────────────────────────────────────


def zip_link(name: bytes, target: bytes) -> Z:
    return Z(name=name, data=target, mode=LINK)


def overlapping() -> bytes:
    """The second entry's header lies inside the content of the first."""
    inner = zip_of(Z(name=b"b"))
    inner_local = inner[: inner.index(b"PK\1\2")]
    outer = zip_of(Z(name=b"a", data=inner_local, method=0), Z(name=b"b", offset_of=0))
    offset = struct.pack("<L", 31)
    return outer.replace(struct.pack("<L", 0) + b"b", offset + b"b")


def huge_zip64(extra: bytes) -> bytes:
    full = 0xFFFFFFFF
    return zip_of(Z(name=b"a", size=full, packed_size=full, extra=extra))


def cut_in_the_middle() -> bytes:
    """The end record is there, what it speaks of is not all."""
    whole = zip_of(Z(name=b"a", data=bytes(range(256)) * 40, method=0), Z(name=b"b"))
    return whole[:3000] + whole[8000:]


TEXT = b"abc" * 99
RECORDS = pax_line(b"comment", b"x" * 984) * 60


@cache
def many_files() -> bytes:
    return b"".join(header(b"%d" % number) for number in range(20_001)) + END


END_64_MISSING = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
END_64_LIES = (
    struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1 << 40, 1 << 40, 1 << 50, 1 << 50)
    + struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    + END_64_MISSING
)

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    # names
    "zip ..": (lambda: zip_of(Z(name=b"../evil")), "'../evil' leads upward"),
    "zip deep ..": (lambda: zip_of(Z(name=b"a/b/../../../evil")), "leads upward"),
    "zip .. inside": (lambda: zip_of(Z(name=b"a/../b")), "leads upward"),
    "zip .. folder": (lambda: zip_of(Z(name=b"../", data=b"")), "leads upward"),
    "zip absolute": (lambda: zip_of(Z(name=b"/tmp/evil")), "'/tmp/evil' has an absolute path"),
    "zip //": (lambda: zip_of(Z(name=b"//evil")), "absolute path"),
    "zip drive": (lambda: zip_of(Z(name=b"C:/evil")), "drive letter"),
    "zip drive relative": (lambda: zip_of(Z(name=b"c:evil")), "drive letter"),
    "zip backslash": (lambda: zip_of(Z(name=b"..\\evil")), "backslash"),
    "zip UNC": (lambda: zip_of(Z(name=b"\\\\host\\share")), "backslash"),
    "zip NUL": (lambda: zip_of(Z(name=b"fine.js\0/../../evil")), "NUL"),
    "zip NUL alone": (lambda: zip_of(Z(name=b"fine\0.js")), "'fine\\x00.js' has a NUL"),
    "zip segment of 256": (lambda: zip_of(Z(name=b"a" * 256)), "longer than 255 bytes"),
    "zip name of 64 KiB": (lambda: zip_of(Z(name=b"a/" * 32_767 + b"a")), "folders deep"),
    "zip long path": (lambda: zip_of(Z(name=b"/".join([b"a" * 200] * 21))), "longer than 2,048 bytes"),
    "zip deep": (lambda: zip_of(Z(name=b"a/" * 100 + b"a")), "more than 50 folders deep"),
    "zip no name": (lambda: zip_of(Z(name=b"")), "has no name"),
    "zip dot": (lambda: zip_of(Z(name=b"./.")), "has no name"),
    "zip twice": (lambda: zip_of(Z(name=b"a"), Z(name=b"a", data=b"y")), "'a' is there twice"),
    "zip twice by dots": (lambda: zip_of(Z(name=b"a/b"), Z(name=b"./a//b")), "is there twice"),
    "zip file and folder": (lambda: zip_of(Z(name=b"a"), Z(name=b"a/", data=b"")), "is there twice"),
    "zip below a file": (lambda: zip_of(Z(name=b"a"), Z(name=b"a/b")), "below what is no folder"),
    "zip control letters": (lambda: zip_of(Z(name=b"../\x1b[31m\n")), "'../\\x1b[31m\\n'"),
    # what an entry is
    "zip link out": (lambda: zip_of(zip_link(b"l", b"../x")), "outside of the archive"),
    "zip link far out": (lambda: zip_of(zip_link(b"a/l", b"../../x")), "outside of the archive"),
    "zip link absolute": (lambda: zip_of(zip_link(b"l", b"/etc/passwd")), "absolute path"),
    "zip link down and out": (lambda: zip_of(zip_link(b"l", b"a/../../x")), "leads upward"),
    "zip link with NUL": (lambda: zip_of(zip_link(b"l", b"a\0b")), "NUL"),
    "zip link by a link": (
        lambda: zip_of(Z(name=b"p/q/x"), zip_link(b"p/q/up", b"../.."), zip_link(b"l", b"p/q/up/../..")),
        "leads upward",
    ),
    "zip link long": (lambda: zip_of(zip_link(b"l", b"a/" * 2000)), "longer than 2,048"),
    "zip write through a link": (lambda: zip_of(zip_link(b"l", b"d"), Z(name=b"l/evil")), "below a symbolic link"),
    "zip write through a link out": (lambda: zip_of(zip_link(b"l", b".."), Z(name=b"l/evil")), "outside"),
    "zip folder through a link": (lambda: zip_of(zip_link(b"l", b"d"), Z(name=b"l/", data=b"")), "twice"),
    "zip over a link": (lambda: zip_of(zip_link(b"l", b"d"), Z(name=b"l")), "twice"),
    "zip link over a folder": (lambda: zip_of(Z(name=b"d/a"), zip_link(b"d", b"e")), "twice"),
    "zip FIFO": (lambda: zip_of(Z(name=b"a", mode=FIFO)), "a device, a FIFO or a socket"),
    "zip device": (lambda: zip_of(Z(name=b"a", mode=DEVICE)), "a device, a FIFO or a socket"),
    "zip socket": (lambda: zip_of(Z(name=b"a", mode=SOCKET)), "a device, a FIFO or a socket"),
    "zip encrypted": (lambda: zip_of(Z(name=b"a", flags=1)), "'a' is encrypted"),
    "zip strongly encrypted": (lambda: zip_of(Z(name=b"a", flags=0x40)), "is encrypted"),
    "zip by bzip2": (lambda: zip_of(Z(name=b"a", method=12)), "method 12"),
    # damage and lies
    "zip cut off": (lambda: zip_files({"a": b"x" * 999})[:-30], "cut off"),
    "zip cut in the middle": (cut_in_the_middle, "damaged"),
    "zip of its magic": (lambda: b"PK\3\4", "damaged"),
    "zip bad sum": (lambda: zip_of(Z(name=b"a", crc=7)), "check sum"),
    "zip smaller than told": (lambda: zip_of(Z(name=b"a", size=2)), "smaller than the archive says"),
    "zip larger than told": (lambda: zip_of(Z(name=b"a", data=b"xyz", size=1)), "larger than the archive says"),
    "zip deflate garbage": (lambda: zip_of(Z(name=b"a", packed=b"\xff" * 40)), "damaged"),
    "zip deflate early end": (lambda: zip_of(Z(name=b"a", data=TEXT, packed=_deflate(TEXT)[:-4])), "early"),
    "zip packed too long": (lambda: zip_of(Z(name=b"a", packed_size=10_000)), "reaches beyond its end"),
    "zip count lies": (lambda: zip_of(Z(name=b"a"), count=2), "has 1 entries and says 2"),
    "zip part of several": (lambda: zip_of(Z(name=b"a"), disk=1), "one part of several"),
    "zip directory garbage": (lambda: zip_of(Z(name=b"a")).replace(b"PK\1\2", b"PK\1\7"), "does not read"),
    "zip two names": (lambda: zip_of(Z(name=b"a", local_name=b"b")), "differs from the directory"),
    "zip64 without record": (lambda: zip_of(Z(name=b"a"), end=END_64_MISSING), "zip64"),
    "zip64 record lies": (lambda: zip_of(Z(name=b"a"), end=END_64_LIES), "damaged"),
    "zip64 without sizes": (lambda: huge_zip64(b""), "no zip64 sizes"),
    "zip64 sizes cut": (lambda: huge_zip64(struct.pack("<2HL", 1, 16, 7)), "damaged"),
    "zip64 sizes lie": (lambda: huge_zip64(struct.pack("<2H2Q", 1, 16, 1 << 60, 1 << 60)), "damaged"),
    # bombs
    "zip overlap of all": (lambda: zip_of(Z(name=b"a"), Z(name=b"a", offset_of=0)), "overlaps another"),
    "zip overlap of a part": (overlapping, "overlaps another"),
    "zip ratio": (
        lambda: zip_of(Z(name=b"a", packed=deflated_zeros(20), size=20 * MIB)),
        "'a' takes what is unpacked beyond 100 times",
    ),
    "zip ratio in small parts": (
        lambda: zip_of(*(Z(name=b"%d" % i, packed=deflated_zeros(1), size=MIB) for i in range(40))),
        "beyond 100 times",
    ),
    "zip ratio hidden": (lambda: zip_of(Z(name=b"a", packed=deflated_zeros(20), size=9)), "larger than the archive"),
    "zip total": (lambda: zip_of(Z(name=b"a", size=257 * MIB)), "'a' takes what is unpacked beyond 256 MB"),
    "zip entries": (lambda: zip_of(*(Z(name=b"%d" % i, data=b"") for i in range(20_001))), "20,000 entries"),
    "zip folders": (
        lambda: zip_of(*(Z(name=b"%d/" % i + b"a/" * 48, data=b"") for i in range(409))),
        "20,000 entries",
    ),
    # tar
    "tar ..": (lambda: tar_file(b"../evil") + END, "'../evil' leads upward"),
    "tar absolute": (lambda: tar_file(b"/tmp/evil") + END, "absolute path"),
    "tar link out": (lambda: header(b"l", b"2", target=b"../x") + END, "outside of the archive"),
    "tar link absolute": (lambda: header(b"l", b"2", target=b"/etc") + END, "absolute path"),
    "tar link then write": (
        lambda: header(b"l", b"2", target=b"d") + tar_file(b"l/evil") + END,
        "below a symbolic link",
    ),
    "tar hard link out": (lambda: header(b"h", b"1", target=b"../../etc/passwd") + END, "leads upward"),
    "tar hard link absolute": (lambda: header(b"h", b"1", target=b"/etc/passwd") + END, "absolute path"),
    "tar hard link to nothing": (lambda: header(b"h", b"1", target=b"later") + tar_file(b"later") + END, "hard link"),
    "tar hard link to a link": (
        lambda: header(b"l", b"2", target=b"d") + header(b"h", b"1", target=b"l") + END,
        "hard link",
    ),
    "tar character device": (lambda: header(b"d", b"3") + END, "'d' is a device or a FIFO"),
    "tar block device": (lambda: header(b"d", b"4") + END, "a device or a FIFO"),
    "tar FIFO": (lambda: header(b"d", b"6") + END, "a device or a FIFO"),
    "tar unknown": (lambda: header(b"d", b"V") + END, "not known (V)"),
    "tar sparse": (lambda: header(b"d", b"S") + END, "sparse"),
    "tar sparse by pax": (lambda: pax(GNU__sparse__size=b"9") + tar_file(b"a") + END, "sparse"),
    "tar twice": (lambda: tar_file(b"a") + tar_file(b"./a") + END, "twice"),
    "tar long name ..": (lambda: gnu_name(b"../evil") + tar_file(b"fine") + END, "leads upward"),
    "tar long name NUL": (lambda: gnu_name(b"a\0b") + tar_file(b"fine") + END, "NUL"),
    "tar long name of 2 MB": (lambda: header(b"x", b"L", 2 * MIB) + END, "headers longer than"),
    "tar many long headers": (
        lambda: (header(b"x", b"x", len(RECORDS)) + padded(RECORDS)) * 150 + END,
        "headers longer than",
    ),
    "tar long link": (lambda: gnu_name(b"../x", b"K") + header(b"l", b"2", target=b"fine") + END, "outside"),
    "tar pax ..": (lambda: pax(path=b"../evil") + tar_file(b"fine") + END, "leads upward"),
    "tar pax NUL": (lambda: pax(path=b"a\0b") + tar_file(b"fine") + END, "NUL"),
    "tar pax link": (lambda: pax(linkpath=b"/etc") + header(b"l", b"2", target=b"fine") + END, "absolute path"),
    "tar pax size": (lambda: pax(size=b"-1") + tar_file(b"a") + END, "does not read"),
    "tar pax garbage": (lambda: header(b"x", b"x", 9) + padded(b"99 path=a") + tar_file(b"a") + END, "does not read"),
    "tar negative size": (lambda: header(b"a", size=b"\xff" * 12) + END, "does not read"),
    "tar huge size": (lambda: header(b"a", size=b"\x80" + b"\x7f" * 11) + END, "beyond 256 MB"),
    "tar total": (lambda: header(b"a", size=257 * MIB) + END, "'a' takes what is unpacked beyond 256 MB"),
    "tar cut off": (lambda: tar_file(b"a", b"x" * 2000)[:1100], "cut off"),
    "tar without end": (lambda: tar_file(b"a"), "cut off"),
    "tar broken header": (lambda: tar_file(b"a") + b"?" * 512 + END, "does not read"),
    "tar.gz cut off": (lambda: gzip.compress(tar_file(b"a", bytes(range(256)) * 40) + END)[:-9], "damaged"),
    "tar.gz bad sum": (lambda: gzip.compress(tar_file(b"a") + END)[:-8] + b"\0" * 8, "damaged"),
    "tar.gz ..": (lambda: gzip.compress(tar_file(b"../evil") + END), "leads upward"),
    "tar.gz ratio": (lambda: zeros_gz(40, header(b"a", size=40 * MIB), END), "the archive takes what is"),
    "tar.gz bomb in a header": (lambda: zeros_gz(40, header(b"a", b"g", 40 * MIB), END), "headers longer than"),
    "tar.gz bomb after the end": (lambda: zeros_gz(40, tar_file(b"a") + END), "beyond 100 times"),
    "tar entries": (many_files, "20,000 entries"),
    "tar.gz entries": (lambda: gzip.compress(many_files(), 1), "20,000 entries"),
    "tar.gz many members": (lambda: gzip.compress(tar_file(b"a") + END) + gzip.compress(b"") * 10_001, "gzip members"),
    # no archives
    "gzip of text": (lambda: gzip.compress(b"function main() {}\n" * 99), "neither a zip nor a tar"),
    "text": (lambda: b"def main(args): return args", "neither a zip nor a tar"),
    "program": (lambda: b"\x7fELF" + bytes(5000), "neither a zip nor a tar"),
    "nothing": (lambda: b"", "neither a zip nor a tar"),
    "zeros": (lambda: bytes(10_240), "neither a zip nor a tar"),
}  # fmt: skip
