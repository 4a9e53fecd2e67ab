"""What the gateway shows of an API to whoever calls it: its OpenAPI document, and a page to read and try it. Pure.

Extensions are left out of both: they say how the API is made, secrets included. The page has one script, which calls
the API from the reader's browser; whatever the document says is text there.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from visp.api.page import STYLE
from visp.entity.openapi import from_swagger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from visp.entity.gateway import Plan

    Schema = dict[str, Any]

_VERBS = ("get", "put", "post", "delete", "patch", "head", "options")
_VALUES = frozenset({"default", "enum", "example", "examples", "const"})
_NAMES = frozenset({"properties", "patternProperties", "headers", "paths", "securitySchemes", "schemas", "parameters"})

_STYLE = (
    STYLE
    + """
form { margin: .6rem .7rem; }
label { display: block; margin: .3rem 0; }
label span { display: inline-block; min-width: 12em; }
textarea { width: 100%; min-height: 5em; font-family: ui-monospace, monospace; }
pre { overflow: auto; max-height: 30em; background: var(--soft); padding: .5rem; white-space: pre-wrap; }
"""
)

_SCRIPT = """
"use strict";
const keys = () => [...document.querySelectorAll("#keys input")].filter((field) => field.value);
document.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target, shown = form.querySelector("pre");
  if (!shown) return;
  let path = form.dataset.path;
  const query = new URLSearchParams(), headers = new Headers(), sent = { method: form.dataset.verb, headers };
  try {
    for (const field of [...form.querySelectorAll("[data-in]"), ...keys()]) {
      const { in: place, name } = field.dataset, value = field.value;
      if (place === "path") path = path.replaceAll("{" + name + "}", encodeURIComponent(value));
      else if (!value) continue;
      else if (place === "query") query.append(name, value);
      else if (place === "header") headers.set(name, value);
      else if (place === "bearer") headers.set("Authorization", "Bearer " + value);
      else if (place === "body") { sent.body = value; headers.set("Content-Type", field.dataset.kind); }
    }
    const asked = String(query), url = document.body.dataset.base + path + (asked && "?" + asked);
    shown.textContent = "…";
    const answer = await fetch(url, { ...sent, credentials: "omit" });
    const head = [...answer.headers].map(([name, value]) => name + ": " + value).join("\\n");
    shown.textContent = answer.status + " " + answer.statusText + "\\n" + head + "\\n\\n" + await answer.text();
  } catch (error) {
    shown.textContent = String(error);
  }
});
"""


def _hash(text: str) -> str:
    return "'sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""`Content-Security-Policy` of the page: its own style and script, and calls of this server."""


def address(namespace: str, plan: Plan) -> str:
    """Where the API answers, as a path."""
    return quote(f"/gw/{namespace}" + ("" if plan.base_path == "/" else plan.base_path))


def document(namespace: str, plan: Plan) -> Schema:
    """OpenAPI 3.1, without anything that is not the caller's business."""
    shown: Schema = _public(from_swagger(plan.document, address(namespace, plan)), is_names=False)
    return shown


def rendered(namespace: str, plan: Plan) -> bytes:
    return msgspec.json.encode(document(namespace, plan))


def _public(value: Any, *, is_names: bool) -> Any:
    """Without extensions; where keys are names, one that looks like an extension is none."""
    if isinstance(value, list):
        return [_public(item, is_names=False) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: part if name in _VALUES and not is_names else _public(part, is_names=name in _NAMES and not is_names)
        for name, part in value.items()
        if is_names or not name.startswith("x-")
    }


def page(namespace: str, plan: Plan) -> bytes:
    told = document(namespace, plan)
    about = _object(told.get("info"))
    title, description = escape(_text(about.get("title"))), escape(_text(about.get("description")))
    operations = "".join(
        _operation(path, verb, _object(operation), [*_list(_object(verbs).get("parameters"))], told)
        for path, verbs in _object(told.get("paths")).items()
        if path.startswith("/")
        for verb, operation in _object(verbs).items()
        if verb in _VERBS
    )
    base = escape(address(namespace, plan))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f'<body data-base="{base}"><h1>{title}</h1><p>{description}</p>'
        f'<p>At <code>{base}</code>; as data: <a href="{base}/openapi.json">OpenAPI 3.1</a>.</p>'
        f"{_keys(told)}{operations}<script>{_SCRIPT}</script></body></html>\n"
    ).encode()


def _keys(told: Schema) -> str:
    fields = []
    for name, scheme in _object(_object(told.get("components")).get("securitySchemes")).items():
        kind = _object(scheme).get("type")
        if kind == "apiKey":
            place = "query" if scheme.get("in") == "query" else "header"
            fields.append(_field(place, _text(scheme.get("name")) or "x-api-key", name, kind="password"))
        elif kind in ("oauth2", "openIdConnect"):
            fields.append(_field("bearer", name, f"{name} (bearer token)", kind="password"))
    return f'<form id="keys"><h2>Credentials</h2>{"".join(fields)}</form>' if fields else ""


def _operation(path: str, verb: str, told: Schema, shared: list[Any], document: Schema) -> str:
    fields = "".join(_parameters([*shared, *_list(told.get("parameters"))], document))
    kinds = list(_object(_object(told.get("requestBody")).get("content")))
    if kinds or verb in ("post", "put", "patch"):
        kind = escape(kinds[0] if kinds else "application/json")
        fields += f'<label><span>body, {kind}</span><textarea data-in="body" data-kind="{kind}"></textarea></label>'
    answers = "".join(
        f"<tr><td><code>{escape(status)}</code></td><td>{escape(_text(_object(answer).get('description')))}</td></tr>"
        for status, answer in _object(told.get("responses")).items()
    )
    about = escape(_text(told.get("summary")))
    return (
        f'<details><summary><span class="verb">{verb.upper()}</span> <code>{escape(path)}</code> '
        f'<span class="said">{about}</span></summary><p>{escape(_text(told.get("description")))}</p>'
        f"<table><tr><th>status</th><th></th></tr>{answers}</table>"
        f'<form data-verb="{verb.upper()}" data-path="{escape(path)}">{fields}'
        f"<button>Try it</button><pre></pre></form></details>"
    )


def _parameters(given: list[Any], document: Schema) -> Iterator[str]:
    known = _object(_object(document.get("components")).get("parameters"))
    for one in given:
        parameter = _object(one)
        reference = parameter.get("$ref")
        if isinstance(reference, str):
            parameter = _object(known.get(reference.rpartition("/")[2]))
        place, name = parameter.get("in"), _text(parameter.get("name"))
        if place in ("path", "query", "header") and name:
            about = _text(parameter.get("description"))
            yield _field(str(place), name, f"{name}, {place}", about=about)


def _field(place: str, name: str, label: str, *, kind: str = "text", about: str = "") -> str:
    return (
        f'<label><span>{escape(label)}</span><input type="{kind}" autocomplete="off" data-in="{place}" '
        f'data-name="{escape(name)}"> {escape(about)}</label>'
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
