"""Names of entities and the paths they make.

Source: entity names, paths and fully qualified names of Apache OpenWhisk; a name matches
`\\A([\\w]|[\\w][\\w@ .&-]{0,254}[\\w@.&-])\\z` with ASCII word characters. All of it is plain ASCII without quotes, so
a checked name needs no escaping in JSON.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import msgspec

from visp import wording
from visp.errors import BadName, Malformed

NAME_LIMIT = 256
DEFAULT_PACKAGE = "default"
"""What clients and web action paths call the default package; in the API it is a name that no package may have."""

CALLERS_NAMESPACE = "_"

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_@ .&-]{0,254}[A-Za-z0-9_@.&-])?\Z")


def is_name(text: str) -> bool:
    return _NAME.match(text) is not None


def parse_name(text: str) -> str:
    """One entity or package name from a path segment; raises `BadName`."""
    if len(text) > NAME_LIMIT:
        raise BadName(wording.name_too_long(len(text), NAME_LIMIT))
    if not is_name(text):
        raise BadName(wording.NAME_ILLEGAL)
    return text


def parse_namespace(text: str) -> str:
    """A namespace from a path segment; raises `BadName`."""
    if len(text) > NAME_LIMIT:
        raise BadName(wording.namespace_too_long(len(text), NAME_LIMIT))
    if not is_name(text):
        raise BadName(wording.NAMESPACE_ILLEGAL)
    return text


class FullyQualifiedName(msgspec.Struct, frozen=True, dict=True):
    """Namespace, package (None: the default one) and name of an entity."""

    namespace: str
    package: str | None
    name: str

    @cached_property
    def path(self) -> str:
        """`ns` or `ns/pkg`: the `namespace` field of the entity on the wire."""
        return self.namespace if self.package is None else f"{self.namespace}/{self.package}"

    @cached_property
    def id(self) -> str:
        """`ns[/pkg]/name`: the entity's id in the store, and the `path` annotation of its activations."""
        return f"{self.path}/{self.name}"

    def resolve(self, namespace: str) -> FullyQualifiedName:
        """The same name with `_` replaced by the caller's namespace."""
        if self.namespace != CALLERS_NAMESPACE:
            return self
        return FullyQualifiedName(namespace, self.package, self.name)

    def render(self) -> dict[str, str]:
        return {"path": self.path, "name": self.name}


def split_path(text: str) -> list[str]:
    """Segments of a path; empty ones are dropped, so a leading slash does not matter."""
    return [segment for segment in text.split("/") if segment]


def parse_qualified(value: Any) -> FullyQualifiedName:
    """A reference from a body: `"/ns/a"`, `"ns/pkg/a"` or `{"path": "ns/pkg", "name": "a"}`; raises `Malformed`.

    `pkg/a` means namespace `pkg`: in a body nothing is relative.
    """
    if isinstance(value, dict):
        path, name = value.get("path"), value.get("name")
        if not isinstance(path, str) or not isinstance(name, str):
            raise Malformed(wording.NAME_INCOMPLETE)
        segments = [*split_path(path), name]
    elif isinstance(value, str):
        segments = split_path(value)
    else:
        raise Malformed(wording.NAME_INCOMPLETE)
    if not 2 <= len(segments) <= 3:
        raise Malformed(wording.NAME_INCOMPLETE)
    for segment in segments:
        if not is_name(segment):
            raise Malformed(wording.NAME_ILLEGAL)
    return FullyQualifiedName(segments[0], segments[1] if len(segments) == 3 else None, segments[-1])


def from_id(id: str) -> FullyQualifiedName:
    """The name that an entity's id was made of; for ids that visp itself made."""
    segments = id.split("/")
    return FullyQualifiedName(segments[0], segments[1] if len(segments) == 3 else None, segments[-1])
