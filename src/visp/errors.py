"""The error tree: three families.

::

    VispError
    ├── RequestError        the caller's fault; carries an HTTP status and the sentence the caller reads
    │   ├── BadRequest 400 ─── Malformed, BadQuery, BadName
    │   ├── Unauthorized 401
    │   ├── Forbidden 403
    │   ├── NotFound 404
    │   ├── Conflict 409 ──── OlderBatch
    │   ├── TooLarge 413 ──── BodyTooLarge
    │   ├── WrongContentType 415
    │   ├── Throttled 429
    │   └── ApiRefused 502
    ├── ServiceError        ours; 5xx; with `retry_after_s` the same call may succeed later
    │   ├── StoreUnavailable 503, StoreFull 507, Corrupt 500
    │   └── Overloaded 503
    └── ContainerError      never leaves the invoker: `activate` makes an outcome of it, or the plan goes elsewhere
        ├── StartFailed     no container could be made
        ├── ContainerGone   it ended, by itself or by the kernel, before it answered
        └── ContainerLost   it ended before it was given anything to do: safe to try another

A failing *action* is a value with one of four outcomes (`entity.activation`), never an exception.
"""

from __future__ import annotations

from visp import wording


class VispError(Exception):
    """Root of everything visp raises on purpose."""


# ── RequestError ────────────────────────────────────────────────────────────────────────────────────────────────


class Refused(VispError):
    """What an operator asked for cannot be; the text says why."""


class RequestError(VispError):
    """What the caller did wrong.

    `is_routed` is false where OpenWhisk rejects a request before a route has answered it: such answers carry no CORS
    headers (observed: Pekko's rejection handler runs outside of the CORS directive).
    """

    status = 400
    is_routed = True

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers beyond the usual ones that this answer carries."""
        return ()


class BadRequest(RequestError):
    """A request that is understood and wrong."""


class BuildRefused(BadRequest):
    """Code that cannot be built: the sentence is the compiler's."""


class CircularBinding(RequestError):
    status = 422


class Malformed(BadRequest):
    """A body that does not parse or has the wrong shape; the sentence is the reason alone."""

    is_routed = False

    def __init__(self, reason: str) -> None:
        super().__init__(wording.malformed_content(reason))
        self.reason = reason


class BadQuery(BadRequest):
    """A query parameter that does not parse."""

    is_routed = False

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(wording.malformed_query(name, reason))


class BadName(BadRequest):
    """A path segment that is no name, or no activation id."""

    is_routed = False


class Unauthorized(RequestError):
    status = 401
    is_routed = False

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return (("WWW-Authenticate", wording.AUTH_CHALLENGE),)


class Forbidden(RequestError):
    status = 403


class NotFound(RequestError):
    status = 404

    def __init__(self, sentence: str = wording.NOT_FOUND) -> None:
        super().__init__(sentence)


class NotYet(NotFound):
    """No such resource so far, but it may come: the answer of `NotFound`, and when to ask again."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return (("Retry-After", "1"),)


class UnknownRoute(NotFound):
    """No such route under the API."""

    is_routed = False

    def __init__(self) -> None:
        super().__init__(wording.UNKNOWN_ROUTE)


class Conflict(RequestError):
    status = 409


class OlderBatch(Conflict):
    """A later batch of the source has come already: its number goes with the answer."""

    def __init__(self, sentence: str, newest: int) -> None:
        super().__init__(sentence)
        self.newest = newest

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return (("X-Visp-Batch", str(self.newest)),)


class TooLarge(RequestError):
    status = 413


class BodyTooLarge(TooLarge):
    """A body over the server's own bound, refused before any route has answered; `size` as far as it is known."""

    is_routed = False

    def __init__(self, size: int | None, limit: int) -> None:
        given = "while streaming" if size is None else str(size)
        super().__init__(wording.malformed_content(wording.body_too_large(given, limit)))


class WrongContentType(RequestError):
    status = 415
    is_routed = False

    def __init__(self, given: str, expected: str = "application/json") -> None:
        super().__init__(wording.wrong_content_type(given, expected))


class Throttled(RequestError):
    """A limit of the namespace; `retry_after_s` is when it is worth asking again."""

    status = 429

    def __init__(self, sentence: str, retry_after_s: int = 1) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return (("Retry-After", str(self.retry_after_s)),)


class ApiRefused(RequestError):
    """What the management of APIs refuses, as the failing action that it is in OpenWhisk."""

    status = 502


# ── ServiceError ────────────────────────────────────────────────────────────────────────────────────────────────


class ServiceError(VispError):
    """What went wrong on our side."""

    status = 500
    retry_after_s: int | None = None

    def __init__(self, sentence: str = wording.INTERNAL) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Corrupt(ServiceError):
    """A stored record cannot be read."""

    def __init__(self) -> None:
        super().__init__(wording.CORRUPT)


class StoreUnavailable(ServiceError):
    status = 503
    retry_after_s = 1

    def __init__(self, sentence: str = wording.UNAVAILABLE) -> None:
        super().__init__(sentence)


class StoreFull(ServiceError):
    """The disk has no room: reads go on, new work is refused."""

    status = 507
    retry_after_s = 10

    def __init__(self, sentence: str = wording.DISK_FULL) -> None:
        super().__init__(sentence)


class Overloaded(ServiceError):
    """A bounded queue is full."""

    status = 503

    def __init__(self, sentence: str = wording.UNAVAILABLE, retry_after_s: int = 1) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


# ── ContainerError ──────────────────────────────────────────────────────────────────────────────────────────────


class ContainerError(VispError):
    """What went wrong with one container; stays inside the invoker."""


class StartFailed(ContainerError):
    """No container could be made. `sentence`, when given, is what the activation's record says."""

    def __init__(self, reason: str, sentence: str | None = None, *, is_developer_error: bool = False) -> None:
        super().__init__(reason)
        self.sentence = sentence
        self.is_developer_error = is_developer_error


class ImageNotPulled(StartFailed):
    """An image that is not here, or may not be used as it is, and cannot be pulled; named as whoever wants it did."""

    def __init__(self, reason: str, image: str, *, is_developer_error: bool) -> None:
        super().__init__(reason, wording.image_not_pulled(image), is_developer_error=is_developer_error)


class ImageNotStarted(StartFailed):
    """An image whose command cannot be run."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, wording.INIT_EXITED, is_developer_error=True)


class ContainerGone(ContainerError):
    """The container ended before it answered."""

    def __init__(self, reason: str = "", *, is_out_of_memory: bool = False) -> None:
        super().__init__(reason)
        self.is_out_of_memory = is_out_of_memory


class ContainerLost(ContainerError):
    """A warm container ended before it was given this run: the run may go to another."""
