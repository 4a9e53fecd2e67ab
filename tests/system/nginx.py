"""nginx before a server, where it is installed: as most platforms stand in the world."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.ports import free_port
from tests.system.traces import until

CONFIGURATION = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  large_client_header_buffers 4 128k;
  client_max_body_size 0;
  client_header_timeout 10s;
  upstream visp {{ server {backend}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://visp;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_buffering off;
      {more}
    }}
  }}
}}
"""
FORWARDING = """\
proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto https;
      proxy_set_header X-Forwarded-Host $http_host;
"""


def path() -> str:
    """Skips where there is none."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    return found


@contextlib.contextmanager
def before(url: str, more: str = "", connections: int = 512) -> Iterator[str]:
    """The base URL of an nginx that passes everything on to `url` over one connection, for the block."""
    program = path()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="visp-nginx-") as folder:
        file = Path(folder) / "nginx.conf"
        backend = urlsplit(url).netloc
        file.write_text(
            CONFIGURATION.format(folder=folder, backend=backend, port=port, more=more, connections=connections)
        )
        with subprocess.Popen([program, "-p", folder, "-c", str(file)], stderr=subprocess.DEVNULL) as running:
            try:
                until(lambda: is_open(port))
                yield f"http://127.0.0.1:{port}"
            finally:
                running.terminate()


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False
