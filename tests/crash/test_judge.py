"""The judge of kills can find what it looks for, and every crash point is where it is said to be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.crash import points
from tests.crash.book import BROKEN, CONTAINER, CONTAINER_STATUSES, EFFECT, EVENT, INTERRUPTED, SEQUENCE, Book, Kept
from tests.crash.harness import Plan

RESPONSE = {"status": "success", "success": True, "result": {"n": 1}}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "log", tmp_path / "effects", CONTAINER_STATUSES)
    yield book
    book.close()


def record(id: str, namespace: str = "guest", status: str = "success", name: str = EFFECT, logs: Any = ()) -> Any:
    response = {"status": status, "success": status == "success", "result": {"n": 1}}
    return {"activationId": id, "namespace": namespace, "name": name, "response": response, "logs": list(logs)}


def ran(book: Book, tmp_path: Path, *ids: str) -> None:
    numbers = {id: book.number(1) for id in dict.fromkeys(ids)}
    (tmp_path / "effects").write_text("".join(f"{id} {numbers[id]}\n" for id in ids))


def test_what_came_to_one_record_and_one_effect_is_in_order(book: Book, tmp_path: Path) -> None:
    book.give("guest", "a", EFFECT, RESPONSE)
    book.give("other", "b", EFFECT)
    book.end_life("server")
    assert list(book.pending) == ["a", "b"]
    book.read("a", book.given["a"], record("a"))
    book.read("b", book.given["b"], record("b", "other", INTERRUPTED))
    ran(book, tmp_path, "a")
    book.close_accounts({"guest": ["a"], "other": ["b"]})
    assert (book.violations, list(book.pending)) == ([], [])
    assert (book.tallies["server"].given, book.tallies["server"].interrupted) == (2, 1)


def test_an_id_without_a_record_is_lost(book: Book) -> None:
    book.give("guest", "a", EFFECT)
    book.end_life("server")
    book.close_accounts({"guest": []})
    assert book.tallies["server"].lost == len(book.violations) == 1


def test_what_a_fire_caused_is_owed_too(book: Book) -> None:
    book.give("guest", "fire", EVENT)
    book.end_life("server")
    child = '{"statusCode": 0, "activationId": "child", "rule": "guest/one"}'
    book.read("fire", book.given["fire"], record("fire", name=EVENT, logs=[child]))
    assert list(book.pending) == ["child"]
    book.close_accounts({"guest": ["fire"]})
    assert book.tallies["server"].lost == 1


def _read(book: Book, id: str, record: Any, listed: dict[str, list[str]]) -> None:
    book.give("guest", id, EFFECT, RESPONSE)
    book.end_life("server")
    book.read(id, book.given[id], record)
    book.close_accounts(listed)


def test_a_second_effect_is_found(book: Book, tmp_path: Path) -> None:
    ran(book, tmp_path, "a", "a")
    _read(book, "a", record("a"), {"guest": ["a"]})
    assert book.tallies["server"].twice == len(book.violations) == 2  # of its id, and of its request


def test_a_request_that_ran_again_under_another_id_is_found(book: Book, tmp_path: Path) -> None:
    number = book.number(1)
    (tmp_path / "effects").write_text(f"a {number}\nb {number}\n")
    _read(book, "a", record("a"), {"guest": ["a"]})
    assert book.tallies["server"].twice == len(book.violations) == 1


def test_a_sequence_that_left_a_part_out_is_found(book: Book) -> None:
    book.give("guest", "line", SEQUENCE)
    book.end_life("server")
    book.read("line", book.given["line"], record("line", name=SEQUENCE, logs=["a"]))
    assert book.tallies["server"].wrong == len(book.violations) == 1


@pytest.mark.parametrize("listed", [{"guest": ["a", "a"]}, {"guest": ["a"], "other": ["a"]}])
def test_a_second_record_is_found(book: Book, tmp_path: Path, listed: dict[str, list[str]]) -> None:
    ran(book, tmp_path, "a")
    _read(book, "a", record("a"), listed)
    assert book.tallies["server"].twice == 1


def test_a_success_without_an_effect_is_found(book: Book) -> None:
    _read(book, "a", record("a"), {"guest": ["a"]})
    assert book.tallies["server"].wrong == len(book.violations) == 1


def test_another_outcome_than_was_answered_is_found(book: Book) -> None:
    _read(book, "a", record("a", status=INTERRUPTED), {"guest": ["a"]})
    assert book.tallies["server"].wrong == len(book.violations) == 1


def test_a_record_of_another_namespace_is_found(book: Book, tmp_path: Path) -> None:
    ran(book, tmp_path, "a")
    _read(book, "a", record("a", "other"), {"guest": ["a"]})
    assert book.tallies["server"].misplaced == len(book.violations) == 1


def test_a_write_that_is_gone_and_a_late_start_are_found(book: Book) -> None:
    book.end_life("server")
    book.unread("triggers/kept", Kept(2, 2), 1)
    book.ready(5.1)
    assert (book.tallies["server"].unread, len(book.violations)) == (1, 2)


@pytest.mark.parametrize(("killed", "violations"), [(0, 1), (1, 0)])
def test_a_killed_container_costs_one_run(book: Book, tmp_path: Path, killed: int, violations: int) -> None:
    ran(book, tmp_path, "a")
    book.give("guest", "a", EFFECT)
    for _ in range(killed):
        book.end_life(CONTAINER)
    book.end_life("server")
    book.read("a", book.given["a"], record("a", status=BROKEN))
    book.close_accounts({"guest": ["a"]})
    assert len(book.violations) == violations


@pytest.mark.parametrize("name", points.POINTS)
def test_every_point_is_a_function_of_the_server(name: str) -> None:
    owner, attribute, function = points.find(points.POINTS[name].target)
    assert callable(function)
    assert vars(owner)[attribute] is function


@pytest.mark.parametrize("kills", [1, 40, 500])
def test_a_plan_has_as_many_kills_as_were_asked_for(kills: int) -> None:
    plan = Plan.of(kills)
    assert plan.running + plan.starting + plan.points + plan.shards + plan.real == kills
    assert min(plan.running, plan.starting, plan.points, plan.shards) >= 0
