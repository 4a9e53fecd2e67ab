"""The packages that come with the platform: a folder for each, which is data.

`package.json` of a folder says what its package holds:

    {"description": TEXT, "parameters": [DESCRIBED, …], "bound"?: {NAME: VALUE}, "annotations"?: {NAME: VALUE},
     "actions": {NAME: {"description", "kind", "file", "parameters", "main"?, "timeout"? (ms), "bound"?,
                        "annotations"?}}}

`DESCRIBED` is `{"name", "required", "type", "description", "bindTime"?, "updatable"?}`, as OpenWhisk's catalog
describes parameters in the annotation `parameters`; `bound` are values. `file` is the source, from the folder on. A
line of Python `from NAME import …` where NAME is a file of `shared/` is replaced by what is in that file: an action is
one text.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).parent
DIGEST = "catalog"
"""The annotation by which what was installed is known: a digest of all of it."""

_IMPORT = re.compile(r"^from (\w+) import .*\n", re.MULTILINE)


class Entry(msgspec.Struct, frozen=True):
    """An action: its name, and the body of the PUT that makes it. `digest` is of all of that."""

    name: str
    body: dict[str, Any]
    digest: str


class Shipped(msgspec.Struct, frozen=True):
    """A package with its actions; `digest` is of all of that."""

    name: str
    body: dict[str, Any]
    actions: tuple[Entry, ...]
    digest: str


def names() -> tuple[str, ...]:
    """Of all packages, sorted."""
    return tuple(sorted(path.parent.name for path in ROOT.glob("*/package.json")))


def read(name: str) -> Shipped:
    """The package of that name, which is one of `names()`."""
    told = json.loads((ROOT / name / "package.json").read_text())
    actions = tuple(_entry(name, action, fields) for action, fields in told["actions"].items())
    body = _body(told) | {"publish": True}
    digest = _digest({"package": body, "actions": {entry.name: entry.digest for entry in actions}})
    return Shipped(name, _marked(body, digest), actions, digest)


def _entry(package: str, name: str, told: dict[str, Any]) -> Entry:
    exec = {"kind": told["kind"], "code": source(ROOT / package / told["file"])}
    if "main" in told:
        exec["main"] = told["main"]
    body = _body(told) | {"exec": exec, "publish": True}
    if "timeout" in told:
        body["limits"] = {"timeout": told["timeout"]}
    digest = _digest(body)
    return Entry(name, _marked(body, digest), digest)


def _body(told: dict[str, Any]) -> dict[str, Any]:
    annotations = {"description": told["description"], "parameters": told["parameters"]} | told.get("annotations", {})
    return {"parameters": _pairs(told.get("bound", {})), "annotations": _pairs(annotations)}


def _pairs(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def _marked(body: dict[str, Any], digest: str) -> dict[str, Any]:
    return body | {"annotations": [*body["annotations"], {"key": DIGEST, "value": digest}]}


@functools.lru_cache(maxsize=8)
def source(path: Path) -> str:
    """An action's whole text."""
    seen: set[str] = set()

    def shared(match: re.Match[str]) -> str:
        name = match[1]
        file = ROOT / "shared" / f"{name}.py"
        if not file.exists():
            return match[0]
        if name in seen:
            return ""
        seen.add(name)
        return _IMPORT.sub(shared, _without_docstring(file.read_text())).strip("\n") + "\n"

    text = path.read_text()
    return _IMPORT.sub(shared, text) if path.suffix == ".py" else text


def _without_docstring(text: str) -> str:
    return re.sub(r'\A""".*?"""\n', "", text, flags=re.DOTALL)
