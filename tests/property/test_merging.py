"""Laws of merging: what an action's argument, its annotations and a trigger's event come to.

Package < binding < action < payload, trigger < `__ow_headers` < payload < nothing: what comes later wins, key by key,
and the keys are the union. An action's annotations are merged by key, all others are replaced as a whole.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.controller.conftest import Controller

from visp.controller.fire import Firing
from visp.controller.invoke import Invocation
from visp.controller.resolver import Resolver
from visp.entity import action as actions
from visp.entity import package as packages
from visp.entity import rule as rules
from visp.entity import trigger as triggers
from visp.entity.action import Action
from visp.entity.execs import Code, CodeExec
from visp.entity.names import FullyQualifiedName
from visp.entity.package import Package
from visp.entity.parameters import Parameters, parse_parameters, render_parameters, size_bytes, values
from visp.entity.payload import encode, merge, parse_object
from visp.entity.runtime_manifest import parse_manifest
from visp.store.cache import Write

MANIFEST = parse_manifest(b'{"runtimes":{"nodejs":[{"kind":"nodejs:20","image":{"name":"i"}}]}}')
Name = FullyQualifiedName
PACKAGE, BINDING = Name("guest", None, "p"), Name("guest", None, "q")

# few keys, so that they meet
keys = st.sampled_from(("a", "b", "c", "ü", "", "__ow_headers", "exec", "provide-api-key"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(("", "x", "\n", "ü")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(keys, json_values, max_size=5)


def parameters(fields: dict[str, Any], init: frozenset[str] = frozenset()) -> Parameters:
    entries = [{"key": key, "value": value, "init": key in init} for key, value in fields.items()]
    parsed = parse_parameters(json.dumps(entries, indent=1).encode())
    assert parsed is not None
    return parsed


def shown(merged: Parameters) -> dict[str, Any]:
    return {entry["key"]: entry["value"] for entry in json.loads(encode(render_parameters(merged)))}


# ── one after the other ─────────────────────────────────────────────────────────────────────────────────────────────


@given(objects, objects, objects)
def test_merging_is_associative_and_has_an_identity(one: Any, two: Any, three: Any) -> None:
    a, b, c = map(parameters, (one, two, three))
    assert (a | b) | c == a | (b | c)
    assert a | {} == {} | a == a | a == a
    assert shown(a | b | c) == one | two | three
    assert (a | b).keys() == a.keys() | b.keys()


@given(objects, objects)
def test_a_payload_is_merged_as_parameters_are(one: Any, payload: Any) -> None:
    content = merge(values(parameters(one)), parse_object(json.dumps(payload, indent=2).encode()))
    assert json.loads(content) == one | payload
    assert b"\n" not in content
    assert merge({}, parse_object(content)) == content


@given(objects, st.randoms(use_true_random=False))
def test_the_order_of_parameters_means_nothing(fields: Any, chance: Any) -> None:
    shuffled = list(fields.items())
    chance.shuffle(shuffled)
    assert parameters(dict(shuffled)) == parameters(fields)
    assert size_bytes(parameters(dict(shuffled))) == size_bytes(parameters(fields))


@given(st.lists(st.tuples(keys, json_values), max_size=6))
def test_the_last_of_several_with_one_key_counts(pairs: list[tuple[str, Any]]) -> None:
    parsed = parse_parameters(json.dumps([{"key": key, "value": value} for key, value in pairs]).encode())
    assert parsed is not None
    assert shown(parsed) == dict(pairs)


# ── what an action is given ─────────────────────────────────────────────────────────────────────────────────────────

marks = st.frozensets(keys, max_size=3)


@settings(max_examples=60)
@given(objects, objects, objects, objects, st.booleans(), marks, marks, marks)
def test_package_then_binding_then_action_then_payload(
    of_package: Any,
    of_binding: Any,
    of_action: Any,
    payload: Any,
    is_bound: bool,
    init_of_package: frozenset[str],
    init_of_binding: frozenset[str],
    init_of_action: frozenset[str],
) -> None:
    """The argument as it goes to the invoker, and which keys its container is only given when it is initialised."""

    async def sent() -> tuple[Any, frozenset[str], str | None]:
        async with asyncio.TaskGroup() as tasks:
            controller = Controller(tasks)
            package = Package(name=PACKAGE, parameters=parameters(of_package, init_of_package))
            binding = Package(name=BINDING, binding=PACKAGE, parameters=parameters(of_binding, init_of_binding))
            action = Action(
                name=package.action("a"),
                exec=CodeExec("nodejs:20", Code(False, inline="")),
                parameters=parameters(of_action, init_of_action),
            )
            await controller.entities.write(*(Write(entity, None) for entity in (package, binding, action)))
            name = Name("guest", "q" if is_bound else "p", "a")
            resolved = await Resolver(controller.entities).resolve(controller.identity, name)
            invocation = Invocation(
                identity=controller.identity,
                action=resolved.action,
                resolved=resolved,
                body=json.dumps(payload).encode(),
                transid="t",
                received_ms=controller.clock.now_ms(),
                wait_s=None,
            )
            order = controller.invoke.order(invocation)
            init = frozenset(order.init) | frozenset(init_of_action & of_action.keys())
            return json.loads(order.content), init, order.binding

    argument, init, binding = asyncio.run(sent())
    assert binding == ("guest/q" if is_bound else None)
    outer = of_package | of_binding if is_bound else of_package
    assert argument == outer | of_action | payload
    marked = {key: key in init_of_package for key in of_package}
    marked |= {key: key in init_of_binding for key in of_binding} if is_bound else {}
    marked |= {key: key in init_of_action for key in of_action}
    assert init == {key for key, is_init in marked.items() if is_init}


@settings(max_examples=60)
@given(objects, objects, st.dictionaries(st.sampled_from(("x-a", "accept")), st.just("v"), max_size=2), objects)
def test_trigger_then_headers_then_event_over_the_action(
    of_trigger: Any, of_action: Any, headers: dict[str, str], event: Any
) -> None:
    async def sent() -> Any:
        async with asyncio.TaskGroup() as tasks:
            controller = Controller(tasks)
            await controller.add("a", parameters=parameters(of_action))
            trigger = triggers.Trigger(
                name=Name("guest", None, "t"),
                parameters=parameters(of_trigger),
                rules={"guest/r": triggers.RuleLink(Name("guest", None, "a"), triggers.RuleStatus.ACTIVE)},
            )
            firing = Firing(
                identity=controller.identity,
                trigger=trigger,
                body=json.dumps(event).encode(),
                headers=headers | {"authorization": "Basic secret"},
                transid="t",
                received_ms=controller.clock.now_ms(),
            )
            controller.fire.start(firing, controller.answers.append)
            await controller.until(lambda: controller.hands.runs)
            return json.loads(controller.hands.runs[0].content)

    assert asyncio.run(sent()) == of_action | of_trigger | {"__ow_headers": headers} | event


# ── annotations ─────────────────────────────────────────────────────────────────────────────────────────────────────

annotations = st.none() | objects.map(lambda fields: [{"key": key, "value": value} for key, value in fields.items()])
CODE = {"kind": "nodejs:20", "code": ""}


def put_action(**fields: Any) -> actions.ActionPut:
    return actions.parse_put(json.dumps(fields).encode(), MANIFEST, "ns")


def as_fields(entries: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {entry["key"]: entry["value"] for entry in entries or ()}


@given(annotations, annotations, st.lists(keys, max_size=3), st.booleans())
def test_annotations_of_actions_are_merged_by_key(old: Any, new: Any, removed: list[str], has_exec: bool) -> None:
    first = actions.create(Name("ns", None, "a"), put_action(exec=CODE, annotations=old), 1)
    assert shown(first.annotations) == {"provide-api-key": False} | as_fields(old) | {"exec": "nodejs:20"}
    body = {"annotations": new, "delAnnotations": removed} | ({"exec": CODE} if has_exec else {})
    second = actions.update(first, put_action(**body), 2)
    kept = {key: value for key, value in shown(first.annotations).items() if key not in removed}
    assert shown(second.annotations) == kept | as_fields(new) | {"exec": "nodejs:20"}


@given(annotations, annotations, annotations)
def test_two_puts_of_annotations_are_one(old: Any, new: Any, newer: Any) -> None:
    first = actions.create(Name("ns", None, "a"), put_action(exec=CODE, annotations=old), 1)
    twice = actions.update(actions.update(first, put_action(annotations=new), 2), put_action(annotations=newer), 3)
    both = [{"key": key, "value": value} for key, value in (as_fields(new) | as_fields(newer)).items()]
    assert twice.annotations == actions.update(first, put_action(annotations=both), 3).annotations


@given(annotations, annotations, annotations, annotations)
def test_all_else_is_replaced_as_a_whole(old: Any, new: Any, old_parameters: Any, new_parameters: Any) -> None:
    """Where it is given; an empty array is."""
    before = json.dumps({"annotations": old, "parameters": old_parameters}).encode()
    after = json.dumps({"annotations": new, "parameters": new_parameters}).encode()
    name, named = Name("ns", None, "e"), {"trigger": "/ns/t", "action": "/ns/a"}
    package = packages.create(name, packages.parse_put(before, "ns"), 1)
    trigger = triggers.update(triggers.Trigger(name=name), triggers.parse_put(before), 1)
    rule = rules.create(name, rules.parse_put(json.dumps(named | {"annotations": old}).encode(), "ns"), 1)
    action = actions.create(name, put_action(exec=CODE, parameters=old_parameters), 1)
    package = packages.update(package, packages.parse_put(after, "ns"), 2)
    trigger = triggers.update(trigger, triggers.parse_put(after), 2)
    rule = rules.update(rule, rules.parse_put(after, "ns"), 2)
    action = actions.update(action, put_action(parameters=new_parameters), 2)
    for entity in (package, trigger, rule):
        assert shown(entity.annotations) == as_fields(old if new is None else new)
    for one in (package, trigger, action):
        assert shown(one.parameters) == as_fields(old_parameters if new_parameters is None else new_parameters)
