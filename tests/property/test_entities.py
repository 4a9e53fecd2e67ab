"""Entities: what is rendered parses back to the same, names keep their grammar, merges keep their order."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visp.entity import action as actions
from visp.entity import package as packages
from visp.entity import rule as rules
from visp.entity import trigger as triggers
from visp.entity.action import Action
from visp.entity.activation import ActivationHead, ActivationRecord, Phases, Status, render
from visp.entity.execs import SequenceExec
from visp.entity.follow import Follow, RetryPolicy, merged
from visp.entity.follow import parse as parse_follow
from visp.entity.hook import Hook
from visp.entity.limits import ActionLimits, merge_limits, parse_byte_size, parse_limits, render_byte_size
from visp.entity.names import FullyQualifiedName, from_id, is_name, parse_name, parse_qualified
from visp.entity.parameters import parse_parameters, render_parameters, size_bytes, values
from visp.entity.payload import encode, merge, parse_object
from visp.entity.runtime_manifest import parse_manifest
from visp.entity.trigger import RuleLink, RuleStatus
from visp.entity.version import next_version, parse_version
from visp.errors import BadName, Malformed
from visp.store.cache import from_document, to_document
from visp.store.frames import Type, finished_head, pack, read_finished, scan

MANIFEST = parse_manifest(
    b'{"runtimes":{"nodejs":[{"kind":"nodejs:20","image":{"name":"i"}}],'
    b'"java":[{"kind":"java:8","requireMain":true,"image":{"name":"i"}}]}}'
)
NAME = FullyQualifiedName("ns", None, "e")

few = settings(max_examples=50)
"""For whole entities, which take long to draw."""

names = st.from_regex(re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_@ .&-]{0,20}[A-Za-z0-9_@.&-])?", re.ASCII), fullmatch=True)
# what msgspec itself reads: finite numbers, integers of 64 bits, text without lone surrogates
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=10)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values_ = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
objects = st.dictionaries(texts, values_, max_size=5)


@st.composite
def entries(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Parameters on the wire, keys unique."""
    out = []
    for key, value in draw(objects).items():
        entry: dict[str, Any] = {"key": key, "value": value}
        if draw(st.booleans()):
            entry["init"] = True
        if draw(st.booleans()):
            entry["encryption"] = draw(texts)
        out.append(entry)
    return out


@given(entries())
def test_parameters_come_back(sent: list[dict[str, Any]]) -> None:
    parsed = parse_parameters(json.dumps(sent).encode())
    assert parsed is not None
    rendered = encode(render_parameters(parsed))
    assert json.loads(rendered) == sent
    assert parse_parameters(rendered) == parsed


@given(entries())
def test_the_size_is_that_of_compact_json(sent: list[dict[str, Any]]) -> None:
    spaced = json.dumps(sent, indent=3, ensure_ascii=False).encode()
    parsed = parse_parameters(spaced)
    assert parsed is not None
    expected = sum(
        len(entry["key"].encode()) + len(json.dumps(entry["value"], separators=(",", ":"), ensure_ascii=False).encode())
        for entry in sent
    )
    assert size_bytes(parsed) == expected


@given(entries(), objects)
def test_the_payload_wins_over_parameters(sent: list[dict[str, Any]], payload: dict[str, Any]) -> None:
    parsed = parse_parameters(json.dumps(sent).encode())
    assert parsed is not None
    merged = merge(values(parsed), parse_object(json.dumps(payload, indent=1).encode()))
    assert json.loads(merged) == {entry["key"]: entry["value"] for entry in sent} | payload
    assert b"\n" not in merged


@given(names)
def test_names_are_taken(name: str) -> None:
    assert parse_name(name) == name
    assert json.loads(encode(name)) == name


@given(st.text(max_size=12))
def test_the_grammar_of_names(text: str) -> None:
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
    inner = allowed | set("@ .&-")
    legal = bool(text) and text[0] in allowed and set(text) <= inner and text[-1] != " "
    assert is_name(text) is legal
    if not legal:
        with pytest.raises(BadName):
            parse_name(text)


@given(names, st.none() | names, names)
def test_references_come_back(namespace: str, package: str | None, name: str) -> None:
    full = FullyQualifiedName(namespace, package, name)
    assert parse_qualified(full.render()) == full
    assert parse_qualified("/" + full.id) == full
    assert from_id(full.id) == full
    assert full.resolve("caller").namespace == ("caller" if namespace == "_" else namespace)


@given(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)).filter(any))
def test_versions_come_back_and_grow(numbers: tuple[int, int, int]) -> None:
    version = ".".join(map(str, numbers))
    assert parse_version(version) == version
    following = next_version(version)
    assert tuple(map(int, following.split("."))) == (numbers[0], numbers[1], numbers[2] + 1)


common = st.fixed_dictionaries(
    {},
    optional={
        "annotations": entries(),
        "version": st.sampled_from(["1.2.3", "2", "0.0.7"]),
        "publish": st.booleans(),
        "unknown": values_,
    },
)


@given(common, st.fixed_dictionaries({}, optional={"parameters": entries()}))
def test_triggers_come_back(shared: dict[str, Any], own: dict[str, Any]) -> None:
    trigger = triggers.Trigger(name=NAME)
    put = triggers.parse_put(json.dumps(shared | own).encode())
    first = triggers.update(trigger, put, 1)
    again = triggers.update(trigger, triggers.parse_put(encode(triggers.render(first))), 1)
    assert again == first
    assert msgspec.json.decode(encode(first), type=triggers.Trigger) == first


@given(common, names, names)
def test_rules_come_back(shared: dict[str, Any], trigger: str, action: str) -> None:
    body = shared | {"trigger": f"/ns/{trigger}", "action": {"path": "ns", "name": action}}
    first = rules.create(NAME, rules.parse_put(json.dumps(body).encode(), "ns"), 1)
    again = rules.create(NAME, rules.parse_put(encode(rules.render(first, None)), "ns"), 1)
    assert again == first
    assert msgspec.json.decode(encode(first), type=rules.Rule) == first


# ── what is executed ────────────────────────────────────────────────────────────────────────────────────────────────

spaces = st.sampled_from(("", " ", "\t"))
components = st.builds("/{}/{}".format, names, names) | st.builds("{}/{}/{}".format, names, names, names)
execs_ = (
    st.fixed_dictionaries(
        {"kind": st.sampled_from(("nodejs:20", "NodeJS:20", " nodejs:default ")), "code": texts | st.just("YWJj")},
        optional={"main": st.none() | texts, "binary": st.booleans()},
    )
    | st.fixed_dictionaries({"kind": st.just("java:8"), "jar": st.just("YWJj"), "main": names})
    | st.fixed_dictionaries(
        {
            "kind": st.sampled_from(("blackbox", "BlackBox")),
            "image": st.sampled_from(("a", "r.io:5000/a/b:1", " a_b ")),
        },
        optional={"code": st.none() | spaces | texts, "main": st.none() | texts},
    )
    | st.fixed_dictionaries({"kind": st.just("sequence"), "components": st.lists(components, max_size=4)})
)
limits_ = st.fixed_dictionaries(
    {},
    optional={
        "timeout": st.none() | st.integers(100, 300_000) | st.integers(100, 300_000).map(float),
        "memory": st.integers(128, 512),
        "logs": st.integers(0, 10),
        "concurrency": st.just(1),
        "instances": st.integers(0, 9),
    },
)
actions_ = st.tuples(
    common,
    st.fixed_dictionaries({"exec": execs_}, optional={"parameters": st.none() | entries(), "limits": limits_}),
).map(lambda parts: parts[0] | parts[1])


def code_of(action: Action) -> str | None:
    code = None if isinstance(action.exec, SequenceExec) else action.exec.code
    return None if code is None else code.inline


def put_action(body: dict[str, Any] | bytes) -> actions.ActionPut:
    return actions.parse_put(body if isinstance(body, bytes) else json.dumps(body).encode(), MANIFEST, "ns")


@given(actions_)
def test_actions_come_back(body: dict[str, Any]) -> None:
    first = actions.create(NAME, put_action(body), 1)
    rendered = encode(actions.render(first, code_of(first)))
    assert actions.create(NAME, put_action(rendered), 1) == first
    assert from_document(to_document(first)) == first


@few
@given(actions_)
def test_a_put_of_what_was_shown_changes_nothing(body: dict[str, Any]) -> None:
    first = actions.create(NAME, put_action(body), 1)
    rendered = encode(actions.render(first, code_of(first)))
    assert actions.update(first, put_action(rendered), 1) == first
    silent = actions.update(first, put_action(b"{}"), 1)  # nor does one that says nothing
    assert silent == msgspec.structs.replace(first, version=next_version(first.version))


@few
@given(actions_)
def test_what_shows_less_shows_the_same(body: dict[str, Any]) -> None:
    action = actions.create(NAME, put_action(body), 1)
    whole, rest = (json.loads(encode(actions.render(action, code))) for code in (code_of(action), None))
    whole["exec"].pop("code", None)
    assert rest == whole
    listed = json.loads(encode(actions.render_summary(action)))
    assert listed.pop("exec") == {"binary": whole["exec"].get("binary", False)}
    assert listed == {key: value for key, value in whole.items() if key not in ("exec", "parameters")}


@given(limits_)
def test_limits_come_back(given_limits: dict[str, Any]) -> None:
    limits = merge_limits(None, parse_limits(given_limits))
    rendered = json.loads(encode(limits.render()))
    assert merge_limits(None, parse_limits(rendered)) == limits
    said = {field: int(value) for field, value in given_limits.items() if value is not None}
    assert said.items() <= rendered.items()


@given(st.integers(0, 10**12))
def test_sizes_come_back(size: int) -> None:
    assert parse_byte_size(render_byte_size(size)) == size


# ── packages and bindings ───────────────────────────────────────────────────────────────────────────────────────────

providers = st.just({}) | st.fixed_dictionaries({"namespace": names | st.just("_"), "name": names})


@few
@given(common, st.fixed_dictionaries({}, optional={"parameters": entries(), "binding": st.none() | providers}))
def test_packages_and_bindings_come_back(shared: dict[str, Any], own: dict[str, Any]) -> None:
    first = packages.create(NAME, packages.parse_put(json.dumps(shared | own).encode(), "ns"), 1)
    rendered = encode(packages.render(first))
    again = packages.parse_put(rendered, "ns")
    assert packages.create(NAME, again, 1) == first
    assert first.binding is None or packages.update(first, again, 1) == first
    assert from_document(to_document(first)) == first
    listed = json.loads(encode(packages.render_summary(first)))
    whole = json.loads(rendered)
    assert listed | {"parameters": whole["parameters"], "binding": whole["binding"]} == whole
    assert listed["binding"] == (whole["binding"] or False)
    assert [entry["value"] for entry in listed["annotations"] if entry["key"] == "binding"] == (
        [whole["binding"]] if whole["binding"] else []
    )


# ── rules on triggers ───────────────────────────────────────────────────────────────────────────────────────────────

follows = st.builds(
    Follow,
    retry=st.none()
    | st.builds(
        RetryPolicy,
        attempts=st.integers(1, 100),
        backoff_ms=st.integers(1, 86_400_000),
        max_backoff_ms=st.integers(1, 86_400_000),
        on=st.lists(st.sampled_from(("application", "developer", "internal")), min_size=1).map(tuple),
    ),
    dead_letter=st.none() | st.just("") | st.builds("ns/{}".format, names) | st.builds("ns/{}/{}".format, names, names),
    hook=st.none()
    | st.builds(
        Hook,
        url=st.sampled_from(("http://a.b/c?d=e", "https://[::1]:8443")),
        secret=st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode()),
        on=st.lists(st.sampled_from(("success", "developer")), min_size=1).map(tuple),
    ),
)
qualified = st.builds(FullyQualifiedName, names, st.none() | names, names)
links = st.builds(RuleLink, qualified, st.sampled_from(RuleStatus), st.none() | follows)


@few
@given(st.dictionaries(st.builds("ns/{}".format, names), links, max_size=3), names, links, links)
def test_links_of_rules_come_back(held: dict[str, RuleLink], rule: str, first: RuleLink, then: RuleLink) -> None:
    trigger = triggers.Trigger(name=NAME, rules=held)
    linked = triggers.link(triggers.link(trigger, rule, first), rule, then)
    assert linked == triggers.link(trigger, rule, then)
    assert from_document(to_document(linked)) == linked
    assert triggers.unlink(linked, rule) == triggers.unlink(trigger, rule)
    shown = json.loads(encode(triggers.render(linked)))["rules"]
    assert shown == {
        id: {"action": {"path": link.action.path, "name": link.action.name}, "status": link.status}
        for id, link in (held | {rule: then}).items()
    }
    put = triggers.parse_put(encode(triggers.render(linked)))
    assert triggers.update(linked, put, 0) == linked  # what a client sends of rules is not listened to


@few
@given(common, names, names, st.sampled_from(RuleStatus))
def test_a_rule_is_shown_with_its_status(shared: dict[str, Any], trigger: str, action: str, status: RuleStatus) -> None:
    body = shared | {"trigger": f"/_/{trigger}", "action": f"/_/{action}"}
    rule = rules.create(NAME, rules.parse_put(json.dumps(body).encode(), "ns"), 1)
    rendered = encode(rules.render(rule, status))
    assert rules.parse_status(rendered) is status
    assert rules.update(rule, rules.parse_put(rendered, "elsewhere"), 1) == rule
    assert from_document(to_document(rule)) == rule


# ── what follows ────────────────────────────────────────────────────────────────────────────────────────────────────


@given(follows)
def test_what_annotations_ask_for_comes_back(asked: Follow) -> None:
    values: dict[str, Any] = {
        "retry": msgspec.to_builtins(asked.retry),
        "dead-letter": "/" + asked.dead_letter if asked.dead_letter else asked.dead_letter == "",
        "completion-hook": msgspec.to_builtins(asked.hook),
    }
    sent = json.dumps([{"key": key, "value": value} for key, value in values.items()]).encode()
    annotations = parse_parameters(sent)
    assert annotations is not None
    assert parse_follow(annotations, "ns") == asked
    assert parse_follow(parse_parameters(encode(render_parameters(annotations))) or {}, "ns") == asked


@given(st.none() | follows, st.none() | follows, st.none() | follows)
def test_the_first_that_asks_is_heard(one: Follow | None, two: Follow | None, three: Follow | None) -> None:
    assert merged(one, merged(two, three)) == merged(merged(one, two), three) == merged(one, two, three)
    assert merged(one, one) == merged(one, None) == merged(None, one) == merged(one)
    whole = merged(one, two, three) or Follow()
    for field in ("retry", "dead_letter", "hook"):
        said = [getattr(asked, field) for asked in (one, two, three) if asked is not None]
        assert getattr(whole, field) == next((value for value in said if value is not None), None)


# ── records ─────────────────────────────────────────────────────────────────────────────────────────────────────────

ids = st.text("0123456789abcdef", min_size=32, max_size=32)
counts = st.integers(0, 2**53)
of_actions = st.builds(
    ActivationHead,
    id=ids,
    namespace=names,
    subject=texts,
    name=names,
    version=st.just("0.0.7"),
    start_ms=counts,
    end_ms=counts,
    duration_ms=st.none() | counts,
    status=st.sampled_from(Status).map(int),
    size=st.none() | counts,
    path=st.none() | st.builds("{}/{}".format, names, names),
    kind=st.none() | st.just("nodejs:20"),
    limits=st.none() | st.builds(ActionLimits, memory_mb=st.integers(128, 512), instances=st.none() | counts),
    wait_ms=st.none() | counts,
    init_ms=st.none() | counts,
    is_timeout=st.none() | st.booleans(),
    cause=st.none() | ids,
    is_topmost=st.none() | st.booleans(),
    is_conductor=st.booleans(),
    binding=st.none() | st.builds("{}/{}".format, names, names),
    phases=st.none() | st.builds(Phases, *[counts] * 2, *[st.none() | counts] * 5, counts, st.none() | st.just("new")),
)
retried = st.builds(
    lambda head, first, attempt: msgspec.structs.replace(head, retry_of=first, attempt=attempt),
    of_actions,
    ids,
    st.integers(2, 100),
)
of_triggers = st.builds(
    ActivationHead, id=ids, namespace=names, subject=texts, name=names, version=st.just("2.0.0"), start_ms=counts
)
heads = of_actions | retried | of_triggers


@few
@given(heads, objects, st.lists(texts, max_size=3))
def test_records_come_back(head: ActivationHead, result: dict[str, Any], logs: list[str]) -> None:
    record = ActivationRecord(head=head, result=json.dumps(result, indent=1).encode(), logs=tuple(logs))
    framed = pack(Type.FINISHED, head.id, 0, finished_head(record), record.result)
    [frame] = scan(framed, 0)
    assert read_finished(frame) == record
    shown = json.loads(render(head, record.result, record.logs, has_phases=True))
    response: dict[str, Any] = {
        "result": result,
        "status": ("success", "application error", "action developer error", "whisk internal error")[head.status],
        "success": head.status == 0,
    }
    whole = {
        "activationId": head.id,
        "namespace": head.namespace,
        "subject": head.subject,
        "name": head.name,
        "version": head.version,
        "publish": False,
        "start": head.start_ms,
        "response": response if head.size is None else response | {"size": head.size},
        "logs": logs,
    }
    if head.cause is not None:
        whole["cause"] = head.cause
    if head.duration_ms is not None:
        whole |= {"end": head.end_ms, "duration": head.duration_ms}
    assert {key: value for key, value in shown.items() if key != "annotations"} == whole
    assert {entry["key"]: entry["value"] for entry in shown["annotations"]} == annotations_of(head)


def annotations_of(head: ActivationHead) -> dict[str, Any]:
    """What a record's annotations say, without those that say nothing."""
    if head.path is None:
        return {}
    values = {
        "path": head.path,
        "kind": head.kind or "unknown",
        "limits": None if head.limits is None else shown_limits(head.limits),
        "waitTime": head.wait_ms,
        "initTime": head.init_ms,
        "timeout": head.is_timeout,
        "topmost": head.is_topmost,
        "conductor": head.is_conductor or None,
        "causedBy": None if head.cause is None else "sequence",
        "binding": head.binding,
        "retryOf": head.retry_of,
        "attempt": head.attempt,
        "visp": None if head.phases is None else phases_of(head.phases),
    }
    return {key: value for key, value in values.items() if value is not None}


def shown_limits(limits: ActionLimits) -> dict[str, int]:
    return {key: value for key, value in msgspec.to_builtins(limits).items() if value is not None}


def phases_of(phases: Phases) -> dict[str, Any]:
    reached = {name: us for name, us in msgspec.structs.asdict(phases).items() if name != "cold" and us is not None}
    return {"phases_us": reached} if phases.cold is None else {"cold": phases.cold, "phases_us": reached}


@given(st.binary(max_size=40) | objects.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_sent_is_taken_or_refused(body: bytes) -> None:
    for parse in (triggers.parse_put, rules.parse_status, parse_object, lambda body: rules.parse_put(body, "ns")):
        with contextlib.suppress(Malformed):  # anything else is a bug
            parse(body)
