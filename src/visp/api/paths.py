"""Paths of the API: which names they hold, and what is wrong with those. Pure.

A name that is none outranks every other rejection of a request, whether or not a route exists behind it; an unknown
collection holds no names. Source: OpenWhisk's routes, which check a segment as soon as it has matched.
"""

from __future__ import annotations

from urllib.parse import unquote

from visp import wording
from visp.entity.activation import parse_id
from visp.entity.names import CALLERS_NAMESPACE, parse_name, parse_namespace
from visp.errors import BadName

NAMESPACES = "/api/v1/namespaces/"

ENTITY_VERBS = frozenset({"GET", "PUT", "POST", "DELETE"})
NAMED = frozenset({"actions", "triggers", "rules", "packages"})
COLLECTIONS = NAMED | {"activations", "limits"}


def decode_segment(segment: str) -> str:
    """A segment of a raw path, percent-decoded: an encoded slash stays inside of its segment."""
    return unquote(segment, errors="surrogateescape")


def check_names(method: str, path: str) -> None:
    """Raises `BadName` for the first segment of a raw path that is no namespace, name or activation id."""
    if not path.startswith(NAMESPACES):
        return
    namespace, *rest = path[len(NAMESPACES) :].split("/")
    if not namespace or not rest or rest[0] not in COLLECTIONS:
        return
    collection, *names = rest
    if (decoded := decode_segment(namespace)) != CALLERS_NAMESPACE:
        parse_namespace(decoded)
    if not names or not names[0] or method not in ENTITY_VERBS:
        return
    if collection in NAMED:
        parse_name(decode_segment(names[0]))
        if collection == "actions" and len(names) == 2 and names[1]:
            parse_name(decode_segment(names[1]))
    elif method == "GET" and collection == "activations":
        parse_id(decode_segment(names[0]))
    elif method == "GET":
        raise BadName(wording.LIMITS_INNER)
