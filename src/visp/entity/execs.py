"""What an action executes (`exec` on the wire): code of a kind, an image, or a sequence of other actions.

Source: the exec documents of Apache OpenWhisk; `binary` is computed from the code, never taken from the caller.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from visp import wording
from visp.entity.names import FullyQualifiedName, parse_qualified
from visp.entity.payload import DOCUMENT_BYTES, encode, text_bytes
from visp.errors import Malformed, TooLarge

if TYPE_CHECKING:
    from visp.entity.runtime_manifest import Manifest

INLINE_CODE_BYTES = 16 * 1024
"""Code up to this size stands in the document; larger code is a blob."""

_CODE_FIELDS = ("code", "jar")
"""Java actions once had their code in `jar`."""

SEQUENCE = "sequence"
BLACKBOX = "blackbox"

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)\Z")
_IMAGE = re.compile(
    r"(?:(?P<registry>[\w.-]+(?:\.[\w.-]+)+(?::\d+)?|[\w.-]+:\d+|localhost)/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z"
)


class Code(msgspec.Struct, frozen=True):
    """An action's code: text, or base64 of an archive or program.

    Exactly one of `inline` and `blob` is set; `blob` is the SHA-256 (hex) under which the store keeps the same text.
    """

    is_binary: bool
    inline: str | None = None
    blob: str | None = None


class CodeExec(msgspec.Struct, frozen=True, tag="code"):
    """Code for one of the manifest's kinds."""

    kind: str
    code: Code
    main: str | None = None


class BlackboxExec(msgspec.Struct, frozen=True, tag="blackbox"):
    """An image that obeys the container contract, and perhaps code for it."""

    image: str
    code: Code | None = None
    main: str | None = None

    @property
    def kind(self) -> str:
        return BLACKBOX


class SequenceExec(msgspec.Struct, frozen=True, tag="sequence"):
    """Other actions, run one after the other."""

    components: tuple[FullyQualifiedName, ...]

    @property
    def kind(self) -> str:
        return SEQUENCE

    @property
    def code(self) -> None:
        return None


Exec = CodeExec | BlackboxExec | SequenceExec


SKELETON = "openwhisk/dockerskeleton"
"""The image whose contract any program with code of its own obeys: `wsk action create --native`."""
IMAGE = "image:"


def runtime_of(exec: Exec) -> str:
    """What runs it: its kind; `blackbox` for a program by the skeleton's contract; of any other image `image:NAME`."""
    if not isinstance(exec, BlackboxExec):
        return exec.kind
    if exec.code is not None and is_skeleton(exec.image):
        return BLACKBOX
    return IMAGE + exec.image


def is_skeleton(image: str) -> bool:
    """Whatever its tag."""
    return image.partition("@")[0].partition(":")[0].removeprefix("docker.io/") == SKELETON


def is_base64(code: str) -> bool:
    """Whether OpenWhisk takes this text for base64, and so for binary code."""
    stripped = code.strip()
    return bool(stripped) and len(stripped) % 4 == 0 and _BASE64.match(stripped) is not None


def parse_exec(value: Any, manifest: Manifest, namespace: str) -> Exec | None:
    """`exec` of a PUT body; None when absent. `_` in components becomes `namespace`.

    Raises `Malformed` with OpenWhisk's reason.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Malformed(wording.JSON_OBJECT_EXPECTED)
    given = value.get("kind")
    if not isinstance(given, str):
        raise Malformed(wording.KIND_NOT_STRING)
    kind = given.strip().lower()
    if kind == SEQUENCE:
        return _parse_sequence(value, namespace)
    if kind == BLACKBOX:
        return _parse_blackbox(value)
    entry = manifest.resolve(kind)
    field = next((field for field in _CODE_FIELDS if field in value), None)
    if field is None:
        raise Malformed(wording.code_missing(kind))
    main = _main(value, kind)
    if entry.require_main and main is None:
        raise Malformed(wording.main_missing(kind))
    return CodeExec(entry.kind, _code(value[field]), main)


def _parse_sequence(value: dict[str, Any], namespace: str) -> SequenceExec:
    components = value.get("components")
    if components is None:
        raise Malformed(wording.COMPONENTS_MISSING)
    if not isinstance(components, list):
        raise Malformed(wording.COMPONENTS_NOT_ARRAY)
    return SequenceExec(tuple(parse_qualified(item).resolve(namespace) for item in components))


def _parse_blackbox(value: dict[str, Any]) -> BlackboxExec:
    image = value.get("image")
    if not isinstance(image, str):
        raise Malformed(wording.IMAGE_NOT_STRING)
    if not _IMAGE.match(image.strip()):
        raise Malformed(wording.IMAGE_UNPARSABLE)
    code = value.get("code")
    is_blank = code is None or (isinstance(code, str) and not code.strip())
    return BlackboxExec(image.strip(), None if is_blank else _code(code), _main(value, BLACKBOX))


def _code(value: Any) -> Code:
    if not isinstance(value, str):
        raise Malformed(wording.code_not_string(encode(value).decode()))
    return Code(is_base64(value), inline=value)


def _main(exec: dict[str, Any], kind: str) -> str | None:
    """`main`, None when it is absent or blank."""
    main = exec.get("main")
    if main is None:
        return None
    if not isinstance(main, str):
        raise Malformed(wording.main_not_string(kind))
    return main if main.strip() else None


def size_bytes(exec: Exec) -> int:
    """What the code limit counts: the code's text, `main` and the image's name.

    Only for an exec whose code is inline.
    """
    if isinstance(exec, SequenceExec):
        return sum(len(component.id) for component in exec.components)
    code = exec.code.inline or "" if exec.code else ""
    image = exec.image if isinstance(exec, BlackboxExec) else ""
    return sum(
        len(part if part.isascii() else part.encode("utf-8", "surrogatepass"))
        for part in (code, exec.main or "", image)
    )


def check_size(exec: Exec, limit: int) -> None:
    """Raises `TooLarge`."""
    size = size_bytes(exec)
    if size > limit:
        raise TooLarge(wording.too_large("exec", size, limit))


class _Texts(msgspec.Struct):
    """What the code limit counts, as it was sent."""

    code: msgspec.Raw = msgspec.Raw(b'""')
    jar: msgspec.Raw = msgspec.Raw(b'""')
    main: msgspec.Raw = msgspec.Raw(b'""')
    image: msgspec.Raw = msgspec.Raw(b'""')


class _Sent(msgspec.Struct):
    exec: _Texts


_decode_sent = msgspec.json.Decoder(_Sent).decode


def code_bytes(body: bytes) -> int:
    """How much of a PUT's body is code, as it was sent: asked of a long one, of which nothing else may be long."""
    if len(body) <= DOCUMENT_BYTES:
        return 0
    try:
        sent = _decode_sent(body).exec
    except (msgspec.DecodeError, RecursionError):
        return 0
    fields = [memoryview(field).cast("B") for field in (sent.code, sent.jar)]
    return sum(len(field) for field in fields if bytes(field[:1]) == b'"')


def check_sent_size(body: bytes, limit: int) -> None:
    """Raises `TooLarge` for the body of a PUT with too much code, before there is a copy of that. What else is wrong
    with a body, whoever decodes it says.
    """
    if len(body) <= limit:
        return
    try:
        sent = _decode_sent(body).exec
        size = sum(map(text_bytes, (sent.code, sent.jar, sent.main, sent.image)))
    except (msgspec.DecodeError, RecursionError, Malformed):
        return
    if size > limit:
        raise TooLarge(wording.too_large("exec", size, limit))


def render_exec(exec: Exec, code: str | None) -> dict[str, Any]:
    """`exec` of an answer; `code` is the code's text, None to leave it out."""
    if isinstance(exec, SequenceExec):
        return {"kind": SEQUENCE, "components": ["/" + component.id for component in exec.components]}
    out: dict[str, Any] = {"kind": exec.kind}
    if isinstance(exec, BlackboxExec):
        out["image"] = exec.image
    if code is not None:
        out["code"] = code
    out["binary"] = exec.code is not None and exec.code.is_binary
    if exec.main is not None:
        out["main"] = exec.main
    return out
