"""An OpenAPI document as a page to read: no script, and nothing that is fetched. Pure."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { border-bottom: 1px solid var(--line); margin-top: 2.5rem; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
nav a { margin-right: .8em; }
details { border: 1px solid var(--line); border-radius: 4px; margin: .4rem 0; }
summary { cursor: pointer; padding: .35rem .7rem; background: var(--soft); }
details > :not(summary) { margin: .6rem .7rem; }
.verb { display: inline-block; min-width: 4.5em; font-weight: bold; }
.said { opacity: .75; }
table { border-collapse: collapse; width: calc(100% - 1.4rem); }
th, td { border-top: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top; }
"""

POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""`Content-Security-Policy` of the page: its own style, and nothing else."""


def render(document: dict[str, Any]) -> str:
    """Operations by tag, then the schemas."""
    about, parts = document["info"], document["components"]
    tags = document["tags"]
    sections = [_section(tag, document["paths"], parts["responses"]) for tag in tags]
    links = " ".join(f'<a href="#{_anchor(tag["name"])}">{escape(tag["name"])}</a>' for tag in tags)
    shapes = "".join(_shape(name, schema) for name, schema in parts["schemas"].items())
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(about["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(about['title'])}</h1><p>{escape(about['summary'])}. {_text(about['description'])}</p>"
        f'<p>As data: <a href="../api-docs?version=3.1">OpenAPI 3.1</a>, <a href="../api-docs">Swagger 2.0</a>.</p>'
        f'<nav>{links} <a href="#schemas">Schemas</a></nav>{"".join(sections)}'
        f'<h2 id="schemas">Schemas</h2>{shapes}</body></html>\n'
    )


def _section(tag: dict[str, Any], paths: dict[str, Any], responses: dict[str, Any]) -> str:
    shown = [
        _operation(verb, path, told, responses)
        for path, methods in paths.items()
        for verb, told in methods.items()
        if tag["name"] in told["tags"]
    ]
    name = tag["name"]
    return f'<h2 id="{_anchor(name)}">{escape(name)}</h2><p>{_text(tag["description"])}</p>{"".join(shown)}'


def _operation(verb: str, path: str, told: dict[str, Any], responses: dict[str, Any]) -> str:
    head = f'<span class="verb">{verb.upper()}</span> <code>{escape(path)}</code>'
    head += f' <span class="said">{_text(told["summary"])}</span>'
    out = [f'<details id="{told["operationId"]}"><summary>{head}</summary>']
    if "description" in told:
        out.append(f"<p>{_text(told['description'])}</p>")
    if told.get("security") == []:
        out.append("<p>Without authentication.</p>")
    if "parameters" in told:
        rows = ((p["name"], f"{p['in']}, {_type(p['schema'])}", _text(p["description"])) for p in told["parameters"])
        out.append(_table(("parameter", "where", ""), rows))
    if "requestBody" in told:
        body = told["requestBody"]
        kinds = ", ".join(f"{kind}: {_type(part['schema'])}" for kind, part in body["content"].items())
        out.append(f"<p>Body{'' if body['required'] else ', not required'}: {kinds}</p>")
    rows = (_answer(status, answer, responses) for status, answer in told["responses"].items())
    out.append(_table(("status", "body", ""), rows))
    return "".join(out) + "</details>"


def _answer(status: str, told: dict[str, Any], responses: dict[str, Any]) -> tuple[str, str, str]:
    if "$ref" in told:
        told = responses[told["$ref"].rpartition("/")[2]]
    kinds = "<br>".join(f"{escape(kind)}: {_type(part['schema'])}" for kind, part in told.get("content", {}).items())
    return status, kinds, _text(told["description"])


def _shape(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = (
        (field, _type(part) + ("" if field in required else ", not always there"), _text(part.get("description", "")))
        for field, part in schema.get("properties", {}).items()
    )
    head = f'<code>{escape(name)}</code> <span class="said">{_text(schema.get("description", ""))}</span>'
    fields = _table(("field", "", ""), rows)
    return f'<details id="schema-{escape(name)}"><summary>{head}</summary>{fields}</details>'


def _type(schema: dict[str, Any]) -> str:
    """What a schema is, in a few words of HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return kind + (f", by default {escape(str(schema['default']).lower())}" if "default" in schema else "")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, str, str]]) -> str:
    """Each row's first cell is plain text, the others are HTML already."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join(f"<tr><td><code>{escape(name)}</code></td><td>{a}</td><td>{b}</td></tr>" for name, a, b in rows)
    return f"<table><tr>{titles}</tr>{body}</table>"


def _text(text: str) -> str:
    """Words in backquotes are code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if at % 2 else piece for at, piece in enumerate(pieces))


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
