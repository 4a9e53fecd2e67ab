"""What each handler of the table is for, takes and answers: where the table says which, this says what.

A handler that stands at several paths is told once. A test holds that every handler of the table is told here, and no
other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from visp.api import (
    actions,
    activations,
    artifacts,
    deferred,
    events,
    feeds,
    gateway,
    info,
    metrics,
    namespaces,
    packages,
    rules,
    schemas,
    site,
    socket,
    subscriptions,
    triggers,
)
from visp.api.errors import JSON
from visp.api.progress import MEDIA_TYPE as LINES
from visp.api.queries import DELAY_LIMIT_DAYS
from visp.controller import batches
from visp.controller.idempotency import KEY_LIMIT
from visp.entity.api import RESPONSE_TYPES
from visp.entity.limits import LIST_DEFAULT, LIST_MAXIMUM

if TYPE_CHECKING:
    from collections.abc import Callable

Schema = dict[str, Any]

TEXT, HTML = "text/plain", "text/html"


class Parameter(msgspec.Struct, frozen=True):
    """Of a query unless `where` says `header`; never required."""

    name: str
    schema: Schema
    description: str
    where: str = "query"


class Content(msgspec.Struct, frozen=True):
    """What one status answers: the alternatives of each media type, the usual one first, and headers by name."""

    description: str
    shapes: dict[str, tuple[Any, ...]] = {}
    headers: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """`refusals` are the statuses that answer with an `Error`; `body` is the shape of the body, if there is one."""

    tag: str
    summary: str
    answers: dict[int, Content]
    refusals: tuple[int, ...]
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    body_type: str | None = None
    """Of a body that is no JSON: its bytes."""
    body_types: dict[str, Any] = {}
    """What else the body may be: the shape for each further media type."""
    is_body_required: bool = True
    description: str = ""


TAGS = {
    "Namespaces": "The namespace of a key, and what it may do.",
    "APIs": "Web actions under paths of one's own, as documents of the gateway.",
    "Subscriptions": "Which clients may call an API of the gateway that asks for a key.",
    "Actions": "Code that runs when it is invoked.",
    "Packages": "Actions under one name, and bindings: packages of others under a name of one's own.",
    "Triggers": "Named channels of events.",
    "Rules": "Which trigger runs which action.",
    "Activations": "Records of what ran.",
    "Connections": "WebSocket clients of web actions.",
    "Delayed": "What was accepted and is not due yet.",
    "Dead letters": "Activations that failed for good, where the action's annotations ask that they are kept.",
    "Feeds": "Sources outside that fire triggers, and how they stand.",
    "Server": "What this server is and how it does; most of it without authentication.",
}

REFUSALS = {
    400: "The body, a name, an id or a parameter is wrong; `error` says how.",
    401: "No credentials, or none that are known.",
    403: "Not for this key. What a foreign namespace holds is not told.",
    404: "There is no such resource.",
    406: "The answer is not of a type that the request accepts.",
    409: "The resource exists, is of another collection, or was changed by someone else meanwhile.",
    413: "The body, or a part of it, is larger than allowed.",
    414: "The URL is longer than allowed.",
    415: "The body is not of the type that is taken here, mostly `application/json`.",
    422: "A package binding leads to another one.",
    429: "A limit of the namespace is reached.",
    500: "The server failed.",
    503: "The server is overloaded, or not ready.",
    507: "The disk is full: reading goes on.",
}

# ── what operations share ───────────────────────────────────────────────────────────────────────────────────────

_ANY = (400, 401, 414, 500, 503)
_OWN = (*_ANY, 403)
_ONE = (*_OWN, 404)
_NAMED = (*_ONE, 409)
_WRITE = (*_NAMED, 507)
_PUT = (*_WRITE, 413, 415)
_CHARGED = (*_PUT, 429)
_WEB = (400, 406, 413, 414, 429, 500, 503, 507)
_OPEN = (414,)
_BOUND = (422,)
"""Where a name may lead through a binding."""


def _flag(name: str, description: str, *, default: bool = False) -> Parameter:
    return Parameter(name, {"type": "boolean", "default": default}, description)


def _count(name: str, description: str, **bounds: int) -> Parameter:
    return Parameter(name, {"type": "integer", "minimum": 0, "maximum": 2**31 - 1} | bounds, description)


_PAGE = (
    _count("limit", f"how many; 0 means {LIST_MAXIMUM}", maximum=LIST_MAXIMUM, default=LIST_DEFAULT),
    _count("skip", "how many to leave out before these", default=0),
    _flag("count", "only how many there are: `{collection: number}`"),
)
_OVERWRITE = _flag("overwrite", "whether one that exists may be changed")
_BUILD = Parameter(
    "build",
    {"type": "string", "enum": ["wait"]},
    "`wait`: the code is built first, and nothing is stored if that fails",
)
_PHASES = _flag("phases", "adds the annotation `visp`: when each phase was reached, in microseconds")
_WAIT = Parameter(
    "wait",
    {"type": "number", "minimum": 0, "maximum": 999_999_999},
    "seconds to wait for a record that is not there yet; as many as the server allows",
)
_INSTANT = {"type": "integer", "format": "int64"}
_SINCE = Parameter("since", _INSTANT, "begun at this time or later; milliseconds since 1970")
_UPTO = Parameter("upto", _INSTANT, "begun at this time or earlier; milliseconds since 1970")
_NAME_FILTER = Parameter("name", {"type": "string"}, "of this action or trigger: `name`, or `package/name`")
_LATER = (
    Parameter(
        "delay",
        {"type": "string", "pattern": "^[0-9]{1,9}([.][0-9]{1,6})?(ms|s|m|h|d)?$"},
        f"begins so much later: `1.5s`, `10m`; without a unit seconds; at most {DELAY_LIMIT_DAYS} days",
    ),
    Parameter(
        "at",
        {"type": "string"},
        f"begins at this time: milliseconds since 1970, or ISO 8601; at most {DELAY_LIMIT_DAYS} days ahead",
    ),
)
_KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": KEY_LIMIT, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    "a request that comes again with its key within a day gets the answer of the first",
    "header",
)
_LAST_EVENT = Parameter(
    "Last-Event-ID",
    {"type": "string", "pattern": schemas.ID},
    "of a stream: the last record that was seen; what has ended since is told first",
    "header",
)


def _json(*shapes: Any) -> dict[str, tuple[Any, ...]]:
    return {JSON: shapes}


def _entity(shape: Any, description: str) -> dict[int, Content]:
    return {200: Content(description, _json(shape))}


def _list(shape: Any, description: str) -> dict[int, Content]:
    """A list, or with `count` how many there are."""
    return {200: Content(description, _json(list[shape], dict[str, int]))}


def _record(shape: Any, description: str) -> dict[int, Content]:
    """A record; for whoever accepts events, as an event."""
    return {200: Content(description, _json(shape) | {events.MEDIA_TYPE: (str,)})}


_ACTIVATION_ID = "x-openwhisk-activation-id"
_ACCEPTED = Content("Begun, or to be begun when it is due.", _json(schemas.Accepted), (_ACTIVATION_ID,))
_REFUSED = {502: Content("Why it cannot be, or that the key is missing or unknown.", _json(schemas.ApiError))}
_NUMBER = {"type": "string", "pattern": "^[0-9]{1,9}$"}
_RUN = (schemas.Activation, dict[str, Any], list[Any])
"""The record; with `result`, or where it is an array, the bare result."""

_ARTIFACT = Parameter("artifact_id", {"type": "string"}, "the API: its base path; required")
_SCOPED = (
    _ARTIFACT,
    Parameter("scope", {"type": "string", "enum": ["api", "resource", "tenant"]}, "whose clients; `api` without it"),
    Parameter("resource", {"type": "string"}, "a path of the API, for its scope"),
)
_NO_FEED = {
    400: Content("The feed cannot be so: why.", _json(schemas.Error)),
    404: Content("There is no such trigger or feed.", _json(schemas.Error)),
    429: Content("The namespace has too many.", _json(schemas.Error)),
    502: Content("The source cannot be reached.", _json(schemas.Error)),
}
_NOT_SUBSCRIBED = {
    400: Content("No API is named.", _json(schemas.GatewayError)),
    404: Content("There is no such API, or client.", _json(schemas.GatewayError)),
}

_SUBSCRIBE = Operation(
    tag="Subscriptions",
    summary="Lets a client call an API",
    body=schemas.Subscription,
    answers=_entity(schemas.Subscribed, "It may from now on.")
    | {
        400: Content("The body is wrong.", _json(schemas.Error, schemas.GatewayError)),
        404: Content("There is no such API.", _json(schemas.GatewayError)),
    },
    refusals=(401, 403, 413, 414, 415, 429, 500, 503, 507),
)

_TENANT = "The tenant is the key's namespace: its name, its uuid or `_`."
_GATEWAYS = {
    400: Content("What is wrong with the body.", _json(schemas.GatewayError)),
    404: Content("There is no such API, tenant or path.", _json(schemas.GatewayError)),
}
_PUT_GATEWAYS = (401, 403, 413, 414, 429, 500, 503, 507)
_ASK_GATEWAYS = (401, 403, 414, 500, 503)
_NO_BODY = {204: Content("It is gone.")}


def _document(summary: str, shape: Any = schemas.Artifact, *, body: Any = None) -> Operation:
    """Of the gateway's own management."""
    return Operation(
        tag="APIs",
        summary=summary,
        description=_TENANT,
        body=body,
        answers=_entity(shape, "As it is then.") | _GATEWAYS,
        refusals=_ASK_GATEWAYS if body is None else _PUT_GATEWAYS,
    )


_SWAGGER = dict[str, Any]
_FIRST = schemas.FirstApi
_FIRST_SUBSCRIPTION = Operation(
    tag="Subscriptions",
    summary="Adds a key, of a tenant, of a path or of an API",
    body=schemas.FirstSubscription,
    answers={200: Content("A sentence.", {TEXT: (str,)})} | _GATEWAYS,
    refusals=_PUT_GATEWAYS,
)

# ── the handlers ────────────────────────────────────────────────────────────────────────────────────────────────

OPERATIONS: dict[Callable[..., Any], Operation] = {
    namespaces.list_namespaces: Operation(
        tag="Namespaces",
        summary="The namespace of the key",
        answers=_entity(list[schemas.Name], "Exactly one name."),
        refusals=_ANY,
    ),
    namespaces.get_limits: Operation(
        tag="Namespaces",
        summary="What the namespace may do",
        answers=_entity(schemas.NamespaceLimits, "The limits."),
        refusals=_OWN,
    ),
    # feeds
    feeds.list_feeds: Operation(
        tag="Feeds",
        summary="The feeds of the namespace's triggers, and how they stand",
        answers=_entity(list[schemas.FeedState], "The feeds, by trigger."),
        refusals=_OWN,
    ),
    feeds.get_feed: Operation(
        tag="Feeds",
        summary="A trigger's feed: what it was asked for, and how it stands",
        description="READ of the feed protocol. Secrets are masked.",
        answers=_entity(schemas.FeedState, "The feed.") | _NO_FEED,
        refusals=_OWN,
    ),
    feeds.create_feed: Operation(
        tag="Feeds",
        summary="Makes the trigger's feed, in the place of the one that it has",
        description="CREATE of the feed protocol: what a feed's action asks for when a trigger is made.",
        body=schemas.NewFeed,
        answers=_entity(dict[str, Any], "It is made.") | _NO_FEED,
        refusals=(*_OWN, 409, 413, 415),
    ),
    feeds.change_feed: Operation(
        tag="Feeds",
        summary="Changes parameters of the trigger's feed, pauses or resumes it",
        description="Without `state` UPDATE of the feed protocol.",
        parameters=(
            Parameter("state", {"type": "string", "enum": ["paused", "live"]}, "pauses or resumes it, without a body"),
        ),
        body=schemas.NewFeed,
        answers=_entity(dict[str, Any], "It is done.") | _NO_FEED,
        refusals=(*_OWN, 409, 413, 415),
    ),
    feeds.delete_feed: Operation(
        tag="Feeds",
        summary="Ends the trigger's feed",
        description="DELETE of the feed protocol; the trigger stays.",
        answers=_entity(dict[str, Any], "It is gone.") | _NO_FEED,
        refusals=_OWN,
    ),
    # APIs
    gateway.get_api: Operation(
        tag="APIs",
        summary="The APIs of the namespace",
        description="By base path. Whatever else OpenWhisk's clients send is ignored.",
        parameters=(
            Parameter("basepath", {"type": "string"}, "those with this base path or, without a slash at first, title"),
            Parameter("skip", _NUMBER, "how many to leave out before these"),
            Parameter("limit", _NUMBER, "how many; all without it"),
            Parameter(
                "format", {"type": "string", "enum": ["swagger", "openapi"]}, "`openapi`: documents as OpenAPI 3.1"
            ),
        ),
        answers=_entity(schemas.Apis, "The APIs.") | _REFUSED,
        refusals=_WEB,
    ),
    gateway.create_api: Operation(
        tag="APIs",
        summary="Makes an API, or adds an operation to one",
        description="An operation that is there is replaced.",
        parameters=(
            Parameter(
                "responsetype",
                {"type": "string", "enum": sorted(RESPONSE_TYPES)},
                "extension of the web action that an operation calls; `json` without it",
            ),
        ),
        body=schemas.NewApi,
        answers=_entity(schemas.Api, "The API as it is then.") | _REFUSED,
        refusals=_WEB,
    ),
    gateway.delete_api: Operation(
        tag="APIs",
        summary="Deletes an API, a path of it, or an operation",
        description="An API goes with the last of its paths, a path with the last of its operations.",
        parameters=(
            Parameter("basepath", {"type": "string"}, "its base path or, without a slash at first, its title"),
            Parameter("relpath", {"type": "string"}, "only this path"),
            Parameter("operation", {"type": "string"}, "only this method of the path, in any case"),
        ),
        answers=_entity(dict[str, Any], "It is gone.") | _REFUSED,
        refusals=_WEB,
    ),
    artifacts.add_document: _document("Makes an API of a document", body=_SWAGGER),
    artifacts.put_document: _document("Makes an API of a document, or replaces it", body=_SWAGGER),
    artifacts.replace_document: _document("Replaces an API by its id", body=_SWAGGER),
    artifacts.list_documents: Operation(
        tag="APIs",
        summary="The documents of a tenant",
        description=_TENANT,
        parameters=(
            Parameter("basePath", {"type": "string"}, "those with this base path"),
            Parameter("title", {"type": "string"}, "those with this title"),
            Parameter("skip", _NUMBER, "how many to leave out before these"),
            Parameter("limit", _NUMBER, "how many; all without it"),
        ),
        answers=_entity(list[schemas.Artifact], "The documents."),
        refusals=_ASK_GATEWAYS,
    ),
    artifacts.get_document: _document("A document by its id"),
    artifacts.delete_document: Operation(
        tag="APIs",
        summary="Deletes an API by its id",
        description=_TENANT,
        answers={**_NO_BODY, **_GATEWAYS},
        refusals=_ASK_GATEWAYS,
    ),
    artifacts.put_first: _document("Makes an API of its first form, or replaces it", _FIRST, body=_FIRST),
    artifacts.replace_first: _document("Replaces an API by its id", _FIRST, body=_FIRST),
    artifacts.list_first: Operation(
        tag="APIs",
        summary="The caller's APIs in the first form",
        parameters=(
            Parameter("filter[where][basePath]", {"type": "string"}, "those with this base path"),
            Parameter("filter[where][name]", {"type": "string"}, "those with this title"),
        ),
        answers=_entity(list[schemas.FirstApi], "The APIs."),
        refusals=_ASK_GATEWAYS,
    ),
    artifacts.get_first: _document("An API in the first form", _FIRST),
    artifacts.delete_first: _document("Deletes an API by its id", dict[str, Any]),
    artifacts.tenant_of_first: _document("The tenant of an API", schemas.Tenant),
    artifacts.list_tenants: Operation(
        tag="APIs",
        summary="The caller as a tenant",
        parameters=(
            Parameter("filter[where][namespace]", {"type": "string"}, "if it is of this name"),
            Parameter("filter[where][instance]", {"type": "string"}, "there are none: only an empty one is found"),
        ),
        answers=_entity(list[schemas.Tenant], "The tenant."),
        refusals=_ASK_GATEWAYS,
    ),
    artifacts.put_tenant: _document("The caller as a tenant; nothing is made", schemas.Tenant, body=schemas.Tenant),
    artifacts.replace_tenant: _document(
        "The caller as a tenant; nothing is changed", schemas.Tenant, body=schemas.Tenant
    ),
    artifacts.get_tenant: _document("A tenant by its id", schemas.Tenant),
    artifacts.delete_tenant: Operation(
        tag="APIs",
        summary="Refused: a tenant is a namespace, which an operator deletes",
        answers={},
        refusals=_ASK_GATEWAYS,
    ),
    artifacts.list_tenants_apis: _document("A tenant's APIs in the first form", list[schemas.FirstApi]),
    artifacts.put_first_subscription: _FIRST_SUBSCRIPTION,
    artifacts.drop_first_subscription: msgspec.structs.replace(_FIRST_SUBSCRIPTION, summary="Takes a key away"),
    artifacts.health: Operation(
        tag="Server",
        summary="Whether the gateway is there",
        answers={200: Content("A sentence.", {TEXT: (str,)})},
        refusals=_OPEN,
    ),
    subscriptions.list_subscriptions: Operation(
        tag="Subscriptions",
        summary="The clients of an API, by their ids",
        parameters=_SCOPED,
        answers=_entity(list[str], "The ids.") | _NOT_SUBSCRIBED,
        refusals=tuple(status for status in _OWN if status != 400),
    ),
    subscriptions.add_subscription: _SUBSCRIBE,
    subscriptions.put_subscription: _SUBSCRIBE,
    subscriptions.drop_subscription: Operation(
        tag="Subscriptions",
        summary="Takes that back",
        parameters=_SCOPED,
        answers={204: Content("It may no longer."), **_NOT_SUBSCRIBED},
        refusals=(401, 403, 414, 500, 503, 507),
    ),
    # actions
    actions.list_actions: Operation(
        tag="Actions",
        summary="All actions of the namespace, the latest changed first",
        description="Those in packages too.",
        parameters=_PAGE,
        answers=_list(schemas.ActionSummary, "The actions, or their number."),
        refusals=_OWN,
    ),
    actions.list_package_actions: Operation(
        tag="Actions",
        summary="The actions of a package, the latest changed first",
        description="Of a binding, those of its provider. The slash at the end makes the difference.",
        parameters=_PAGE,
        answers=_list(schemas.ActionSummary, "The actions, or their number."),
        refusals=(*_NAMED, *_BOUND),
    ),
    actions.get_action: Operation(
        tag="Actions",
        summary="An action",
        description="In a package: with the parameters of the package, and of the binding it is found through.",
        parameters=(_flag("code", "with its code", default=True),),
        answers=_entity(schemas.Action, "The action."),
        refusals=(*_NAMED, *_BOUND),
    ),
    actions.put_action: Operation(
        tag="Actions",
        summary="Creates or changes an action",
        description="Where code has to be built, that begins when it is stored; with `build=wait` it comes before, and"
        ' as `application/x-ndjson` the answer says how it goes on: `{"progress"}`, last `{"status", "body"}`.',
        parameters=(_OVERWRITE, _BUILD),
        body=schemas.ActionPut,
        answers=_entity(schemas.Action, "The action as it is stored."),
        refusals=(*_CHARGED, *_BOUND),
    ),
    actions.invoke_action: Operation(
        tag="Actions",
        summary="Invokes an action",
        description="The body is laid over the action's parameters. The answer is 202 without `blocking`, and when the"
        " wait is over before the run is. With `blocking`, accepted as `text/event-stream`: an event `activation` with"
        " the id; `part` (JSON; a string is text) or `bytes` (base64) for each part of a result that comes in parts;"
        " and `record`, when it is over, or `error`. A slow reader slows the run down; one that is gone does not end"
        " it.",
        parameters=(
            _flag("blocking", "waits for the run to end"),
            _flag("result", "with `blocking`: answers with the result alone"),
            _count("timeout", "with `blocking`: the longest wait in milliseconds; less than the server's", minimum=1),
            *_LATER,
            _KEY,
        ),
        body=dict[str, Any],
        is_body_required=False,
        answers={
            200: Content("The record, or the result.", _json(*_RUN) | {events.MEDIA_TYPE: (str,)}, (_ACTIVATION_ID,)),
            202: _ACCEPTED,
            500: Content("The server failed, or the run did for the server's fault.", _json(schemas.Error, *_RUN)),
            502: Content("The action failed: the record, or the result.", _json(*_RUN), (_ACTIVATION_ID,)),
        },
        refusals=tuple(status for status in (*_CHARGED, *_BOUND) if status != 500),
    ),
    actions.delete_action: Operation(
        tag="Actions",
        summary="Deletes an action",
        answers=_entity(schemas.Action, "The action as it was."),
        refusals=_WRITE,
    ),
    # packages
    packages.list_packages: Operation(
        tag="Packages",
        summary="The packages of a namespace, the latest changed first",
        description="Of a foreign namespace those that are published.",
        parameters=_PAGE,
        answers=_list(schemas.PackageSummary, "The packages, or their number."),
        refusals=_ANY,
    ),
    packages.get_package: Operation(
        tag="Packages",
        summary="A package with what is in it",
        answers=_entity(schemas.PackageContent, "The package."),
        refusals=(*_NAMED, *_BOUND),
    ),
    packages.put_package: Operation(
        tag="Packages",
        summary="Creates or changes a package or a binding",
        parameters=(_OVERWRITE,),
        body=schemas.PackagePut,
        answers=_entity(schemas.Package, "The package as it is stored."),
        refusals=_PUT,
    ),
    packages.delete_package: Operation(
        tag="Packages",
        summary="Deletes a package",
        parameters=(_flag("force", "deletes its actions too; without it a package that has some stays"),),
        answers=_entity(schemas.Package, "The package as it was."),
        refusals=_WRITE,
    ),
    site.get_site: Operation(
        tag="Packages",
        summary="The files of a package's site",
        answers=_entity(schemas.Site, "Where they are served, and which there are."),
        refusals=(*_NAMED, *_BOUND),
    ),
    site.put_site: Operation(
        tag="Packages",
        summary="Replaces a package's site by the files of a zip archive",
        body_type=site.ZIP,
        answers=_entity(schemas.Site, "The site as it is served from now on."),
        refusals=_PUT,
        description="Files are served to everybody, beside the package's web actions, which go before them.",
    ),
    site.delete_site: Operation(
        tag="Packages",
        summary="Deletes a package's site",
        answers=_entity(schemas.Site, "What is left: nothing."),
        refusals=_WRITE,
    ),
    socket.say_to_connection: Operation(
        tag="Connections",
        summary="Says the body to a WebSocket connection",
        body_type="application/octet-stream",
        answers=_entity(schemas.Connection, "It is on its way."),
        refusals=(*_ONE, 413),
        description="As bytes where it is `application/octet-stream`, else as text.",
    ),
    socket.close_connection: Operation(
        tag="Connections",
        summary="Ends a WebSocket connection",
        answers=_entity(schemas.Connection, "It is on its way."),
        refusals=_ONE,
    ),
    # triggers
    triggers.list_triggers: Operation(
        tag="Triggers",
        summary="The triggers of the namespace, the latest changed first",
        parameters=_PAGE,
        answers=_list(schemas.TriggerSummary, "The triggers, or their number."),
        refusals=_OWN,
    ),
    triggers.get_trigger: Operation(
        tag="Triggers",
        summary="A trigger with its rules",
        answers=_entity(schemas.Trigger, "The trigger."),
        refusals=_NAMED,
    ),
    triggers.put_trigger: Operation(
        tag="Triggers",
        summary="Creates or changes a trigger",
        parameters=(_OVERWRITE,),
        body=schemas.TriggerPut,
        answers=_entity(schemas.Trigger, "The trigger as it is stored."),
        refusals=_PUT,
    ),
    triggers.fire_trigger: Operation(
        tag="Triggers",
        summary="Fires a trigger",
        description="Each action of an active rule is invoked with the trigger's parameters and the body over them. "
        f"As `{LINES}` the body holds a fire in each line, {batches.LINES_MOST} at most; so does the answer.",
        parameters=(
            *_LATER,
            _KEY,
            _flag("keyed", "of lines: each is `{key, value}`, and of lines with the same key one is fired"),
            Parameter(
                "batch",
                {"type": "string", "pattern": f"^.{{1,{batches.SOURCE_LIMIT}}}/[0-9]+$"},
                "of keyed lines: `SOURCE/N`; a batch that comes again fires what was not fired yet, until N + 1 comes",
            ),
        ),
        body=dict[str, Any],
        body_types={LINES: str},
        is_body_required=False,
        answers={
            200: Content(
                'Of lines: `{"activationId"}`, `{"status": 204}` or `{"status", "error", "code"}` for each.',
                {LINES: (str,)},
            ),
            202: _ACCEPTED,
            204: Content("No rule is active: nothing was begun."),
        },
        refusals=_CHARGED,
    ),
    triggers.delete_trigger: Operation(
        tag="Triggers",
        summary="Deletes a trigger; its rules stay",
        answers=_entity(schemas.Trigger, "The trigger as it was."),
        refusals=_WRITE,
    ),
    # rules
    rules.list_rules: Operation(
        tag="Rules",
        summary="The rules of the namespace, the latest changed first",
        parameters=_PAGE,
        answers=_list(schemas.RuleSummary, "The rules, or their number."),
        refusals=_OWN,
    ),
    rules.get_rule: Operation(
        tag="Rules",
        summary="A rule with its status",
        answers=_entity(schemas.Rule, "The rule."),
        refusals=_NAMED,
    ),
    rules.put_rule: Operation(
        tag="Rules",
        summary="Creates or changes a rule; a new one is active",
        parameters=(_OVERWRITE,),
        body=schemas.RulePut,
        answers=_entity(schemas.Rule, "The rule as it is stored."),
        refusals=(*_PUT, *_BOUND),
    ),
    rules.set_rule_status: Operation(
        tag="Rules",
        summary="Makes a rule active or inactive",
        body=schemas.RuleStatus,
        answers={200: Content("The text `OK`.", {TEXT: (str,)})},
        refusals=_PUT,
    ),
    rules.delete_rule: Operation(
        tag="Rules",
        summary="Deletes a rule",
        answers=_entity(schemas.Rule, "The rule as it was, inactive."),
        refusals=_WRITE,
    ),
    # activations
    activations.list_activations: Operation(
        tag="Activations",
        summary="The activations of the namespace, the latest first; or all that end from now on, as events",
        description="Accepted as `text/event-stream`: an event `record` with each record as it is finished, and `lost`"
        " with a count where the reader could not keep up. Of the parameters `name`, `since` and `phases` count there.",
        parameters=(
            *_PAGE,
            _NAME_FILTER,
            _SINCE,
            _UPTO,
            _flag("docs", "whole records"),
            _PHASES,
            _LAST_EVENT,
        ),
        answers={
            200: Content(
                "The activations, or their number.",
                _json(list[schemas.ActivationSummary], list[schemas.Activation], dict[str, int])
                | {events.MEDIA_TYPE: (str,)},
            )
        },
        refusals=_OWN,
    ),
    activations.get_activation: Operation(
        tag="Activations",
        summary="The record of an activation",
        description="Accepted as `text/event-stream`: one event, `record`, when it is there.",
        parameters=(_WAIT, _PHASES),
        answers=_record(schemas.Activation, "The record."),
        refusals=_ONE,
    ),
    activations.get_result: Operation(
        tag="Activations",
        summary="What an activation came to",
        parameters=(_WAIT,),
        answers=_record(schemas.Response, "The record's `response`."),
        refusals=_ONE,
    ),
    activations.get_logs: Operation(
        tag="Activations",
        summary="What an activation printed",
        parameters=(_WAIT,),
        answers=_record(schemas.ActivationLogs, "The lines."),
        refusals=_ONE,
    ),
    # later
    deferred.list_delayed: Operation(
        tag="Delayed",
        summary="What is not due yet, the next one first",
        parameters=_PAGE,
        answers=_list(schemas.Delayed, "What waits, or its number."),
        refusals=_OWN,
    ),
    deferred.cancel_delayed: Operation(
        tag="Delayed",
        summary="Cancels what is not due yet",
        answers=_entity(schemas.Delayed, "What was cancelled; its record says so too."),
        refusals=(*_ONE, 507),
    ),
    deferred.list_letters: Operation(
        tag="Dead letters",
        summary="The dead letters of the namespace, the latest first",
        parameters=_PAGE,
        answers=_list(schemas.DeadLetter, "The letters, or their number."),
        refusals=_OWN,
    ),
    deferred.get_letter: Operation(
        tag="Dead letters",
        summary="A dead letter",
        answers=_entity(schemas.DeadLetter, "The letter."),
        refusals=_ONE,
    ),
    deferred.replay_letter: Operation(
        tag="Dead letters",
        summary="Runs the activation anew, as a first attempt",
        answers={202: Content("Begun; the letter is gone.", _json(schemas.Accepted))},
        refusals=(*_WRITE, *_BOUND, 413, 429),
    ),
    deferred.drop_letter: Operation(
        tag="Dead letters",
        summary="Drops a dead letter",
        answers=_entity(schemas.DeadLetter, "The letter as it was."),
        refusals=(*_ONE, 507),
    ),
    # the server
    info.root: Operation(
        tag="Server",
        summary="What this server is and what it can run",
        answers=_entity(schemas.ServerInfo, "Limits of an ordinary namespace, and the kinds of actions."),
        refusals=_OPEN,
    ),
    info.ping: Operation(
        tag="Server",
        summary="Whether the server lives",
        answers={200: Content("The text `pong`.", {TEXT: (str,)})},
        refusals=_OPEN,
    ),
    info.ready: Operation(
        tag="Server",
        summary="Whether the server serves",
        answers={
            200: Content("The text `ready`.", {TEXT: (str,)}),
            503: Content("Why it does not serve yet.", {TEXT: (str,)}, ("Retry-After",)),
        },
        refusals=_OPEN,
    ),
    metrics.metrics: Operation(
        tag="Server",
        summary="What the server counts, in Prometheus' text form",
        description="From this machine without a key; from elsewhere with one of the system's namespace.",
        answers={200: Content("The metrics.", {TEXT: (str,)})},
        refusals=(401, 403, 414, 500, 503),
    ),
    info.invokers: Operation(
        tag="Server",
        summary="Invokers and whether they are up",
        answers=_entity(dict[str, str], "`up` or `down`, by invoker."),
        refusals=_OPEN,
    ),
    info.healthy_invokers: Operation(
        tag="Server",
        summary="How many invokers are up",
        answers=_entity(int, "The number."),
        refusals=_OPEN,
    ),
    info.invokers_ready: Operation(
        tag="Server",
        summary="Whether all invokers are up",
        answers={
            200: Content("`{healthy: up/all}`", _json(dict[str, str])),
            500: Content("`{unhealthy: up/all}`", _json(dict[str, str])),
        },
        refusals=_OPEN,
    ),
    info.active_activations: Operation(
        tag="Server",
        summary="The ids of activations in flight",
        answers=_entity(list[schemas.Id], "All of them."),
        refusals=_OPEN,
    ),
    info.disable: Operation(
        tag="Server",
        summary="Takes the server out of service",
        description="By the operator's own name and password, of the settings `[operator]`.",
        answers={
            200: Content("It says that it is not ready from now on.", {TEXT: (str,)}),
            401: Content("Name or password are wrong, or none are set.", {TEXT: (str,)}),
        },
        refusals=_OPEN,
    ),
    info.docker_sdk: Operation(
        tag="Server",
        summary="Where OpenWhisk's Docker skeleton is",
        answers={301: Content("There.", headers=("Location",))},
        refusals=_OPEN,
    ),
    info.ios_sdk: Operation(
        tag="Server",
        summary="Where OpenWhisk's starter app for iOS is",
        answers={301: Content("There.", headers=("Location",))},
        refusals=_OPEN,
    ),
    info.in_flight: Operation(
        tag="Server",
        summary="How many activations are in flight",
        answers=_entity(int, "The number."),
        refusals=_OPEN,
    ),
    info.api: Operation(
        tag="Server",
        summary="What this API is",
        answers=_entity(schemas.ApiInfo, "Its version and build."),
        refusals=_OPEN,
    ),
    info.api_docs: Operation(
        tag="Server",
        summary="This document",
        description="Swagger 2.0, or OpenAPI 3.1 where it is asked for: `Accept: application/vnd.oai.openapi+json`.",
        parameters=(
            Parameter("version", {"type": "string", "enum": ["2.0", "3.1"], "default": "2.0"}, "of the specification"),
        ),
        answers=_entity(dict[str, Any], "The document."),
        refusals=_OPEN,
    ),
    info.docs: Operation(
        tag="Server",
        summary="Where this document can be read",
        answers={308: Content("See `docs/index.html`.", headers=("Location",))},
        refusals=_OPEN,
    ),
    info.docs_page: Operation(
        tag="Server",
        summary="This document as a page",
        answers={200: Content("The page.", {HTML: (str,)})},
        refusals=_OPEN,
    ),
}
