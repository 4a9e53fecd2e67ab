"""What is in memory and what the store says must come to the same."""

from __future__ import annotations

from typing import Any

import pytest

from visp.controller.resolver import Resolver
from visp.entity.action import Action
from visp.entity.execs import Code, CodeExec
from visp.entity.names import FullyQualifiedName
from visp.entity.package import Package
from visp.entity.parameters import Parameters, plain
from visp.entity.subject import Identity, UserLimits
from visp.errors import CircularBinding, Forbidden, NotFound, RequestError
from visp.store.cache import EntityCache, Write
from visp.store.memory import MemoryBlobs, MemoryEntities


def caller(namespace: str) -> Identity:
    limits = UserLimits(invocations_per_minute=1, fires_per_minute=1, concurrent_invocations=1)
    return Identity(subject=namespace, namespace=namespace, namespace_uuid=namespace, limits=limits)


def name(text: str) -> FullyQualifiedName:
    namespace, *package, last = text.split("/")
    return FullyQualifiedName(namespace, package[0] if package else None, last)


def parameters(**values: Any) -> Parameters:
    return {key: parameter for one, value in values.items() for key, parameter in plain(one, value).items()}


@pytest.fixture
async def entities() -> EntityCache:
    cache = EntityCache(MemoryEntities(), MemoryBlobs())
    code = CodeExec(kind="nodejs:20", code=Code(False, inline=""))
    for entity in (
        Package(name=name("a/open"), publish=True, parameters=parameters(p=1, q=1, r=1)),
        Package(name=name("a/closed")),
        Package(name=name("a/bound"), publish=True, binding=name("a/open")),
        Package(name=name("b/mine"), binding=name("a/open"), parameters=parameters(q=2, r=2)),
        Package(name=name("b/denied"), binding=name("a/closed")),
        Package(name=name("b/dangling"), binding=name("b/nosuch")),
        Package(name=name("b/loop"), binding=name("b/loop")),
        Action(name=name("a/open/act"), exec=code, parameters=parameters(r=3)),
        Action(name=name("a/closed/act"), exec=code),
        Action(name=name("a/act"), exec=code),
    ):
        await cache.write(Write(entity, None))
    return cache


@pytest.mark.parametrize(
    ("who", "what", "came"),
    [
        ("a", "a/act", None),
        ("b", "a/act", Forbidden),
        ("a", "a/nosuch", NotFound),
        ("b", "a/open/act", None),
        ("b", "a/open/nosuch", NotFound),
        ("a", "a/closed/act", None),
        ("b", "a/closed/act", Forbidden),
        ("b", "a/nosuch/act", Forbidden),
        ("a", "a/nosuch/act", NotFound),
        ("b", "a/bound/act", Forbidden),
        ("a", "a/bound/act", None),
        ("b", "b/mine/act", None),
        ("a", "b/mine/act", Forbidden),
        ("b", "b/denied/act", Forbidden),
        ("b", "b/dangling/act", NotFound),
        ("b", "b/loop/act", CircularBinding),
    ],
)
async def test_rights_are_those_of_the_package(
    entities: EntityCache, who: str, what: str, came: type[RequestError] | None
) -> None:
    resolver, identity = Resolver(entities), caller(who)
    if came is not None:
        with pytest.raises(came):
            await resolver.resolve(identity, name(what))
        assert resolver.peek(identity, name(what)) is None
        with pytest.raises(NotFound if came is CircularBinding else came):
            resolver.peek_or_refuse(identity, name(what))
    else:
        resolved = await resolver.resolve(identity, name(what))
        assert resolver.peek(identity, name(what)) == resolver.peek_or_refuse(identity, name(what)) == resolved


async def test_later_parameters_win_and_a_change_is_seen_at_once(entities: EntityCache) -> None:
    resolver, identity, what = Resolver(entities), caller("b"), name("b/mine/act")

    def values() -> dict[str, bytes]:
        resolved = resolver.peek(identity, what)
        assert resolved is not None
        assert (resolved.binding, resolved.action.name.id) == ("b/mine", "a/open/act")
        return {key: bytes(one.value) for key, one in resolved.action.parameters.items()}

    assert values() == {"p": b"1", "q": b"2", "r": b"3"}
    assert resolver.peek(identity, what) is resolver.peek(identity, what)
    package = await entities.get("a/open")
    assert package is not None
    new = Package(name=name("a/open"), publish=True, parameters=parameters(p=5))
    await entities.write(Write(new, package.revision))
    assert values() == {"p": b"5", "q": b"2", "r": b"3"}
    await entities.write(Write(Package(name=name("a/open")), (await entities.get("a/open")).revision))  # type: ignore[union-attr]
    assert resolver.peek(identity, what) is None
