"""Runs an invocation for a command and shows how it went: of actions, and of the feeds behind triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.cli import output
from visp.client import documents
from visp.client.errors import ActivationFailed, ClientError, StillRunning
from visp.client.terms import AT_ONCE, Terms

if TYPE_CHECKING:
    from visp.cli.pairs import Values
    from visp.cli.session import Session
    from visp.entity.names import FullyQualifiedName


def run(
    session: Session,
    name: FullyQualifiedName,
    arguments: Values,
    *,
    is_blocking: bool,
    is_result: bool,
    as_json: bool,
    terms: Terms = AT_ONCE,
) -> None:
    """Invokes and prints. Raises what the client raised, after what there is to see has been shown."""
    try:
        done = session.client.invoke(name, arguments, is_blocking=is_blocking, is_result=is_result, terms=terms)
    except StillRunning as late:
        if as_json:
            output.answer(late.body)
        else:
            output.ok(f"invoked /{name.id}, but the request has not yet finished, with id {late.activation_id}")
        raise
    except ActivationFailed as failed:
        if as_json:
            output.answer(failed.body)
        _show_failure(session, name, failed, has_body=not as_json, is_result=is_result)
        raise
    if as_json:
        output.answer(done.body)
        return
    if not is_result:
        output.ok(f"invoked /{name.id} with id {done.activation_id}")
    if is_blocking or is_result:
        output.document(done.body)


def stream(session: Session, name: FullyQualifiedName, arguments: Values) -> None:
    """Invokes and prints the result as it comes. Raises what the client raised."""
    has_parts = False

    def show(part: bytes) -> None:
        nonlocal has_parts
        has_parts = True
        output.piece(part)

    try:
        done = session.client.stream(name, arguments, show)
    except StillRunning as late:
        output.ok(
            f"invoked /{name.id}, but the request has not yet finished, with id {late.activation_id}", is_error=True
        )
        raise
    except ActivationFailed as failed:
        _show_failure(session, name, failed, has_body=False, is_result=False)
        raise
    if not has_parts:
        response = documents.fields(done.body).get("response", b"{}")
        output.document(documents.fields(response).get("result", b"{}"))


def _show_failure(
    session: Session, name: FullyQualifiedName, failed: ActivationFailed, *, has_body: bool, is_result: bool
) -> None:
    """On standard error: the id, what the action logged, and its answer."""
    if not is_result:
        output.ok(f"invoked /{name.id} with id {failed.activation_id}", is_error=True)
    if failed.activation_id:
        try:
            logs = documents.value(session.client.activation_logs(failed.activation_id))
        except ClientError:
            # Records may be kept from being stored; the failure itself is what matters.
            logs = None
        for line in lines_of(logs):
            output.note(line)
    if has_body:
        output.document(failed.body, is_error=True)


def lines_of(logs: object) -> list[str]:
    """The lines in an answer of `…/logs`, or in a record."""
    lines = logs.get("logs") if isinstance(logs, dict) else None
    return [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
