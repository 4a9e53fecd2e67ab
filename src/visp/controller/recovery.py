"""After a restart: what was accepted and not started runs; what was running gets its internal-error record.

An action is run at most once: started work is not run again, because nobody knows how far it came, unless its
annotations ask for retries. What is due later waits for its time again, and a composite goes on from the step that it
was at.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from visp.bus.messages import ActivationMessage, StepMessage, decode_task
from visp.controller.composites import Found
from visp.controller.progress import is_step_of
from visp.entity.composition import composes
from visp.errors import ServiceError
from visp.telemetry import log

if TYPE_CHECKING:
    from visp.bus.messages import Task
    from visp.controller.composites import Composites
    from visp.controller.later import Later
    from visp.controller.primitive import Order
    from visp.store.base import Ledger, OpenWork


AT_ONCE = 100


class Recovery:
    """Runs once, when an invoker is up."""

    def __init__(self, *, ledger: Ledger, later: Later, composites: Composites) -> None:
        self._ledger = ledger
        self._later = later
        self._composites = composites

    async def run(self) -> tuple[int, int]:
        """Resumes or ends everything the ledger holds open; how many were begun, how many were ended.

        What waits comes first: what follows from an outcome that was not recorded must not be made twice.
        """
        begun = ended = 0
        found: dict[str, Found] = {}
        for work in self._ledger.open_work():
            task = _task(work)
            if task is None:
                ended += 1
            elif isinstance(task, StepMessage) or (
                isinstance(task, ActivationMessage) and (work.is_started or not work.due_ms)
            ):
                found[work.id] = Found(task, work.is_started)
            else:
                self._later.take(work.id, task, work.due_ms)
                begun += 1
        steps = {id: one.task for id, one in found.items() if isinstance(one.task, StepMessage)}
        orders = {id: await self._composite_of(step) for id, step in steps.items()}
        parts = {step.part for id, step in steps.items() if orders[id] is not None}
        for number, (id, one) in enumerate(found.items()):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # what was begun goes on, and who asks is answered
            if await self._resume(one, is_part=id in parts, order=orders.get(id), found=found):
                begun += 1
            else:
                ended += 1
        return begun, ended

    async def _resume(self, one: Found, *, is_part: bool, order: Order | None, found: dict[str, Found]) -> bool:
        """Whether the work goes on; a part goes on, if at all, with the composite that waits for it."""
        task = one.task
        try:
            if is_part and (isinstance(task, StepMessage) or not one.is_started):
                return True
            if isinstance(task, StepMessage):
                if order is None:
                    await self._later.end_unrun(task.run)
                else:
                    self._composites.go_on(order, task, found, self._later)
                return order is not None
            if one.is_started and not await self._is_unbegun(task):
                await self._later.interrupt(task)
                return False
            return await self._later.resume(task)
        except ServiceError as error:
            log.error("recovery.not_resumed", activation=task.id, reason=str(error))
            if isinstance(task, ActivationMessage) and not one.is_started:
                self._later.take(task.id, task, task.received_ms)  # which tries until it can be begun
            return False

    async def _composite_of(self, step: StepMessage) -> Order | None:
        """None when there is none any more: it was deleted, or is something else now."""
        order = await self._later.order_of(step.run)
        return order if order is not None and is_step_of(step, order.action) else None

    async def _is_unbegun(self, message: ActivationMessage) -> bool:
        """Whether it is a composite: without a step no part of it was begun, and it begins anew.

        What has a cause is a part, and was begun itself: a conductor's own run, if its action composes.
        """
        action = None if message.cause is not None else await self._later.action_of(message)
        return action is not None and composes(action)


def _task(work: OpenWork) -> Task | None:
    try:
        return decode_task(work.message)
    except (msgspec.DecodeError, ValueError):
        log.error("recovery.unreadable", activation=work.id)
        return None
