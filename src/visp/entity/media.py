"""Media types: what is text and what is bytes, as web actions tell them apart, and what a caller accepts. Pure.

Source: the table of types that OpenWhisk's HTTP library knows; what is not in it is bytes, unless it names a charset.
"""

from __future__ import annotations

import re

import msgspec

_TOKEN = r"[\w!#$%&'*+.^`|~-]+"
_TYPE = re.compile(rf"\s*({_TOKEN})/({_TOKEN})\s*((?:;.*)?)\Z", re.ASCII)
_PARAMETER = re.compile(rf'\s*;\s*(?:({_TOKEN})\s*=\s*({_TOKEN}|"(?:[^"\\]|\\.)*"))?', re.ASCII)
_RANGE = re.compile(rf"\s*({_TOKEN})/({_TOKEN})\s*", re.ASCII)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TEXTS = _words(
    "asp cache-manifest calendar css csv event-stream html markdown mcf plain richtext tab-separated-values uri-list "
    "vnd.wap.wml vnd.wap.wmlscript x-asm x-c x-component x-h x-java-source x-pascal x-script x-scriptcsh "
    "x-scriptelisp x-scriptksh x-scriptlisp x-scriptperl x-scriptperl-module x-scriptphyton x-scriptrexx "
    "x-scriptscheme x-scriptsh x-scriptzsh x-server-parsed-html x-setext x-sgml x-speech x-uuencode x-vcalendar "
    "x-vcard xml"
)
"""Below `text/`."""
TEXTUAL_APPLICATIONS = _words(
    "atom+xml base64 javascript json-patch+json merge-patch+json problem+json problem+xml rss+xml soap+xml "
    "vnd.api+json vnd.google-earth.kml+xml x-latex x-vrml x-www-form-urlencoded xhtml+xml xml-dtd xml"
)
FIXED_CHARSET = frozenset({"application/json", "application/json-patch+json", "application/merge-patch+json"})
"""They are UTF-8 without saying so."""
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


class MediaType(msgspec.Struct, frozen=True):
    """`kind` is `type/subtype` in lower case; `parameters` as they were given, names in lower case."""

    kind: str
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def is_json(self) -> bool:
        return self.kind == JSON or self.kind.endswith("+json")

    @property
    def is_textual(self) -> bool:
        """Whether its content is shown as text, not as base64."""
        main, _, sub = self.kind.partition("/")
        if main == "text" and sub in TEXTS:
            return True
        if main == "application" and sub in TEXTUAL_APPLICATIONS:
            return True
        return not self.is_registered and any(name == "charset" for name, _ in self.parameters)

    @property
    def is_registered(self) -> bool:
        """Whether the table has it: a charset makes no text of those."""
        main, _, sub = self.kind.partition("/")
        if main == "text":
            return sub in TEXTS
        if main == "application":
            return sub in TEXTUAL_APPLICATIONS or sub in _BINARY_APPLICATIONS
        return main in ("image", "audio", "video", "font", "message", "multipart")

    def render(self, *, charset: str | None = None) -> str:
        """As a header has it; `charset` takes the place of any that was given."""
        parameters = [(name, value) for name, value in self.parameters if name != "charset" or charset is None]
        if charset is not None:
            parameters.append(("charset", charset))
        return self.kind + "".join(
            f"; {name}={value.upper() if name == 'charset' else value}" for name, value in parameters
        )


_BINARY_APPLICATIONS = _words(
    "excel font-woff gnutar java-archive json lha lzx mspowerpoint msword octet-stream pdf postscript x-7z-compressed "
    "x-ace-compressed x-apple-diskimage x-arc-compressed x-bzip x-bzip2 x-chrome-extension x-compress x-compressed "
    "x-debian-package x-dvi x-font-truetype x-font-opentype x-gtar x-gzip x-java-serialized-object x-redhat-package- "
    "manager x-rar-compressed x-shockwave-flash x-spdp x-stuffit x-tar x-tex x-tex-gf x-tex-pk x-troff x-vnd.rn- "
    "realmedia xaml+xml zip cbor grpc+proto x-ndjson"
)


def parse_media_type(text: str) -> MediaType | None:
    """None for what is none."""
    match = _TYPE.match(text)
    if match is None:
        return None
    main, sub, rest = match.groups()
    parameters, at = [], 0
    while at < len(rest):
        found = _PARAMETER.match(rest, at)
        if found is None:
            return None
        if found[1] is not None:
            parameters.append((found[1].lower(), found[2]))
        at = found.end()
        if not rest[at:].strip():
            break
    return MediaType(f"{main}/{sub}".lower(), tuple(parameters))


def accepts(header: str | None, kind: str) -> bool:
    """Whether an `Accept` header has room for a type; the range that says most about it decides.

    What cannot be read is as if it were not there.
    """
    if header is None or not header.strip():
        return True
    main = kind.partition("/")[0]
    ranks = {"*/*": 1, f"{main}/*": 2, kind: 3}
    best, is_welcome, has_range = 0, False, False
    for item in header.split(","):
        match = _RANGE.match(item)
        if match is None:
            continue
        has_range = True
        rank = ranks.get(f"{match[1]}/{match[2]}".lower(), 0)
        if rank > best:
            best, is_welcome = rank, _weight(item[match.end() :]) > 0
    return is_welcome or not has_range


def _weight(parameters: str) -> float:
    for name, value in _PARAMETER.findall(parameters):
        if name.lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 1.0
    return 1.0
