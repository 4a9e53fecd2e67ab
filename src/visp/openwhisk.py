"""Brings OpenWhisk's own documents, out of dumps of its databases, into a data folder."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import TYPE_CHECKING

import msgspec

from visp import premises
from visp.care import data_dir_of
from visp.entity import couch
from visp.entity import portable as documents
from visp.entity.action import Action
from visp.entity.execs import Code, SequenceExec
from visp.entity.limits import LimitRanges, Range, range_violation
from visp.entity.portable import NO_CODE, reason_of
from visp.errors import Refused, RequestError
from visp.moving import RECORDS_AT_ONCE, Keys, Taken, check_files, checked_limits, counts_of, hand_over
from visp.store import check, dump
from visp.store.database import FAILURES, read_only
from visp.store.dump import NewIds
from visp.store.filesystem import FileBlobs
from visp.store.intake import Coming, Intake, Records, settle, with_code_apart
from visp.store.portable import ACTIVATIONS, LIMITS, PortableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from visp.entity.activation import ActivationRecord
    from visp.entity.runtime_manifest import Manifest as RuntimeManifest
    from visp.settings import Settings
    from visp.store.intake import Settled

    Progress = Callable[[str, int], None]
    Tell = Callable[[str, str], None]

_ID = re.compile(r"[0-9a-f]{32}")
_DRY = b"\0" * 32
"""For pairs that are compared, and not kept."""


def import_openwhisk(
    settings: Settings,
    files: Sequence[Path],
    *,
    is_dry: bool,
    ids: Callable[[str, str], None] | None,
    tell: Tell,
    note: Tell,
    progress: Progress,
) -> Taken:
    """Brings what CouchDB dumps of OpenWhisk hold into a data folder that no server uses; a dry run only looks.

    `tell` hears of each document that is not taken, and why, `note` of what is taken and differs; `ids` of the old and
    the new id of each activation. Raises `DumpError`, `CannotStart` and `StoreUnavailable`.
    """
    check_files(files)
    data_dir = data_dir_of(settings) if is_dry else premises.prepare_data_dir(settings)
    with contextlib.ExitStack() as stack:
        if not is_dry:
            stack.enter_context(premises.locked(data_dir))
        records = stack.enter_context(Records(data_dir))
        new_ids = stack.enter_context(NewIds())
        coming = _Dump(settings, records, new_ids, None if is_dry else FileBlobs(data_dir / "blobs"), tell, note)
        try:
            taken = asyncio.run(coming.run(data_dir, files, ids, progress))
        except FAILURES as error:
            raise PortableError(f"{data_dir} cannot be used: {error}") from None
        if not is_dry:
            hand_over(data_dir)
        return taken


class _Dump:
    """Dumps on their way. `blobs` None: nothing is written."""

    def __init__(
        self, settings: Settings, records: Records, ids: NewIds, blobs: FileBlobs | None, tell: Tell, note: Tell
    ) -> None:
        self._settings = settings
        self._records = records
        self._ids = ids
        self._blobs = blobs
        self._tell = tell
        self._note = note
        self._kinds: RuntimeManifest = premises.read_manifest(settings)
        self._ranges = LimitRanges(concurrency=Range(1, settings.limits.concurrency, 1))
        self._now_ms = time.time_ns() // 1_000_000
        self._coming = Coming()
        self._keys = Keys()
        self._activations = 0

    async def run(
        self, data_dir: Path, files: Sequence[Path], ids: Callable[[str, str], None] | None, progress: Progress
    ) -> Taken:
        for path in files:
            progress(f"reading {path.name}", path.stat().st_size)
            for raw in dump.documents(path):
                try:
                    await self._take(raw, ids)
                except (RequestError, Refused) as error:
                    self._tell(couch.id_of(raw), reason_of(error))
        if self._blobs is None:
            settled = self._settle_dry(data_dir)
        else:
            secret = premises.read_secret(self._settings, data_dir)
            async with Intake.opened(data_dir) as intake:
                self._coming.keys, self._coming.made = self._keys.records(secret), self._keys.made_uuids
                settled = await intake.settle(self._coming, "skip")
                await intake.write(settled)
                if self._activations:
                    await self._write_activations(intake, files, progress)
        for there in settled.conflicts:
            noun, _, id = there.partition(" ")
            self._tell(f"{id}/limits" if noun == LIMITS else id, "it is there already")
        counts = counts_of(self._coming, settled)
        counts[ACTIVATIONS] = self._activations
        return Taken(counts=dict(counts), there=len(settled.conflicts), made=self._keys.made_of(settled))

    def _settle_dry(self, data_dir: Path) -> Settled:
        self._coming.keys, self._coming.made = self._keys.records(_DRY), self._keys.made_uuids
        path = data_dir / check.ENTITIES
        if not path.exists():
            return settle(None, self._coming, "skip")
        with read_only(path) as db:
            return settle(db, self._coming, "skip")

    async def _take(self, raw: bytes, ids: Callable[[str, str], None] | None) -> None:
        found = couch.read(raw)
        if found.kind is None:
            return
        if found.kind == couch.ACTIVATIONS:
            record = documents.parse_record(found.body)
            new = self._ids.add(record.head.id, record.head.start_ms)
            if new is None:
                raise Refused("it comes twice")
            if self._records.has(new):
                raise Refused("it is there already")
            self._activations += 1
            if ids is not None:
                ids(record.head.id, new)
        elif found.kind == couch.SUBJECTS:
            self._take_subject(found.body)
        elif found.kind == couch.LIMITS:
            given = documents.parse_namespace_limits(found.body)
            kept, others = checked_limits(given.limits, self._settings)
            if given.namespace in self._coming.limits:
                raise Refused("it comes twice")
            self._coming.limits[given.namespace] = kept
            if others:
                self._note(found.id, f"there are no such limits here: {', '.join(others)}")
        else:
            entity = documents.parse_entity(found.kind, found.body, self._kinds, {}, self._now_ms)
            if entity.name.id in self._coming.entities:
                raise Refused("it comes twice")
            if isinstance(entity, Action):
                entity = await self._with_code(entity)
            self._coming.entities[entity.name.id] = entity

    async def _with_code(self, action: Action) -> Action:
        beyond = range_violation(action.limits, self._ranges)
        if beyond is not None:
            self._note(action.name.id, f"it cannot run with its limits: {beyond}")
        if self._blobs is not None:
            return await with_code_apart(action, self._blobs)
        if isinstance(action.exec, SequenceExec) or action.exec.code is None:
            return action
        unheld = Code(action.exec.code.is_binary, inline=NO_CODE)
        return msgspec.structs.replace(action, exec=msgspec.structs.replace(action.exec, code=unheld))

    def _take_subject(self, body: bytes) -> None:
        subject = documents.parse_subject(body)
        for held in subject.namespaces:
            if couch.PUBLIC_PAIRS.get(held.uuid or "") == held.key and held.key is not None:
                reason = f"its key of {held.name} is OpenWhisk's public one: make another by visp admin user create"
                self._tell(subject.subject, reason)
                continue
            try:
                self._keys.add(subject.subject, held, is_blocked=subject.blocked)
            except Refused as error:
                self._tell(subject.subject, f"its key of {held.name}: {reason_of(error)}")

    async def _write_activations(self, intake: Intake, files: Sequence[Path], progress: Progress) -> None:
        waiting: list[ActivationRecord] = []
        for path in files:
            progress(f"writing {ACTIVATIONS} of {path.name}", path.stat().st_size)
            for raw in dump.documents(path):
                with contextlib.suppress(RequestError, Refused):  # it was told of when all was read
                    found = couch.read(raw)
                    if found.kind == couch.ACTIVATIONS:
                        record = self._renamed(documents.parse_record(found.body))
                        if not self._records.has(record.head.id):
                            waiting.append(record)
                if len(waiting) >= RECORDS_AT_ONCE:
                    await intake.records(waiting)
                    waiting.clear()
        await intake.records(waiting)

    def _renamed(self, record: ActivationRecord) -> ActivationRecord:
        """The record under its new id, and with those of the activations that it names, where they are known."""
        head = record.head
        new = self._ids.get(head.id)
        assert new is not None
        logs = record.logs
        if head.path is None or head.kind == "sequence" or head.is_conductor:
            logs = tuple(_ID.sub(lambda found: self._ids.get(found[0]) or found[0], line) for line in logs)
        cause = None if head.cause is None else self._ids.get(head.cause) or head.cause
        return msgspec.structs.replace(record, head=msgspec.structs.replace(head, id=new, cause=cause), logs=logs)
