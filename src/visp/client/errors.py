"""What a call of the API may end with besides its answer, and the exit status that each gives.

::

    ClientError
    ├── Misused            the call cannot be made: no key, no such file, a name that is no name      2
    ├── NoConnection       the server cannot be reached, or did not answer                            3
    ├── ApiError           the platform refused: `{"error", "code"}`                                  HTTP status − 256
    ├── ActivationFailed   the action ran and failed; carries its answer and its activation id        HTTP status − 256
    ├── BuildFailed        the action's code could not be built; the sentence is the compiler's               1
    ├── StillRunning       a blocking invocation that was not finished in time                        202
    └── NotInTime          an activation that was waited for has no record yet                        124

Exit statuses are those of OpenWhisk's `wsk`, modulo 256: 400 gives 144, 404 gives 148, 502 gives 246.
"""

from __future__ import annotations

from visp.errors import VispError

GENERAL, USAGE, NETWORK, NOT_IN_TIME, STILL_RUNNING, INTERRUPTED = 1, 2, 3, 124, 202, 130


def exit_code(status: int) -> int:
    """What an HTTP status becomes as the exit status of a process; never 0."""
    return (status - 256) % 256 or GENERAL


class ClientError(VispError):
    """A call that did not bring what was asked for. `doing` says what was tried, when the caller knew."""

    exit_code = GENERAL

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.doing = ""

    def __str__(self) -> str:
        return f"{self.doing}: {self.sentence}" if self.doing else self.sentence


class Misused(ClientError):
    """The call cannot be made as it was asked for."""

    exit_code = USAGE


class NoConnection(ClientError):
    """Nobody answered."""

    exit_code = NETWORK


class ApiError(ClientError):
    """The platform refused. `code` is the transaction id, empty when the answer was not the platform's own.

    `retry_after_s` is when the same call may succeed, None when the answer does not say that it ever will.
    `newest_batch` is the number of the batch that came after the one that was sent, None of other refusals.
    """

    def __init__(
        self,
        status: int,
        error: str,
        code: str = "",
        retry_after_s: int | None = None,
        newest_batch: int | None = None,
    ) -> None:
        super().__init__(f"{error} (code {code})" if code else error)
        self.retry_after_s = retry_after_s
        self.newest_batch = newest_batch
        self.status = status
        self.error = error
        self.code = code
        self.exit_code = exit_code(status)


class BuildFailed(ClientError):
    """The code could not be built, and nothing was stored."""


class ActivationFailed(ClientError):
    """The action ran and failed. `body` is the answer as it came: the activation's record, or its result alone."""

    def __init__(self, status: int, error: str, body: bytes, activation_id: str) -> None:
        super().__init__(f"{error} (activation {activation_id})" if activation_id else error)
        self.status = status
        self.error = error
        self.body = body
        self.activation_id = activation_id
        self.exit_code = exit_code(status)


class StillRunning(ClientError):
    """A blocking invocation fell back: the activation goes on, and its record will be there."""

    exit_code = STILL_RUNNING

    def __init__(self, body: bytes, activation_id: str) -> None:
        super().__init__("Request accepted, but processing not completed yet.")
        self.body = body
        self.activation_id = activation_id


class NotInTime(ClientError):
    """The time is over, and there is no record of the activation yet: it may still come."""

    exit_code = NOT_IN_TIME

    def __init__(self, activation_id: str, within_s: float) -> None:
        super().__init__(f"activation {activation_id} has no record after {within_s:g} s; it may still come")
        self.activation_id = activation_id
