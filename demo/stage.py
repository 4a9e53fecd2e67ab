"""Where the story happens: a server of its own, a folder that is thrown away, and the ways to speak to the server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from visp.client import running
from visp.entity.subject import GUEST_KEY, GUEST_UUID

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
AUTH = f"{GUEST_UUID}:{GUEST_KEY}"
COMMAND_S = 60.0
RECORD_S = 20.0
FAILED = 246
"""Exit status of the command when an action fails: HTTP 502, less 256."""

NOT_OURS = re.compile(r"(WHISK|WSK|__OW)_.*|.*_proxy", re.IGNORECASE)
"""Variables of the caller that would lead a client elsewhere."""


class Surprise(Exception):
    """Something else came than what the story can go on with."""


class Over(Surprise):
    """Without this there is no story to tell."""


class Said(NamedTuple):
    """What a command has printed."""

    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Stage:
    """One server and one working folder, for as long as a block lasts. `say` is told what is being done."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._open = contextlib.ExitStack()
        self._server: running.Server | None = None
        self._environ = {name: value for name, value in os.environ.items() if not NOT_OURS.fullmatch(name)}
        self._no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> Stage:
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="visp-demo-"))
        self.folder = Path(folder)
        shutil.copytree(HERE / "actions", self.folder, dirs_exist_ok=True)
        self._environ["WSK_CONFIG_FILE"] = str(self.folder / "wskprops")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server, if it still runs, and removes both folders."""
        self._open.close()

    # ── the server ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def server(self) -> running.Server:
        assert self._server is not None, "the first step starts it"
        return self._server

    def start(self) -> None:
        """Raises `Over` with what the server says when it does not come up."""
        self.say("$ visp start --port 0 --data-dir …")
        try:
            self._server = self._open.enter_context(running.running())
        except running.NotReady as error:
            raise Over(f"the server does not come up: {error}") from None

    def complaints(self) -> str:
        """What the server has logged, if it is there; for the reader of a surprise."""
        return self._server.read_log() if self._server is not None and self._server.log.exists() else ""

    # ── ways to speak to it ─────────────────────────────────────────────────────────────────────────────────────

    def visp(self, *words: str, status: int = 0) -> Said:
        """Runs the command line in the working folder; raises `Surprise` unless it ends with this status."""
        self.say("$ visp " + " ".join(words).replace(AUTH, "$AUTH"))
        return self._run([sys.executable, "-m", "visp", *words], status=status)

    def node(self, script: str, *words: str, given: Any = None) -> Said:
        """Runs a script of the demo's with the server's address and key in its environment."""
        self.say(f"$ node {script} " + " ".join(words))
        environ = {"__OW_API_HOST": self.server.url, "__OW_API_KEY": AUTH}
        return self._run(["node", str(HERE / script), *words], given=json.dumps(given), environ=environ)

    def post(self, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        """Status and JSON answer of a plain request, as any program makes one; `path` is below the own namespace."""
        return self._request("POST", path, body, headers)

    def record(self, activation_id: str) -> Any:
        """The record of an activation that may be still under way; raises `Surprise` when it does not come."""
        until = time.monotonic() + RECORD_S
        while True:
            status, record = self._request("GET", f"activations/{activation_id}")
            if status == 200:
                return record
            if time.monotonic() > until:
                raise Surprise(f"no record of activation {activation_id} within {RECORD_S} s: HTTP {status} {record}")
            time.sleep(0.02)

    def info(self) -> Any:
        """The server's own account of itself: what a client reads first."""
        return self._request("GET", "/")[1]

    def _run(self, argv: list[str], *, given: str = "", environ: dict[str, str] | None = None, status: int = 0) -> Said:
        done = subprocess.run(
            argv,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self._environ | (environ or {}),
            timeout=COMMAND_S,
        )
        if done.returncode != status:
            raise Surprise(
                f"exit status {done.returncode} instead of {status}; it said: {done.stderr.strip() or done.stdout}"
            )
        return Said(done.stdout, done.stderr)

    def _request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        url = self.server.url + (path if path.startswith("/") else f"/api/v1/namespaces/_/{path}")
        request = urllib.request.Request(url, method=method, headers=headers or {})
        request.add_header("Authorization", "Basic " + b64encode(AUTH.encode()).decode())
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with self._no_proxy.open(request, timeout=COMMAND_S) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")
