"""A registry of images for tests: as much of the protocol as a pull needs."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import tempfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from tests.images.engine import Engine

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Registry:
    """At a free port of the loopback address, which engines need no TLS for."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[tuple[str, str], bytes] = {}
        self._asked: Counter[str] = Counter()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry._answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.name = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Registry:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked_for(self, name: str) -> int:
        """How often for what a tag of it stands for."""
        return self._asked[name]

    def forget(self) -> None:
        self._manifests.clear()

    def add(self, name: str, tag: str, engine: Engine, image: str) -> None:
        """Takes an image of one layer from an engine; it gets a content of its own."""
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "saved.tar"
            engine.call("save", "--output", str(saved), image)
            with tarfile.open(saved) as archive:
                entry = json.loads(_member(archive, "manifest.json"))[0]
                config = json.loads(_member(archive, entry["Config"]))
                (layer,) = (_member(archive, path) for path in entry["Layers"])
        config["author"] = f"{name}:{tag}"
        packed = layer if layer.startswith(b"\x1f\x8b") else gzip.compress(layer, 1, mtime=0)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._keep(CONFIG, json.dumps(config).encode()),
            "layers": [self._keep(LAYER, packed)],
        }
        content = json.dumps(manifest).encode()
        for reference in (tag, _digest(content)):
            self._manifests[name, reference] = content

    def _keep(self, kind: str, content: bytes) -> dict[str, object]:
        digest = _digest(content)
        self._blobs[digest] = content
        return {"mediaType": kind, "size": len(content), "digest": digest}

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.removeprefix("/v2/")
        content, kind = None, "application/octet-stream"
        if not path:
            content = b"{}"
        elif "/manifests/" in path:
            name, _, reference = path.partition("/manifests/")
            content, kind = self._manifests.get((name, reference)), MANIFEST
            self._asked[name] += not reference.startswith("sha256:")
        elif "/blobs/" in path:
            content = self._blobs.get(path.partition("/blobs/")[2])
        handler.send_response(404 if content is None else 200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content or b"")))
        handler.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if content is not None:
            handler.send_header("Docker-Content-Digest", _digest(content))
        handler.end_headers()
        if content is not None and handler.command == "GET":
            handler.wfile.write(content)


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()
