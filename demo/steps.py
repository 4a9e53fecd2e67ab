"""The story, step by step. A step does something real and tells what it expected and what came."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import archives
import markdown
import photo
from leftovers import Belongings
from PIL import Image
from stage import AUTH, FAILED, HERE, Stage, Surprise

if TYPE_CHECKING:
    from collections.abc import Callable

README = HERE.parent / "README.md"
PAYLOADS = HERE / "node_modules" / "@octokit" / "webhooks-examples" / "api.github.com" / "index.json"
PYTHON = f"python:{sys.version_info.major}.{sys.version_info.minor}"
"""The kind of the Python that runs this: modules that were compiled for it can be loaded there."""

SIDE = 320
TILES = (8, 6)
LIKENESS = 10
"""How far the mean colour of a tile may be off, of 255."""

LIMIT_MS = 1000
PRIME = 9007199254740881
"""The largest prime that every reader of JSON takes for a whole number."""

Facts = dict[str, Any]


class Told(NamedTuple):
    """What a step tells: the same facts, expected and as they came. `note` holds what is only good to know."""

    expected: Facts
    came: Facts
    note: str = ""


class Step(NamedTuple):
    name: str
    sentence: str
    run: Callable[[Stage], Told]


# ── start ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def start(stage: Stage) -> Told:
    stage.start()
    stage.visp("property", "set", "--apihost", stage.server.url, "--auth", AUTH)
    namespaces = stage.visp("namespace", "list").out.split()[1:]
    return Told({"namespaces": ["guest"]}, {"namespaces": namespaces})


# ── a push to GitHub ────────────────────────────────────────────────────────────────────────────────────────────────


def pushes() -> list[Any]:
    """GitHub's own examples of what it posts for a push: branches and tags, made, changed and removed."""
    return next(event["examples"] for event in json.loads(PAYLOADS.read_bytes()) if event["name"] == "push")


def push_with_commits() -> Any:
    return next(push for push in pushes() if push["commits"])


def push_without_commits() -> Any:
    return next(push for push in pushes() if not push["commits"])


def changes(push: Any, event: str | None) -> Facts:
    """What `changed-files` should say of a push."""
    status = {
        file: change
        for commit in push["commits"]
        for change in ("added", "modified", "removed")
        for file in commit[change]
    }
    files: dict[str, list[str]] = {}
    for file, change in status.items():
        files.setdefault(change, []).append(file)
    return {"repository": push["repository"]["full_name"], "ref": push["ref"], "event": event, "files": files}


def fire(stage: Stage) -> Told:
    push = push_with_commits()
    (stage.folder / "push.json").write_text(json.dumps(push))
    stage.visp("action", "create", "changed-files", "changed-files.js")
    stage.visp("trigger", "create", "github-push")
    stage.visp("rule", "create", "on-push", "github-push", "changed-files")
    fired = stage.visp("trigger", "fire", "github-push", "-P", "push.json", "--json").json
    record = started_by(stage, fired["activationId"])
    return Told(changes(push, None), record["response"]["result"], times(record))


def deliver(stage: Stage) -> Told:
    examples = pushes()
    stage.say(f"$ curl -u $AUTH -H 'X-GitHub-Event: push' --json @… $API/triggers/github-push  # {len(examples)} times")
    headers = {"X-GitHub-Event": "push", "User-Agent": "GitHub-Hookshot/044aadd"}
    answers = [stage.post("triggers/github-push", push, headers) for push in examples]
    if refused := [answer for answer in answers if answer[0] != 202]:
        raise Surprise(f"the trigger answers {refused}")
    records = [started_by(stage, answer["activationId"]) for _, answer in answers]
    took_ms = sorted(record["duration"] for record in records)
    return Told(
        {"pushes": [brief(changes(push, "push")) for push in examples]},
        {"pushes": [brief(record["response"]["result"]) for record in records]},
        f"{len(records)} activations of {took_ms[0]} to {took_ms[-1]} ms",
    )


def brief(changed: Facts) -> str:
    """The answer of `changed-files` in a line."""
    files = "; ".join(f"{change} {', '.join(files)}" for change, files in changed["files"].items())
    return f"{changed['event']} to {changed['ref']} of {changed['repository']}: {files or 'nothing'}"


def started_by(stage: Stage, fired: str) -> Any:
    """The record of what the only rule of a trigger has started."""
    (entry,) = stage.record(fired)["logs"]
    return stage.record(json.loads(entry)["activationId"])


# ── a README becomes a page ─────────────────────────────────────────────────────────────────────────────────────────


def page(stage: Stage) -> Told:
    text = README.read_text()
    (stage.folder / "readme.json").write_text(json.dumps({"readme": text, "name": README.name}))
    size = archives.write(stage.folder / "render.zip", HERE / "actions" / "render.py", packages=("markdown",))
    stage.visp("action", "create", "tidy", "tidy.js")
    stage.visp("action", "create", "render", "render.zip", "--kind", PYTHON)
    stage.visp("action", "create", "page", "--sequence", "tidy,render")
    record = stage.visp("action", "invoke", "page", "-b", "-P", "readme.json", "--json").json
    parts = [stage.record(part) for part in record["logs"]]
    came = record["response"]["result"]
    tidied = without_comments(text)
    headings = headings_of(tidied)
    title = next((title for level, title in headings if level == 1), README.name)
    html = markdown.markdown(tidied, extensions=["tables", "fenced_code"])
    return Told(
        {"parts": ["tidy", "render"], "title": title, "headings": len(headings), "html": digest(html)},
        {
            "parts": [part["name"] for part in parts],
            "title": came["title"],
            "headings": came["headings"],
            "html": digest(came["html"]),
        },
        f"archive of {size / 1e3:.0f} kB; {times(*parts)}",
    )


def without_comments(text: str) -> str:
    """HTML comments are left out, but for those in fenced code."""
    fenced = r"(^ {0,3}(`{3,}|~{3,}).*\n(?s:.*?)(?:^ {0,3}\2[`~]*[ \t]*$|\Z))"
    return re.sub(rf"{fenced}|<!--(?s:.*?)-->", lambda found: found[1] or "", text, flags=re.MULTILINE)


def headings_of(text: str) -> list[tuple[int, str]]:
    """Level and text of each heading; lines of code in fences are none."""
    found, fence = [], ""
    for line in text.split("\n"):
        marks = re.match(r" {0,3}(`{3,}|~{3,})(.*)", line)
        if marks and not fence:
            fence = marks[1]
        elif marks and marks[1].startswith(fence) and not marks[2].strip():
            fence = ""
        elif not fence and (heading := re.fullmatch(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*", line)):
            found.append((len(heading[1]), heading[2]))
    return found


def digest(html: str) -> str:
    """A long text in one line: its length and what tells it from any other."""
    return f"{len(html)} characters, SHA-256 {hashlib.sha256(html.encode()).hexdigest()[:16]}"


# ── a photograph becomes a thumbnail ────────────────────────────────────────────────────────────────────────────────


def thumbnail(stage: Stage) -> Told:
    kinds = {runtime["kind"] for family in stage.info()["runtimes"].values() for runtime in family}
    if PYTHON not in kinds:
        raise Surprise(
            f"the server runs no {PYTHON}, and the Pillow of this environment is compiled for that: "
            f"make the environment with one of {', '.join(sorted(kind for kind in kinds if kind.startswith('python')))}"
        )
    jpeg = photo.take()
    archive = stage.folder / "thumbnail.zip"
    size = archives.write(archive, HERE / "actions" / "thumbnail.py", ("pillow",), {"photo.jpg": jpeg})
    stage.visp("action", "create", "thumbnail", "thumbnail.zip", "--kind", PYTHON)
    record = stage.visp("action", "invoke", "thumbnail", "-b", "-p", "side", str(SIDE), "--json").json
    result = record["response"]["result"]
    small = Image.open(io.BytesIO(base64.b64decode(result["image"])))
    height = round(SIDE * photo.HEIGHT / photo.WIDTH)
    return Told(
        {"from": [photo.WIDTH, photo.HEIGHT], "format": "JPEG", "to": [SIDE, height], "looks": "like the photograph"},
        {
            "from": result["from"],
            "format": small.format,
            "to": list(small.size),
            "looks": likeness(Image.open(io.BytesIO(jpeg)), small),
        },
        f"photograph of {len(jpeg) / 1e6:.1f} MB in an archive of {size / 1e6:.1f} MB; {times(record)}",
    )


def likeness(one: Image.Image, other: Image.Image) -> str:
    """Whether two pictures have the same colours in the same places."""
    tiles = [picture.convert("RGB").resize(TILES, Image.Resampling.BOX).tobytes() for picture in (one, other)]
    worst = max(abs(a - b) for a, b in zip(*tiles, strict=True))
    return "like the photograph" if worst <= LIKENESS else f"off by {worst} of 255 somewhere"


# ── what goes wrong ─────────────────────────────────────────────────────────────────────────────────────────────────


def failure(stage: Stage) -> Told:
    push = push_without_commits()
    (stage.folder / "tag.json").write_text(json.dumps(push))
    stage.visp("action", "create", "newest-commit", "newest-commit.py")
    said = stage.visp("action", "invoke", "newest-commit", "-b", "-P", "tag.json", status=FAILED)
    activation_id = invoked(said.err)
    lines = stage.visp("activation", "logs", activation_id, "--strip").out.splitlines()
    record = stage.record(activation_id)
    return Told(
        {
            "status": "application error",
            "result": {"error": "list index out of range"},
            "first line": f"{push['pusher']['name']} has pushed {push['ref']}",
            "last line": "IndexError: list index out of range",
        },
        {
            "status": record["response"]["status"],
            "result": record["response"]["result"],
            "first line": next(iter(lines), None),
            "last line": next(reversed(lines), None),
        },
        f"{len(lines)} lines of log; {times(record)}",
    )


def timeout(stage: Stage) -> Told:
    stage.visp("action", "create", "factor", "factor.js", "--timeout", str(LIMIT_MS))
    said = stage.visp("action", "invoke", "factor", "-b", "-p", "number", str(PRIME), status=FAILED)
    record = stage.record(invoked(said.err))
    again = stage.visp("action", "invoke", "factor", "-r", "-p", "number", "3233").json
    return Told(
        {
            "result": {"error": f"The action exceeded its time limits of {LIMIT_MS} milliseconds."},
            "lived up to its limit": True,
            "logged": f"looking for a factor of {PRIME}",
            "then, of 3233": {"factors": ["53", "61"]},
        },
        {
            "result": record["response"]["result"],
            "lived up to its limit": record["duration"] >= LIMIT_MS,
            "logged": next((line.partition("stdout: ")[2] for line in record["logs"]), None),
            "then, of 3233": again,
        },
        times(record),
    )


def invoked(said: str) -> str:
    """The activation id that the command prints."""
    found = re.search(r"with id ([0-9a-f]{32})", said)
    if found is None:
        raise Surprise(f"no activation id in: {said}")
    return found[1]


# ── somebody else's client ──────────────────────────────────────────────────────────────────────────────────────────


def client(stage: Stage) -> Told:
    push = push_with_commits()
    came = stage.node("client.js", "changed-files", given=push).json
    missing = {"status": 404, "error": "The requested resource does not exist."}
    return Told({"result": changes(push, None), "newest": "changed-files", "missing": missing}, came)


# ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def stop(stage: Stage) -> Told:
    folder = stage.server.data_dir.parent
    had = Belongings.of(stage.server.pid, folder / "cells")
    stage.say(f"$ kill -TERM {stage.server.pid}")
    status = stage.server.stop()
    left = had.remaining()
    stage.close()
    return Told(
        {"had containers": True, "exit status": 0, "processes": [], "groups": [], "cells": [], "its folder": "gone"},
        {
            "had containers": bool(had.processes) and bool(had.cells),
            "exit status": status,
            "processes": sorted(process.pid for process in left.processes),
            "groups": sorted(left.groups),
            "cells": sorted(cell.name for cell in left.cells),
            "its folder": "there" if folder.exists() else "gone",
        },
        f"before: {len(had.processes)} processes, {len(had.groups)} groups, {len(had.cells)} cells",
    )


def times(*records: Any) -> str:
    """How long activations took, as their records tell."""
    told = []
    for record in records:
        notes = {note["key"]: note["value"] for note in record["annotations"]}
        start = f", {notes['initTime']} ms of it to load the code" if "initTime" in notes else ", warm"
        told.append(f"{record['name']} ran {record['duration']} ms{start}")
    return "; ".join(told)


STEPS = (
    Step("start", "A server starts on a free port, over a data folder that will be thrown away.", start),
    Step("fire", "A push to GitHub fires a trigger; a rule has JavaScript pick the changed files.", fire),
    Step("deliver", "Every push that GitHub documents comes as GitHub sends it: a plain HTTP request.", deliver),
    Step("page", "A sequence of JavaScript and Python makes a page of the README; a zip brings the library.", page),
    Step("thumbnail", "Python makes a thumbnail of a 12-megapixel photograph; a zip brings Pillow.", thumbnail),
    Step("failure", "An action fails, and its logs tell why.", failure),
    Step("timeout", "An action outlives its time limit and is ended; the next one runs.", timeout),
    Step("client", "OpenWhisk's own JavaScript client invokes an action, and sees an error as one.", client),
    Step("stop", "SIGTERM ends the server, and nothing of its containers is left.", stop),
)
