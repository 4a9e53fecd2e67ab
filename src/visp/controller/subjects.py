"""Who may call, as an operator cares for it: subjects, their namespaces and keys, and the limits of namespaces.

Source of what is done and said: OpenWhisk's `wskadmin`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from visp import wording
from visp.controller.identities import NamespaceLimits, effective_limits, pair_of, record_of
from visp.entity.subject import GUEST, GUEST_KEY, GUEST_UUID, AuthKey, check_subject, digest, is_same, new_key
from visp.errors import Refused

if TYPE_CHECKING:
    from visp.settings import Limits
    from visp.store.base import KeyRecord, SubjectStore


class Subjects:
    """Works on the records, whether or not a server uses them meanwhile."""

    def __init__(self, store: SubjectStore, secret: bytes, limits: Limits, *, has_public_guest: bool = False) -> None:
        self._store = store
        self._secret = secret
        self._limits = limits
        self._has_public_guest = has_public_guest

    # ── subjects ────────────────────────────────────────────────────────────────────────────────────────────────

    async def create(
        self, subject: str, namespace: str | None, auth: AuthKey | None, *, is_renewed: bool = False
    ) -> AuthKey:
        """A key of the namespace (its own, if none is named) for the subject, which is new or has others.

        `is_renewed`: one that is there is given another key; its uuid stays, unless `auth` is given.
        """
        namespace = subject if namespace is None else namespace
        check_subject(subject, namespace)
        records = await self._store.keys_of_subject(subject)
        if any(record.is_blocked for record in records):
            raise Refused(wording.SUBJECT_BLOCKED)
        old = next((record for record in records if record.namespace == namespace), None)
        if old is not None and not is_renewed:
            raise Refused(wording.NAMESPACE_EXISTS)
        if auth is None:
            fresh = new_key()
            auth = fresh if old is None else AuthKey(old.uuid, fresh.key)
        taken = await self._store.key(auth.uuid)
        if taken is not None and taken != old:
            raise Refused(wording.UUID_TAKEN)
        await self._store.put_key(record_of(auth, self._secret, subject=subject, namespace=namespace))
        if old is not None and old.uuid != auth.uuid:
            await self._store.delete_key(old.uuid)
        return auth

    async def get(self, subject: str, namespace: str | None) -> AuthKey:
        """The key of one of the subject's namespaces, of its own if none is named."""
        namespace = subject if namespace is None else namespace
        if self._has_public_guest and subject == namespace == GUEST:
            return AuthKey(GUEST_UUID, GUEST_KEY)
        for record in await self._known(subject):
            if record.namespace == namespace:
                return pair_of(record, self._secret)
        raise Refused(wording.no_namespace_of(namespace, subject))

    async def all_of(self, subject: str) -> list[tuple[str, AuthKey]]:
        """Every namespace of the subject, with its key."""
        return sorted((record.namespace, pair_of(record, self._secret)) for record in await self._known(subject))

    async def whois(self, auth: AuthKey) -> tuple[str, str]:
        """The subject and the namespace behind a pair."""
        record = await self._store.key(auth.uuid)
        if record is None or not is_same(record.digest, digest(auth, self._secret)):
            raise Refused(wording.NO_SUCH_SUBJECT)
        return record.subject, record.namespace

    async def keys_of(self, namespace: str) -> list[tuple[AuthKey, str]]:
        """The keys of a namespace, with the subjects that hold them; those that are blocked are left out."""
        found = [record for record in await self._store.keys_of(namespace) if not record.is_blocked]
        if not found:
            raise Refused(wording.no_identities(namespace))
        return [(pair_of(record, self._secret), record.subject) for record in found]

    async def block(self, subject: str, *, is_blocked: bool) -> None:
        """Hides all keys of the subject, or shows them again."""
        for record in await self._known(subject):
            await self._store.put_key(msgspec.structs.replace(record, is_blocked=is_blocked))

    async def delete(self, subject: str, namespace: str | None) -> None:
        """Removes the subject's keys, or its one of a namespace; entities and limits stay."""
        records = await self._known(subject)
        if namespace is not None:
            records = [record for record in records if record.namespace == namespace]
            if not records:
                raise Refused(wording.no_namespace_for(namespace, subject))
        for record in records:
            await self._store.delete_key(record.uuid)

    async def _known(self, subject: str) -> list[KeyRecord]:
        records = await self._store.keys_of_subject(subject)
        if not records:
            raise Refused(wording.no_subject(subject))
        return records

    # ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def set_limits(self, namespace: str, given: dict[str, Any]) -> bool:
        """Merges the given fields into the namespace's own; whether there were some."""
        known = {field.encode_name for field in msgspec.structs.fields(NamespaceLimits)}
        if unknown := given.keys() - known:
            raise Refused(wording.no_limits(sorted(unknown), sorted(known)))
        old = await self._store.limits(namespace)
        fields: dict[str, Any] = msgspec.json.decode(old or b"{}") | given
        try:
            effective_limits(msgspec.convert(fields, NamespaceLimits), self._limits)
        except (msgspec.ValidationError, ValueError) as error:
            raise Refused(str(error)) from None
        await self._store.put_limits(namespace, msgspec.json.encode(fields))
        return old is not None

    async def limits(self, namespace: str) -> dict[str, Any] | None:
        """The namespace's own; None when the system's hold."""
        stored = await self._store.limits(namespace)
        return None if stored is None else msgspec.json.decode(stored)

    async def delete_limits(self, namespace: str) -> bool:
        """Whether there were some."""
        was_there = await self._store.limits(namespace) is not None
        await self._store.put_limits(namespace, None)
        return was_there
