"""Documents that travel: an entity or a record that is rendered as one and read back is the same."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.test_entities import MANIFEST, entries, names, objects, texts, values_
from tests.unit import dumps

from visp.entity import couch
from visp.entity.action import Action
from visp.entity.activation import ActivationHead, ActivationRecord, Phases, Status
from visp.entity.execs import BlackboxExec, Code, CodeExec, SequenceExec, is_base64
from visp.entity.limits import ActionLimits
from visp.entity.names import FullyQualifiedName
from visp.entity.package import Package
from visp.entity.parameters import Parameters, parse_parameters, plain
from visp.entity.payload import encode
from visp.entity.portable import (
    StoredCode,
    StoredFile,
    pair_of,
    parse_entity,
    parse_namespace_limits,
    parse_record,
    parse_subject,
    render_entity,
    render_record,
)
from visp.entity.rule import Rule
from visp.entity.site import SiteFile, clean_path
from visp.entity.trigger import RuleLink, RuleStatus, Trigger
from visp.errors import Refused, RequestError

BLOB = "ab" * 32
STORED = {BLOB: StoredCode(70_000, is_binary=True)}
PAGE, PAGE_GZIP = "cd" * 32, "ef" * 32
FILES = {PAGE: StoredFile(40), PAGE_GZIP: StoredFile(20, holds=PAGE)}

namespaces = names.filter(lambda name: name != "_")
plain_names = st.builds(FullyQualifiedName, namespaces, st.none(), names)
packaged = st.builds(FullyQualifiedName, namespaces, st.none() | names, names)
versions = st.integers(1, 999).map(lambda patch: f"1.0.{patch}")
times = st.integers(0, 2**42)
common: dict[str, Any] = {"version": versions, "publish": st.booleans(), "updated_ms": times}


@st.composite
def parameters(draw: st.DrawFn, *without: str) -> Parameters:
    found = parse_parameters(encode(draw(entries()))) or {}
    taken = {"retry", "dead-letter", "completion-hook", *without}
    return {key: value for key, value in found.items() if key not in taken}


inline = st.text(st.characters(exclude_categories=("Cs",)), max_size=30).map(lambda text: Code(is_base64(text), text))
codes = inline | st.just(Code(True, blob=BLOB))
mains = st.none() | names
execs = (
    st.builds(CodeExec, st.just("nodejs:20"), codes, mains)
    | st.builds(BlackboxExec, st.just("me/image:1"), st.none() | codes.filter(lambda c: c.inline != ""), mains)
    | st.builds(SequenceExec, st.lists(packaged.filter(lambda n: n.namespace != "_"), max_size=3).map(tuple))
)
limits = st.builds(
    ActionLimits,
    timeout_ms=st.integers(0, 10**6),
    memory_mb=st.integers(0, 10**4),
    instances=st.none() | st.integers(0, 99),
)


@st.composite
def actions(draw: st.DrawFn) -> Action:
    exec = draw(execs)
    if isinstance(exec, BlackboxExec) and exec.code is not None and not (exec.code.inline or "x").strip():
        exec = BlackboxExec(exec.image, None, exec.main)
    own = draw(parameters())
    if isinstance(exec, SequenceExec):
        own = plain("_actions", ["/" + component.id for component in exec.components])
    return Action(
        name=draw(packaged),
        exec=exec,
        parameters=own,
        annotations=draw(parameters("exec")) | plain("exec", exec.kind),
        limits=draw(limits),
        **{field: draw(values) for field, values in common.items()},
    )


links = st.builds(RuleLink, packaged, st.sampled_from(RuleStatus))
triggers = st.builds(
    Trigger,
    name=plain_names,
    parameters=parameters(),
    annotations=parameters(),
    rules=st.none() | st.dictionaries(plain_names.map(lambda name: name.id), links, max_size=3),
    **common,
)
rules = st.builds(
    Rule,
    name=plain_names,
    trigger=plain_names.filter(lambda name: name.namespace != "_"),
    action=packaged.filter(lambda name: name.namespace != "_"),
    annotations=parameters(),
    **common,
)


sites = st.dictionaries(
    st.lists(texts, min_size=1, max_size=3).map("/".join).filter(lambda path: clean_path(path) is not None),
    st.sampled_from((SiteFile(PAGE, 40), SiteFile(PAGE, 40, PAGE_GZIP, 20), SiteFile(PAGE_GZIP, 20))),
    max_size=3,
)


@st.composite
def packages(draw: st.DrawFn) -> Package:
    binding = draw(st.none() | plain_names.filter(lambda name: name.namespace != "_"))
    annotations = draw(parameters("binding"))
    if binding is not None:
        annotations |= plain("binding", {"namespace": binding.namespace, "name": binding.name})
    return Package(
        name=draw(plain_names.filter(lambda name: name.name != "default")),
        binding=binding,
        parameters=draw(parameters()),
        annotations=annotations,
        site={} if binding is not None else draw(sites),
        **{field: draw(values) for field, values in common.items()},
    )


entities = st.one_of(
    st.tuples(st.just("actions"), actions()),
    st.tuples(st.just("triggers"), triggers),
    st.tuples(st.just("rules"), rules),
    st.tuples(st.just("packages"), packages()),
)


@settings(max_examples=50)
@given(entities)
def test_an_entity_comes_back(of: tuple[str, Any]) -> None:
    collection, entity = of
    line = render_entity(entity)
    assert b"\n" not in line
    assert parse_entity(collection, line, MANIFEST, STORED, 7, FILES) == entity


ids = st.text("0123456789abcdef", min_size=32, max_size=32)
small = st.none() | st.integers(0, 10**6)
phases = st.builds(
    Phases,
    queued=times,
    placed=times,
    created=small,
    initialised=small,
    run=small,
    answered=small,
    logs=small,
    stored=times,
    cold=st.none() | texts,
)


@st.composite
def records(draw: st.DrawFn) -> ActivationRecord:
    fields: dict[str, Any] = {
        "id": draw(ids),
        "namespace": draw(names),
        "subject": draw(texts),
        "name": draw(names),
        "version": draw(versions),
        "start_ms": draw(times),
        "status": draw(st.sampled_from(Status)),
        "size": draw(small),
        "cause": draw(st.none() | ids),
    }
    if draw(st.booleans()):  # not a trigger
        retry_of = draw(st.none() | ids)
        fields |= {
            "end_ms": draw(times),
            "duration_ms": draw(st.integers(0, 10**6)),
            "path": draw(packaged).id,
            "kind": draw(st.none() | names.filter(lambda name: name != "unknown")),
            "limits": draw(st.none() | limits),
            "wait_ms": draw(small),
            "init_ms": draw(small),
            "is_timeout": draw(st.none() | st.booleans()),
            "is_topmost": draw(st.none() | st.booleans()),
            "is_conductor": draw(st.booleans()),
            "binding": draw(st.none() | plain_names.map(lambda name: name.id)),
            "phases": draw(st.none() | phases),
            "retry_of": retry_of,
            "attempt": None if retry_of is None else draw(st.integers(2, 9)),
        }
    logs = tuple(draw(st.lists(texts, max_size=3)))
    return ActivationRecord(head=ActivationHead(**fields), result=encode(draw(objects)), logs=logs)


@given(records())
def test_a_record_comes_back(record: ActivationRecord) -> None:
    line = render_record(record)
    assert b"\n" not in line
    assert parse_record(line) == record


FOREIGN = [*dumps.subjects(), *dumps.whisks(), *dumps.activations(1_800_000_000_000)]


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A document of OpenWhisk's in which something, at some depth, is anything else."""
    document = json.loads(json.dumps(draw(st.sampled_from(FOREIGN))))
    place: Any = document
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            break
        place = inner
    place[key] = draw(values_)
    return json.dumps(document).encode()


@settings(max_examples=300)
@given(spoilt())
def test_what_is_spoilt_is_refused_or_taken(raw: bytes) -> None:
    with contextlib.suppress(Refused, RequestError):
        found = couch.read(raw)
        if found.kind == couch.ACTIVATIONS:
            render_record(parse_record(found.body))
        elif found.kind == couch.SUBJECTS:
            for held in parse_subject(found.body).namespaces:
                pair_of("somebody", held)
        elif found.kind == couch.LIMITS:
            parse_namespace_limits(found.body)
        elif found.kind is not None:
            entity = parse_entity(found.kind, found.body, MANIFEST, {}, 7)
            assert parse_entity(found.kind, render_entity(entity), MANIFEST, {}, 7) == entity
    couch.id_of(raw)
