"""Names as people type them: `foo`, `pkg/foo`, `/ns/foo`, `/ns/pkg/foo`, `ns/pkg/foo`.

Whether a segment is a legal name is the server's to say; here it is only split, and percent-encoded for a path.
"""

from __future__ import annotations

from urllib.parse import quote

from visp.client.errors import Misused
from visp.entity.names import CALLERS_NAMESPACE, DEFAULT_PACKAGE, FullyQualifiedName


def parse_entity(text: str) -> FullyQualifiedName:
    """The entity that a typed name means, in the caller's namespace (`_`) unless it says another. Raises `Misused`."""
    is_absolute, segments = _segments(text)
    if is_absolute or len(segments) == 3:
        namespace, *rest = segments
    else:
        namespace, rest = CALLERS_NAMESPACE, segments
    if not 1 <= len(rest) <= 2:
        raise Misused(f"'{text}' is no name: write NAME, PACKAGE/NAME, /NAMESPACE/NAME or /NAMESPACE/PACKAGE/NAME")
    package = rest[0] if len(rest) == 2 and rest[0] != DEFAULT_PACKAGE else None
    return FullyQualifiedName(namespace, package, rest[-1])


def parse_collection(text: str) -> tuple[str, str | None]:
    """The namespace, and the package if one is meant, that a list is asked for: `/ns`, `/ns/pkg`, `pkg`."""
    is_absolute, segments = _segments(text)
    if len(segments) > (2 if is_absolute else 1):
        raise Misused(f"'{text}' is no namespace or package: write /NAMESPACE, /NAMESPACE/PACKAGE or PACKAGE")
    if not is_absolute:
        return CALLERS_NAMESPACE, segments[0]
    return segments[0], segments[1] if len(segments) == 2 else None


def parse_namespace(text: str) -> str:
    """The namespace that a list is asked for: `/ns`, or `ns`."""
    _, segments = _segments(text)
    if len(segments) != 1:
        raise Misused(f"'{text}' is no namespace: write /NAMESPACE")
    return segments[0]


def escape(segment: str) -> str:
    """A segment as it stands in a URL's path."""
    return quote(segment, safe="")


def _segments(text: str) -> tuple[bool, list[str]]:
    is_absolute = text.startswith("/")
    segments = text.strip("/").split("/")
    # `.` and `..` would be taken out of the path by whatever stands between here and the server.
    if any(segment in ("", ".", "..") for segment in segments):
        raise Misused(f"'{text}' is no name: a part of it is empty or made of dots")
    return is_absolute, segments
