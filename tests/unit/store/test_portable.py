"""Archives: what was written is read, and what was not made by us does no harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from visp.store import portable
from visp.store.portable import MANIFEST, PortableError, Reader, Writer

if TYPE_CHECKING:
    from pathlib import Path

CODE = b"def main(p): return p"
DIGEST = hashlib.sha256(CODE).hexdigest()


def archive() -> bytes:
    file = io.BytesIO()
    writer = Writer(file)
    writer.blob("code", DIGEST, CODE)
    for n in range(3):
        writer.document("actions", b'{"n":%d}' % n)
    writer.document("rules", b"{}")
    writer.finish(has_keys=True, has_activations=False)
    return file.getvalue()


def member(name: str, content: bytes, **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def read(path: Path, raw: bytes) -> list[tuple[str, list[bytes]]]:
    path.write_bytes(raw)
    reader = Reader(path)
    found = [(part.kind, part.lines()) for part in reader.members()]
    assert reader.manifest.format == "visp-archive"
    return found


def test_what_was_written_is_read(tmp_path: Path) -> None:
    found = read(tmp_path / "a", archive())
    assert found == [("code", [CODE]), ("actions", [b'{"n":0}', b'{"n":1}', b'{"n":2}']), ("rules", [b"{}"])]


def test_much_takes_several_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable, "CHUNK_BYTES", 10)
    assert [kind for kind, _ in read(tmp_path / "a", archive())] == ["code", "actions", "actions", "rules"]


def test_tar_reads_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
        assert tar.getnames() == [f"code/{DIGEST}", "actions-000001.ndjson", "rules-000001.ndjson", MANIFEST]
        content = tar.extractfile(MANIFEST)
        assert content is not None
        manifest = msgspec.json.decode(content.read())
    assert manifest["counts"]["actions"] == 3
    assert manifest["members"][0] == {"name": f"code/{DIGEST}", "size_bytes": len(CODE), "sha256": DIGEST}


def inflated(raw: bytes) -> bytes | None:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error):
        return None


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    whole = archive()
    plain = gzip.decompress(whole)
    for at in range(0, len(whole), 7):
        raw = bytearray(whole)
        raw[at] ^= 0x11
        if inflated(bytes(raw)) == plain:  # in gzip's own head are bytes that are nobody's, at its end bits
            continue
        with pytest.raises(PortableError):
            read(tmp_path / "a", bytes(raw))
    for length in range(0, len(whole), 11):
        with pytest.raises(PortableError):
            read(tmp_path / "a", whole[:length])
    for content in (CODE, b'{"n":1}', b"code/", b"rules-"):  # behind gzip's back
        changed = plain.replace(content, content[:-1] + b"!", 1)
        with pytest.raises(PortableError):
            read(tmp_path / "a", gzip.compress(changed))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([member("../../etc/passwd", b"x")], "it holds '../../etc/passwd'"),
        ([member("/actions-000001.ndjson", b"{}")], "it holds"),
        ([member("actions-000001.ndjson", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "it holds"),
        ([member("code/" + "0" * 64, b"", type=tarfile.DIRTYPE)], "it holds"),
        ([member("x", b"", type=tarfile.XHDTYPE)], "it holds"),
        ([member("rules-000001.ndjson", b"{}")] * 2, "it holds"),
        ([member("code/" + "0" * 64, b"other")], "is not what it was"),
        ([member("rules-000001.ndjson", b"{}"), member(MANIFEST, b"{}")], "manifest cannot be read"),
        ([member("rules-000001.ndjson", b"{}")], "manifest is missing"),
        ([b"not a tar" + bytes(503)], "no archive of visp"),
    ],
)
def test_what_no_archive_has(tmp_path: Path, members: list[bytes], says: str) -> None:
    with pytest.raises(PortableError, match=says):
        read(tmp_path / "a", gzip.compress(b"".join(members) + bytes(1024)))


def test_sizes_are_known_before_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = tarfile.TarInfo("activations-000001.ndjson")
    huge.size = 7 << 30
    with pytest.raises(PortableError, match="larger than an archive may be"):
        read(tmp_path / "a", gzip.compress(huge.tobuf(tarfile.USTAR_FORMAT)))
    lying = tarfile.TarInfo("activations-000001.ndjson")
    lying.size = 100 << 20
    with pytest.raises(PortableError, match="cut short"):
        read(tmp_path / "a", gzip.compress(lying.tobuf(tarfile.USTAR_FORMAT)))
    whole = archive()
    for name, limit in (("ENTITY_BYTES", 20), ("MEMBERS", 2)):
        with monkeypatch.context() as patched:
            patched.setattr(portable, name, limit)
            with pytest.raises(PortableError, match="larger than an archive may be"):
                read(tmp_path / "a", whole)


def test_a_manifest_that_tells_of_something_else(tmp_path: Path) -> None:
    plain = gzip.decompress(archive())
    at = plain.index(MANIFEST.encode())
    before, manifest = plain[:at], msgspec.json.decode(plain[at + 512 :].rstrip(b"\0"))
    for change, says in (
        ({"members": manifest["members"][:-1]}, "rules-000001.ndjson is not what its manifest says"),
        ({"version": 4}, "import it with the visp that knows it"),
        ({"format": "tar"}, "import it with"),
    ):
        raw = before + member(MANIFEST, msgspec.json.encode(manifest | change)) + bytes(1024)
        with pytest.raises(PortableError, match=says):
            read(tmp_path / "a", gzip.compress(raw))
    with pytest.raises(PortableError, match="something follows"):
        read(tmp_path / "a", gzip.compress(plain + b"more"))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PortableError, match="cannot be read: No such file"):
        list(Reader(tmp_path / "no").members())
