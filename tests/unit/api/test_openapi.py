"""The API's document: of every route, valid in both forms, and true of what entities render."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV2SpecValidator, OpenAPIV31SpecValidator

from visp.api import openapi, routes, schemas, swagger
from visp.api.operations import OPERATIONS, REFUSALS, TAGS
from visp.entity import action, activation, package, rule, trigger
from visp.entity.activation import ActivationHead
from visp.entity.execs import BlackboxExec, Code, CodeExec, SequenceExec
from visp.entity.limits import ActionLimits
from visp.entity.names import FullyQualifiedName
from visp.entity.parameters import Parameter, plain
from visp.entity.subject import UserLimits, render_limits
from visp.entity.trigger import RuleLink, RuleStatus

DOCUMENT = openapi.document()
SWAGGER = swagger.from_openapi(DOCUMENT, routes.API)
ROWS: list[tuple[str, str, Any]] = [*routes.OPEN, *routes.GUARDED, *routes.WEB]
TOLD = [(path, verb, told) for path, methods in DOCUMENT["paths"].items() for verb, told in methods.items()]


def test_both_forms_are_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    OpenAPIV2SpecValidator(SWAGGER).validate()


def test_every_handler_of_the_table_is_told_and_no_other() -> None:
    assert {handler for _, _, handler in ROWS} == OPERATIONS.keys()


def test_every_route_is_in_the_document() -> None:
    """One with a slash or an extension more than another of the same handler is told with it."""
    for method, path, handler in ROWS:
        twin = path.removesuffix("/").removesuffix(".http")
        at = twin if (method, twin, handler) in ROWS else path
        assert DOCUMENT["paths"][at][method.lower()]["tags"] == [OPERATIONS[handler].tag], (method, path)


def test_old_form_has_every_route_of_the_api() -> None:
    assert SWAGGER["basePath"] == "/api/v1"
    told = {("/api/v1" + path, verb) for path, methods in SWAGGER["paths"].items() for verb in methods}
    assert told >= {(path, verb) for path, verb, _ in TOLD if path.startswith("/api/v1/")}


def test_every_operation_says_what_it_is() -> None:
    ids = [told["operationId"] for _, _, told in TOLD]
    assert len(ids) == len(set(ids))
    for path, _, told in TOLD:
        assert told["summary"]
        assert set(told["tags"]) <= TAGS.keys()
        in_path = {part["name"] for part in told.get("parameters", ()) if part["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))


def test_what_needs_a_key_says_so() -> None:
    """Web actions tell a missing key as they tell any failure."""
    guarded, web = ({path for _, path, _ in table} for table in (routes.GUARDED, routes.WEB))
    for path, _, told in TOLD:
        assert told.get("security", DOCUMENT["security"]) == ([{"basicAuth": []}] if path in guarded | web else [])
        assert ("401" in told["responses"]) is (path in guarded or path in ("/metrics", "/disable"))


@pytest.mark.parametrize("document", [DOCUMENT, SWAGGER], ids=["3.1", "2.0"])
def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    found = list(references(document))
    assert found
    for reference in found:
        at: Any = document
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]


def references(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_refusals_are_errors() -> None:
    assert DOCUMENT["components"]["schemas"]["Error"]["required"] == ["error", "code"]
    for status in REFUSALS:
        content = DOCUMENT["components"]["responses"][f"Error{status}"]["content"]
        assert content == {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}


def test_old_form_takes_the_usual_one_of_alternatives() -> None:
    listed = SWAGGER["paths"]["/namespaces/{namespace}/actions"]["get"]["responses"]["200"]["schema"]
    assert listed == {"type": "array", "items": {"$ref": "#/definitions/ActionSummary"}}
    put = SWAGGER["paths"]["/namespaces/{namespace}/rules/{name}"]["put"]
    assert put["parameters"][-1]["schema"] == {"$ref": "#/definitions/RulePut"}
    assert SWAGGER["definitions"]["RulePut"]["properties"]["trigger"]["type"] == "string"
    assert "anyOf" not in str(SWAGGER)


# ── what entities render ────────────────────────────────────────────────────────────────────────────────────────

NAME = FullyQualifiedName("ns", "pkg", "a")
PARAMETERS = {"k": Parameter(msgspec.Raw(b'{"v":null}'), True, "aes-128")}
COMMON: dict[str, Any] = {"annotations": plain("feed", "x"), "version": "1.2.3", "updated_ms": 7}
ACTIONS = [
    action.Action(name=NAME, exec=exec, parameters=PARAMETERS, limits=ActionLimits(instances=2), **COMMON)
    for exec in (
        CodeExec("nodejs:20", Code(False, inline="x"), "main"),
        BlackboxExec("an/image", Code(False, inline="x")),
        SequenceExec((NAME, NAME)),
    )
]
PACKAGE = package.Package(name=NAME, parameters=PARAMETERS, **COMMON)
BINDING = msgspec.structs.replace(PACKAGE, binding=FullyQualifiedName("other", None, "p"))
TRIGGER = trigger.Trigger(name=NAME, parameters=PARAMETERS, rules={"ns/r": RuleLink(NAME, RuleStatus.ACTIVE)}, **COMMON)
RULE = rule.Rule(name=NAME, trigger=NAME, action=NAME, **COMMON)
HEAD = ActivationHead(
    id="0" * 32,
    namespace="ns",
    subject="subject",
    name="a",
    version="0.0.1",
    start_ms=1,
    end_ms=3,
    duration_ms=2,
    size=4,
    path="ns/pkg/a",
    kind="nodejs:20",
    limits=ActionLimits(),
    cause="1" * 32,
)
FIRED = ActivationHead(id="0" * 32, namespace="ns", subject="subject", name="t", version="0.0.1", start_ms=1)
LIMITS = UserLimits(
    invocations_per_minute=1,
    fires_per_minute=2,
    concurrent_invocations=3,
    allowed_kinds=frozenset({"nodejs:20"}),
    own={
        "storeActivations": False,
        "warmedContainerKeepingCount": 1,
        "warmedContainerKeepingTimeout": "5 seconds",
        "retentionDays": 0.5,
    },
)
RENDERED: list[tuple[Any, Any]] = [
    *((schemas.Action, action.render(one, "code") | {"binding": "ns/b"}) for one in ACTIONS),
    *((schemas.ActionSummary, action.render_summary(one)) for one in ACTIONS),
    *((schemas.PackageSummary, package.render_summary(one)) for one in (PACKAGE, BINDING)),
    *((schemas.Package, package.render(one)) for one in (PACKAGE, BINDING)),
    (schemas.PackageContent, package.render(BINDING) | package.render_content(ACTIONS)),
    (schemas.Trigger, trigger.render(TRIGGER)),
    (schemas.TriggerSummary, trigger.render_summary(TRIGGER)),
    (schemas.Rule, rule.render(RULE, RuleStatus.INACTIVE)),
    (schemas.RuleSummary, rule.render(RULE, None)),
    *((schemas.Activation, msgspec.Raw(activation.render(head, b"{}", ("line",)))) for head in (HEAD, FIRED)),
    *((schemas.ActivationSummary, activation.summary(head)) for head in (HEAD, FIRED)),
    (schemas.Response, msgspec.Raw(activation.render_response(HEAD, b"[1]"))),
    (schemas.NamespaceLimits, render_limits(LIMITS)),
]


@pytest.mark.parametrize(("shape", "rendered"), RENDERED, ids=lambda value: getattr(value, "__name__", ""))
def test_shapes_have_every_field_that_is_rendered(shape: type, rendered: Any) -> None:
    sent = msgspec.json.encode(rendered)
    read = msgspec.json.decode(sent, type=shape)
    assert msgspec.json.decode(msgspec.json.encode(read)) == msgspec.json.decode(sent)
