"""The files of a package's site, beside its web actions."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from tests.system.conftest import GUEST, Answer, Api

if TYPE_CHECKING:
    from pathlib import Path

    from visp.client.running import Server

PAGE = b"<!doctype html><title>shop</title>"
SCRIPT = b"export const n = 1;\n" * 200
WEB = "/api/v1/web/guest/shop"


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path, content in files.items():
            zipped.writestr(path, content)
    return out.getvalue()


def put(api: Api, files: dict[str, bytes], package: str = "shop") -> Answer:
    return api.request("PUT", f"packages/{package}/web", archive(files), {"Content-Type": "application/zip"})


@pytest.fixture(scope="module")
def api(server: Server) -> Api:
    api = Api(server.url)
    assert api.request("PUT", "packages/shop?overwrite=true", {}).status == 200
    exported = [{"key": "web-export", "value": True}]
    api.action("shop/cart", "const main = () => ({body: 'from the action'})", annotations=exported)
    files = {
        "index.html": PAGE,
        "app.js": SCRIPT,
        "app.css.br": b"brotli",
        "app.css": b"body{}",
        "docs/index.html": b"docs",
        "cart.http": b"from the site",
        "\u00fc b.txt": b"umlaut",
    }
    answer = put(api, files)
    assert answer.status == 200, answer
    assert [file["path"] for file in answer.json["files"]] == sorted(files)
    return api


def fetch(api: Api, path: str, method: str = "GET", **headers: str) -> Answer:
    return Api(api.url, auth=None).request(
        method, f"{WEB}{path}", headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def test_files_are_served_to_everybody(api: Api) -> None:
    page = fetch(api, "/")
    assert (page.status, page.body, page.headers["content-type"]) == (200, PAGE, "text/html; charset=UTF-8")
    assert fetch(api, "/index.html").body == PAGE
    assert fetch(api, "/app.js").headers["content-type"] == "text/javascript; charset=UTF-8"
    assert fetch(api, "/%C3%BC%20b.txt").body == b"umlaut"
    head = fetch(api, "/app.js", "HEAD")
    assert (head.body, head.headers["content-length"]) == (b"", str(len(SCRIPT)))
    assert head.headers["x-content-type-options"] == "nosniff"


def test_folders(api: Api) -> None:
    assert fetch(api, "/docs/").body == b"docs"
    for path in ("/docs", ""):
        moved = fetch(api, path)
        assert (moved.status, moved.headers["location"]) == (308, f"{WEB}{path}/")


def test_an_action_goes_before_a_file(api: Api) -> None:
    assert fetch(api, "/cart.http").body == b"from the action"


@pytest.mark.parametrize("path", ["/nothing.html", "/../index.html", "/docs/../index.html", "/%2e%2e/index.html"])
def test_what_is_not_there(api: Api, path: str) -> None:
    assert fetch(api, path).status in (401, 404)
    assert fetch(api, "/index.html", "POST").status == 404


def test_what_the_caller_has_is_not_sent_again(api: Api) -> None:
    etag = fetch(api, "/app.js").headers["etag"]
    again = fetch(api, "/app.js", If_None_Match=f'"other", W/{etag}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    assert fetch(api, "/app.js", If_None_Match='"other"').status == 200


@pytest.mark.parametrize(
    ("asked", "status", "body", "told"),
    [
        ("bytes=0-3", 206, SCRIPT[:4], f"bytes 0-3/{len(SCRIPT)}"),
        ("bytes=-4", 206, SCRIPT[-4:], f"bytes {len(SCRIPT) - 4}-{len(SCRIPT) - 1}/{len(SCRIPT)}"),
        ("bytes=3990-", 206, SCRIPT[3990:], f"bytes 3990-{len(SCRIPT) - 1}/{len(SCRIPT)}"),
        ("bytes=9999-", 416, b"", f"bytes */{len(SCRIPT)}"),
        ("bytes=0-1,3-4", 200, SCRIPT, None),
        ("lines=0-1", 200, SCRIPT, None),
    ],
)
def test_ranges(api: Api, asked: str, status: int, body: bytes, told: Any) -> None:
    part = fetch(api, "/app.js", Range=asked)
    assert (part.status, part.body, part.headers.get("content-range")) == (status, body, told)
    assert fetch(api, "/app.js", Range=asked, If_Range='"old"').body == SCRIPT


def test_compressed_forms(api: Api) -> None:
    plain = fetch(api, "/app.js")
    small = fetch(api, "/app.js", Accept_Encoding="gzip, br;q=0")
    assert small.headers["content-encoding"] == "gzip"
    assert gzip.decompress(small.body) == SCRIPT
    assert small.headers["etag"] != plain.headers["etag"]
    assert plain.headers["vary"] == "Accept-Encoding"
    own = fetch(api, "/app.css", Accept_Encoding="gzip, br")
    assert (own.body, own.headers["content-encoding"], own.headers["content-type"]) == (
        b"brotli",
        "br",
        "text/css; charset=UTF-8",
    )
    assert fetch(api, "/app.css", Accept_Encoding="br;q=0, gzip").body == b"body{}"


def test_it_is_its_owners_alone_to_change(api: Api) -> None:
    nobody = Api(api.url, auth=None)
    path = "/api/v1/namespaces/guest/packages/shop/web"
    assert nobody.request("PUT", path, archive({}), {"Content-Type": "application/zip"}).status == 401
    assert nobody.request("DELETE", path).status == 401
    assert api.request("PUT", "packages/nothing/web", archive({}), {"Content-Type": "application/zip"}).status == 404
    assert api.request("PUT", "packages/shop/web", {}).status == 415


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../x", "a\\b", "a//b", "./a", "x" * 600])
def test_paths_that_lead_elsewhere_are_refused(api: Api, path: str) -> None:
    answer = put(api, {path: b"x"})
    assert answer.status == 400
    assert "is no path of a file" in answer.json["error"]
    assert fetch(api, "/").body == PAGE, "nothing was changed"


def test_archives_that_are_none_or_too_much(api: Api) -> None:
    bomb = archive({"a.bin": bytes(26 * 1024 * 1024)})
    for content in (b"", b"PK nothing", archive({"a": b"x"})[:-10], bomb, archive({str(n): b"" for n in range(2001)})):
        answer = api.request("PUT", "packages/shop/web", content, {"Content-Type": "application/zip"})
        assert answer.status == 400, content[:20]


def test_an_archive_of_too_many_entries_is_refused_before_they_are_read(api: Api) -> None:
    """However small the number in its end record: a directory is read whole."""
    from visp.controller import unzip
    from visp.errors import BadRequest

    many = unzip.ENTRY * (unzip.ENTRIES_READ + 1)
    with pytest.raises(BadRequest, match="at most"):
        list(unzip.unpacked(many))
    answer = api.request("PUT", "packages/shop/web", many, {"Content-Type": "application/zip"})
    assert (answer.status, "2000 at most" in answer.json["error"]) == (400, True)


def test_a_site_stays_when_its_package_is_updated_and_goes_when_it_is_deleted(api: Api) -> None:
    assert api.request("PUT", "packages/other?overwrite=true", {}).status == 200
    assert put(api, {"a.txt": b"a"}, "other").status == 200
    assert api.request("PUT", "packages/other?overwrite=true", {"publish": True}).status == 200
    other = "/api/v1/web/guest/other/a.txt"
    assert api.request("GET", other).body == b"a"
    assert [file["path"] for file in api.get("packages/other/web").json["files"]] == ["a.txt"]
    assert api.delete("packages/other/web").json["files"] == []
    assert api.request("GET", other).status == 404


def test_a_folder_is_deployed_by_the_command(api: Api, tmp_path: Path) -> None:
    assert api.request("PUT", "packages/built?overwrite=true", {}).status == 200
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_bytes(PAGE)
    (tmp_path / "assets" / "a.js").write_bytes(SCRIPT)
    (tmp_path / "outside").symlink_to("/etc/passwd")
    said = visp(api, "package", "web", "built", str(tmp_path))
    assert "assets/a.js" in said
    assert "outside" not in said
    assert f"{api.url}/api/v1/web/guest/built/" in said
    assert api.request("GET", "/api/v1/web/guest/built/assets/a.js").body == SCRIPT
    assert "index.html" in visp(api, "package", "web", "built")
    assert "deleted" in visp(api, "package", "web", "built", "--delete")
    assert api.request("GET", "/api/v1/web/guest/built/").status == 404


def visp(api: Api, *words: str) -> str:
    argv = [sys.executable, "-m", "visp", *words, "--apihost", api.url, "--auth", GUEST]
    env = os.environ | {"WSK_CONFIG_FILE": os.devnull}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout
