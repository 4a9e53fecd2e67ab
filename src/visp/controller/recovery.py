"""After a restart: what was accepted and not started runs; what was running gets its internal-error record.

An action is run at most once: started work is not run again, because nobody knows how far it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.bus.messages import ActivationMessage, decode_activation
from visp.controller.primitive import Order
from visp.entity.action import Action
from visp.entity.activation import ActivationHead, ActivationRecord, Outcome, Status, failure
from visp.entity.execs import SequenceExec
from visp.entity.names import from_id
from visp.errors import Corrupt, ServiceError
from visp.telemetry import log

if TYPE_CHECKING:
    from visp.clock import Clock
    from visp.controller.identities import Identities
    from visp.controller.primitive import Primitive
    from visp.controller.sequence import Sequences
    from visp.store.base import Ledger, OpenWork
    from visp.store.cache import EntityCache


class Recovery:
    """Runs once, when an invoker is up."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        entities: EntityCache,
        identities: Identities,
        primitive: Primitive,
        sequences: Sequences,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._entities = entities
        self._identities = identities
        self._primitive = primitive
        self._sequences = sequences
        self._clock = clock

    async def run(self) -> tuple[int, int]:
        """Resumes or ends everything the ledger holds open; how many were begun, how many were ended."""
        begun = ended = 0
        for work in self._ledger.open_work():
            if await self._resume(work):
                begun += 1
            else:
                ended += 1
        return begun, ended

    async def _resume(self, work: OpenWork) -> bool:
        try:
            message = decode_activation(work.message)
        except (msgspec.DecodeError, ValueError):
            log.error("recovery.unreadable", activation=work.id)
            return False
        action = await self._action(message)
        if work.is_started:
            self._end(message, action, failure(Status.INTERNAL_ERROR, wording.INTERRUPTED))
            return False
        identity = await self._identities.by_uuid(message.namespace_uuid)
        if action is None or identity is None:
            self._end(message, action, failure(Status.APPLICATION_ERROR, wording.ACTION_GONE))
            return False
        order = Order(
            id=message.id,
            identity=identity,
            action=action,
            content=message.content,
            transid=message.transid,
            received_ms=message.received_ms,
            cause=message.cause,
            binding=message.binding,
        )
        try:
            if isinstance(action.exec, SequenceExec):
                self._sequences.resume(order)
            else:
                self._primitive.publish_accepted(order)
        except ServiceError as error:
            log.error("recovery.not_published", activation=work.id, reason=str(error))
            return False
        return True

    async def _action(self, message: ActivationMessage) -> Action | None:
        try:
            found = await self._entities.get(message.action)
        except Corrupt:
            return None
        return found if isinstance(found, Action) else None

    def _end(self, message: ActivationMessage, action: Action | None, outcome: Outcome) -> None:
        now_ms = self._clock.now_ms()
        head = ActivationHead(
            id=message.id,
            namespace=message.namespace,
            subject=message.subject,
            name=from_id(message.action).name,
            version="0.0.1" if action is None else action.version,
            start_ms=now_ms,
            end_ms=now_ms,
            duration_ms=0,
            status=outcome.status,
            path=message.action,
            kind="unknown" if action is None else action.exec.kind,
            limits=None if action is None else action.limits,
            cause=message.cause,
            binding=message.binding,
        )
        self._ledger.finish(ActivationRecord(head=head, result=outcome.result), _report)


def _report(error: Exception | None) -> None:
    if error is not None:
        log.error("recovery.not_recorded", reason=str(error))
