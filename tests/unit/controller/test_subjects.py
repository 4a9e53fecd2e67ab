from __future__ import annotations

import pytest

from visp.controller.subjects import Subjects
from visp.entity.subject import GUEST_KEY, GUEST_UUID, AuthKey, check_subject, new_key, parse_pair
from visp.errors import Refused
from visp.settings import Limits
from visp.store.memory import MemoryEntities

SECRET = b"s" * 32
PAIR = AuthKey("789c46b1-71f6-4ed5-8c54-816aa4f8c502", "k" * 64)


@pytest.fixture
def subjects() -> Subjects:
    return Subjects(MemoryEntities(), SECRET, Limits())


async def test_a_subject_has_a_namespace_of_its_name_and_may_have_others(subjects: Subjects) -> None:
    own = await subjects.create("alice", None, None)
    team = await subjects.create("alice", "team", PAIR)
    assert team == PAIR
    assert await subjects.get("alice", None) == own
    assert await subjects.get("alice", "team") == PAIR
    assert await subjects.all_of("alice") == [("alice", own), ("team", PAIR)]
    assert await subjects.whois(PAIR) == ("alice", "team")


async def test_several_subjects_share_a_namespace(subjects: Subjects) -> None:
    keys = {await subjects.create(name, "team", None): name for name in ("alice", "bobby")}
    assert dict(await subjects.keys_of("team")) == keys
    await subjects.block("alice", is_blocked=True)
    assert [name for _, name in await subjects.keys_of("team")] == ["bobby"]


async def test_a_key_is_renewed_under_its_uuid_or_replaced_whole(subjects: Subjects) -> None:
    first = await subjects.create("alice", None, None)
    with pytest.raises(Refused, match="Namespace already exists"):
        await subjects.create("alice", None, None)
    second = await subjects.create("alice", None, None, is_renewed=True)
    assert (second.uuid, second.key != first.key) == (first.uuid, True)
    await subjects.create("alice", None, PAIR, is_renewed=True)
    for gone in (first, second):
        with pytest.raises(Refused, match="Subject id is not recognized"):
            await subjects.whois(gone)
    assert await subjects.all_of("alice") == [("alice", PAIR)]


async def test_a_uuid_is_one_pair_s(subjects: Subjects) -> None:
    await subjects.create("alice", None, PAIR)
    with pytest.raises(Refused, match="belongs to another namespace"):
        await subjects.create("bobby", None, AuthKey(PAIR.uuid, "x" * 64))
    assert await subjects.whois(PAIR) == ("alice", "alice")


async def test_who_is_blocked_is_not_edited_and_keeps_the_key(subjects: Subjects) -> None:
    auth = await subjects.create("alice", None, None)
    await subjects.block("alice", is_blocked=True)
    with pytest.raises(Refused, match="The subject you want to edit is blocked"):
        await subjects.create("alice", "team", None)
    await subjects.block("alice", is_blocked=False)
    assert await subjects.get("alice", None) == auth


async def test_deleting_one_namespace_or_all(subjects: Subjects) -> None:
    await subjects.create("alice", None, None)
    await subjects.create("alice", "team", None)
    await subjects.delete("alice", "team")
    with pytest.raises(Refused, match='Namespace "team" does not exist for "alice"'):
        await subjects.delete("alice", "team")
    with pytest.raises(Refused, match='namespace "team" not found for "alice"'):
        await subjects.get("alice", "team")
    await subjects.delete("alice", None)
    with pytest.raises(Refused, match="Failed to get subject"):
        await subjects.get("alice", None)
    with pytest.raises(Refused, match='no identities found for namespace "alice"'):
        await subjects.keys_of("alice")


async def test_the_well_known_guest_is_no_record() -> None:
    public = Subjects(MemoryEntities(), SECRET, Limits(), has_public_guest=True)
    assert await public.get("guest", None) == AuthKey(GUEST_UUID, GUEST_KEY)
    with pytest.raises(Refused):
        await Subjects(MemoryEntities(), SECRET, Limits()).get("guest", None)


@pytest.mark.parametrize(
    ("subject", "namespace", "says"),
    [
        ("bob", "bob", "at least 5 characters"),
        ("alice", " ", "must not be empty"),
        ("alice", "a/b", "illegal"),
    ],
)
def test_names_that_cannot_be(subject: str, namespace: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        check_subject(subject, namespace)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a valid UUID"),
        ("x:" + "k" * 64, "not a valid UUID"),
        (f"{GUEST_UUID}:short", "at least 64 characters"),
        (f"{GUEST_UUID}:{'k' * 65}", "64 characters long"),
    ],
)
def test_pairs_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        parse_pair(text)


def test_a_pair_is_read_as_it_is_written() -> None:
    pair = new_key()
    assert parse_pair(str(pair)) == pair


async def test_limits_are_merged_checked_and_forgotten(subjects: Subjects) -> None:
    assert await subjects.limits("team") is None
    assert not await subjects.set_limits("team", {"invocationsPerMinute": 5})
    assert await subjects.set_limits("team", {"maxPayloadSize": "1 MB"})
    assert await subjects.limits("team") == {"invocationsPerMinute": 5, "maxPayloadSize": "1 MB"}
    for bad in ({"invocationsPerMinute": "many"}, {"maxPayloadSize": "much"}, {"nosuch": 1}):
        with pytest.raises(Refused):
            await subjects.set_limits("team", bad)
    assert await subjects.limits("team") == {"invocationsPerMinute": 5, "maxPayloadSize": "1 MB"}
    assert await subjects.delete_limits("team")
    assert not await subjects.delete_limits("team")


@pytest.mark.parametrize("days", [30, 0.5, 0, 1e300])
async def test_days_of_records_are_a_number(subjects: Subjects, days: float) -> None:
    await subjects.set_limits("team", {"retentionDays": days})
    assert await subjects.limits("team") == {"retentionDays": days}


@pytest.mark.parametrize(
    ("days", "says"),
    [
        (-1, r"Expected `float` >= 0.0 - at `\$.retentionDays`"),
        ("soon", r"Expected `float \| null`, got `str` - at `\$.retentionDays`"),
        (True, "got `bool`"),
        ([1], "got `array`"),
    ],
)
async def test_days_of_records_that_cannot_be(subjects: Subjects, days: object, says: str) -> None:
    with pytest.raises(Refused, match=says):
        await subjects.set_limits("team", {"retentionDays": days})
    assert await subjects.limits("team") is None
