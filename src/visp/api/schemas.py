"""The shapes of bodies and answers, as types: the schemas of the API's document.

No handler makes these. Entities render themselves, and tests hold what they render against the shapes. A field that is
`UNSET` by default may be left out; what is left out of an answer is never `null`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from visp.entity.limits import CONCURRENCY, LOGS_MB, MEMORY_MB, TIMEOUT_MS
from visp.entity.names import NAME_LIMIT

NAME = "^[A-Za-z0-9_]([A-Za-z0-9_@ .&-]{0,254}[A-Za-z0-9_@.&-])?$"
ID = "^[0-9a-f]{32}$"
VERSION = "^[0-9]{1,9}([.][0-9]{1,9}){0,2}$"

Name = Annotated[str, Meta(pattern=NAME, max_length=NAME_LIMIT)]
Path = Annotated[str, Meta(description="the namespace, and the package if it is in one: `ns` or `ns/pkg`")]
Id = Annotated[str, Meta(description="32 hex digits", pattern=ID)]
Version = Annotated[str, Meta(description="major.minor.patch", examples=["0.0.1"])]
Instant = Annotated[int, Meta(description="milliseconds since 1970")]
Milliseconds = Annotated[int, Meta(description="milliseconds")]
Count = Annotated[int, Meta(ge=0)]
Outcome = Literal["success", "application error", "action developer error", "whisk internal error"]
RuleState = Literal["active", "inactive"]

Timeout = Annotated[int, Meta(description="milliseconds of one run", ge=TIMEOUT_MS.low, le=TIMEOUT_MS.high)]
Memory = Annotated[int, Meta(description="MB", ge=MEMORY_MB.low, le=MEMORY_MB.high)]
Logs = Annotated[int, Meta(description="MB of output that is kept", ge=LOGS_MB.low, le=LOGS_MB.high)]
Concurrency = Annotated[int, Meta(description="runs at once in one container", ge=CONCURRENCY.low)]
Instances = Annotated[int, Meta(description="containers at once", ge=0)]


class Error(msgspec.Struct, kw_only=True):
    """What every refusal is. An action's own failure never has a `code`."""

    error: Annotated[str, Meta(description="a sentence")]
    code: Annotated[str, Meta(description="the transaction's id, as in `X-Request-ID`")]


# ── what entities share ─────────────────────────────────────────────────────────────────────────────────────────


class KeyValue(msgspec.Struct, kw_only=True):
    """One parameter or annotation."""

    key: str
    value: Any
    init: Annotated[bool, Meta(description="given when the container is initialised, and to no run")] | UnsetType = (
        UNSET
    )
    encryption: Annotated[str, Meta(description="the scheme that the value is encrypted under")] | UnsetType = UNSET


class QualifiedName(msgspec.Struct, kw_only=True):
    """The full name of an entity: `/path/name`."""

    path: str
    name: Name


Reference = Annotated[
    str | QualifiedName, Meta(description="`/ns/name`, `/ns/pkg/name` or an object; `_` is the entity's own namespace")
]


class Entity(msgspec.Struct, kw_only=True):
    """What all entities have."""

    namespace: Path
    name: Name
    version: Version
    publish: bool
    annotations: list[KeyValue]
    updated: Instant


class EntityPut(msgspec.Struct, kw_only=True):
    """What can be given of all entities; of one that exists, what is left out stays as it is."""

    version: Annotated[str, Meta(description="left out: the patch is counted up", pattern=VERSION)] | UnsetType = UNSET
    publish: bool | UnsetType = UNSET
    annotations: list[KeyValue] | UnsetType = UNSET


# ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Exec(msgspec.Struct, kw_only=True):
    """What an action executes: code of a kind, an image (`blackbox`), or other actions (`sequence`)."""

    kind: Annotated[str, Meta(examples=["nodejs:20", "python:3.11", "nodejs:default", "blackbox", "sequence"])]
    code: Annotated[str, Meta(description="source text, or an archive in base64")] | UnsetType = UNSET
    main: Annotated[str, Meta(description="the function, where it is not `main`")] | UnsetType = UNSET
    binary: Annotated[bool, Meta(description="whether the code is base64; the server finds out")] | UnsetType = UNSET
    image: Annotated[str, Meta(description="of `blackbox`: the image's name")] | UnsetType = UNSET
    components: Annotated[list[Reference], Meta(description="of `sequence`: what runs, in order")] | UnsetType = UNSET


class ExecSummary(msgspec.Struct, kw_only=True):
    """In lists; the kind is the annotation `exec`."""

    binary: bool


class Limits(msgspec.Struct, kw_only=True):
    """What one run may use."""

    timeout: Timeout
    memory: Memory
    logs: Logs
    concurrency: Concurrency
    instances: Instances | UnsetType = UNSET


class LimitsPut(msgspec.Struct, kw_only=True):
    """What is left out is the default, or stays as it is."""

    timeout: Timeout | UnsetType = UNSET
    memory: Memory | UnsetType = UNSET
    logs: Logs | UnsetType = UNSET
    concurrency: Concurrency | UnsetType = UNSET
    instances: Instances | UnsetType = UNSET


class Action(Entity, kw_only=True):
    """An action."""

    exec: Exec
    parameters: list[KeyValue]
    limits: Limits
    binding: Annotated[str, Meta(description="without code: the binding that it was found through")] | UnsetType = UNSET


class ActionSummary(Entity, kw_only=True):
    """An action as lists show it: neither code nor parameters."""

    exec: ExecSummary
    limits: Limits


class ActionPut(EntityPut, kw_only=True):
    """An action to create or to change. Annotations are merged by key, parameters replaced as a whole."""

    exec: Annotated[Exec, Meta(description="required of a new one")] | UnsetType = UNSET
    parameters: list[KeyValue] | UnsetType = UNSET
    limits: LimitsPut | UnsetType = UNSET
    removed: Annotated[list[str], Meta(description="keys of annotations to remove")] | UnsetType = msgspec.field(
        name="delAnnotations", default=UNSET
    )


# ── packages ────────────────────────────────────────────────────────────────────────────────────────────────────


class Binding(msgspec.Struct, kw_only=True):
    """The package that is bound; of what is no binding an object without fields."""

    namespace: Name | UnsetType = UNSET
    name: Name | UnsetType = UNSET


class PackageSummary(Entity, kw_only=True):
    """A package or binding as lists show it."""

    binding: Annotated[Any, Meta(description="`false`, or of a binding what it binds: `{namespace, name}`")]


class Package(Entity, kw_only=True):
    """A package or binding."""

    binding: Binding
    parameters: list[KeyValue]


class PackagedAction(msgspec.Struct, kw_only=True):
    """An action as its package shows it."""

    name: Name
    version: Version
    annotations: list[KeyValue]


class PackageContent(Package, kw_only=True):
    """A package or binding with what is in it."""

    actions: list[PackagedAction]
    feeds: Annotated[list[PackagedAction], Meta(description="those with the annotation `feed`")]


class Connection(msgspec.Struct, kw_only=True):
    """A WebSocket connection, by its id."""

    connection: str


class SiteFile(msgspec.Struct, kw_only=True):
    """A file of a site; `size` in bytes, `digest` is its SHA-256."""

    path: str
    size: int
    digest: str
    type: str


class Site(msgspec.Struct, kw_only=True):
    """The files of a package's site, and the path below which they are served."""

    namespace: Name
    name: Name
    path: str
    files: list[SiteFile]


class PackagePut(EntityPut, kw_only=True):
    """A package or binding to create or to change. Parameters and annotations are replaced as a whole."""

    binding: Binding | UnsetType = UNSET
    parameters: list[KeyValue] | UnsetType = UNSET


# ── triggers, rules ─────────────────────────────────────────────────────────────────────────────────────────────


class RuleLink(msgspec.Struct, kw_only=True):
    """A rule as its trigger knows it."""

    action: QualifiedName
    status: RuleState


class TriggerSummary(Entity, kw_only=True):
    """A trigger as lists show it."""


class Trigger(Entity, kw_only=True):
    """A trigger."""

    parameters: list[KeyValue]
    limits: Annotated[dict[str, Any], Meta(description="has no fields")]
    rules: Annotated[dict[str, RuleLink], Meta(description="by `ns/rule`")] | UnsetType = UNSET


class TriggerPut(EntityPut, kw_only=True):
    """A trigger to create or to change. Parameters and annotations are replaced as a whole."""

    parameters: list[KeyValue] | UnsetType = UNSET


class RuleSummary(Entity, kw_only=True):
    """A rule as lists show it: without its status."""

    trigger: QualifiedName
    action: QualifiedName


class Rule(RuleSummary, kw_only=True):
    """A rule: this trigger runs that action."""

    status: RuleState


class RulePut(EntityPut, kw_only=True):
    """A rule to create or to change; a new one needs both names."""

    trigger: Reference | UnsetType = UNSET
    action: Reference | UnsetType = UNSET


class RuleStatus(msgspec.Struct, kw_only=True):
    """Whether a rule shall run its action."""

    status: RuleState


# ── activations ─────────────────────────────────────────────────────────────────────────────────────────────────


class Accepted(msgspec.Struct, kw_only=True, rename="camel"):
    """What was begun and is not waited for."""

    activation_id: Id


class Response(msgspec.Struct, kw_only=True):
    """What an activation came to."""

    status: Outcome
    success: bool
    result: Any = UNSET
    size: Annotated[int, Meta(description="characters of the container's answer", ge=0)] | UnsetType = UNSET


class Activation(msgspec.Struct, kw_only=True, rename="camel"):
    """The record of an activation; a trigger's has neither `end` nor `duration`."""

    namespace: Annotated[str, Meta(description="the one that invoked it")]
    name: Name
    version: Version
    subject: str
    activation_id: Id
    start: Instant
    end: Instant | UnsetType = UNSET
    duration: Milliseconds | UnsetType = UNSET
    cause: Annotated[str, Meta(description="the sequence's activation", pattern=ID)] | UnsetType = UNSET
    response: Response
    logs: list[str]
    annotations: list[KeyValue]
    publish: bool


class ActivationSummary(msgspec.Struct, kw_only=True, rename="camel"):
    """An activation as lists show it."""

    namespace: str
    name: Name
    version: Version
    publish: bool
    annotations: list[KeyValue]
    activation_id: Id
    start: Instant
    end: Instant | UnsetType = UNSET
    duration: Milliseconds | UnsetType = UNSET
    cause: Annotated[str, Meta(description="the sequence's activation", pattern=ID)] | UnsetType = UNSET
    status_code: Annotated[int, Meta(description="0 success to 3 whisk internal error", ge=0, le=3)] | UnsetType = UNSET


class ActivationLogs(msgspec.Struct, kw_only=True):
    """What an activation printed: time, stream and text in each line."""

    logs: list[str]


# ── later ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Delayed(msgspec.Struct, kw_only=True, rename="camel"):
    """What was accepted and is not due yet: a run of an action, or a fire of a trigger."""

    activation_id: Id
    due: Instant
    action: Annotated[str, Meta(description="`ns[/pkg]/name`")] | UnsetType = UNSET
    trigger: Annotated[str, Meta(description="`ns/name`")] | UnsetType = UNSET
    retry_of: Annotated[str, Meta(description="the first attempt", pattern=ID)] | UnsetType = UNSET
    attempt: Annotated[int, Meta(description="the first is 1", ge=1)] | UnsetType = UNSET


class FeedReason(msgspec.Struct, kw_only=True, rename="camel"):
    """Why a feed is disabled."""

    kind: Annotated[str, Meta(description="`AUTO`, or `ADMIN`")]
    message: str
    status_code: int | msgspec.UnsetType = msgspec.UNSET


class FeedStatus(msgspec.Struct, kw_only=True, rename="camel"):
    """How a feed stands. Times are milliseconds since 1970."""

    active: bool
    date_changed: int
    date_changed_iso: Annotated[str, Meta(description="the same as text")] = msgspec.field(name="dateChangedISO")
    state: Annotated[str, Meta(description="starting, live, retrying, paused or disabled")]
    fired: Annotated[int, Meta(description="events since it was made")]
    refused: Annotated[int, Meta(description="events that could not be fired: too large, or no JSON")]
    reason: FeedReason | msgspec.UnsetType = msgspec.UNSET
    last_event: int | msgspec.UnsetType = msgspec.UNSET
    next_fire: int | msgspec.UnsetType = msgspec.UNSET
    lag: Annotated[int, Meta(description="events that wait at the source, where it tells")] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    last_error: str | msgspec.UnsetType = msgspec.UNSET
    last_error_at: int | msgspec.UnsetType = msgspec.UNSET


class FeedState(msgspec.Struct):
    """A trigger's feed."""

    config: Annotated[dict[str, Any], Meta(description="what it was asked for; secrets are masked")]
    status: FeedStatus
    feed: Annotated[str, Meta(description="`package/feed`, as it is called in whisk.system")]


class NewFeed(msgspec.Struct):
    """What a feed's action hands on."""

    feed: Annotated[str, Meta(description="`package/feed`; not needed for UPDATE")] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] = {}


class DeadLetter(msgspec.Struct, kw_only=True, rename="camel"):
    """An activation that failed for good."""

    activation_id: Annotated[str, Meta(description="the last attempt", pattern=ID)]
    first: Annotated[str, Meta(description="the first attempt", pattern=ID)]
    attempts: Annotated[int, Meta(ge=1)]
    action: Annotated[str, Meta(description="`ns[/pkg]/name`")]
    at: Instant
    status: Annotated[int, Meta(description="0 success to 3 whisk internal error", ge=0, le=3)]
    result: Any
    params: Annotated[Any, Meta(description="what it was given")]
    target: Annotated[str | None, Meta(description="the trigger or action that was told")]


# ── namespaces and the server ───────────────────────────────────────────────────────────────────────────────────


class Api(msgspec.Struct, kw_only=True, rename="camel"):
    """An API of the gateway; its fields `namespace` and `tenantId` say nothing."""

    namespace: str
    tenant_id: str
    gw_api_activated: bool
    gw_api_url: Annotated[str, Meta(description="where it answers")]
    apidoc: Annotated[dict[str, Any], Meta(description="its document, Swagger 2.0")]


class ListedApi(msgspec.Struct):
    """An entry of the list of APIs; `id` and `key` say nothing."""

    id: str
    key: str
    value: Api


class Apis(msgspec.Struct):
    """APIs of a namespace, by base path."""

    apis: list[ListedApi]


class NewApi(msgspec.Struct):
    """What makes an API, or changes it."""

    apidoc: Annotated[
        dict[str, Any],
        Meta(
            description="one operation (`gatewayBasePath`, `gatewayPath`, `gatewayMethod`, `action`), or `swagger`: a "
            "whole document in place of what is there, Swagger 2.0 or OpenAPI 3; and `namespace`, which may be `_`"
        ),
    ]


class ApiError(msgspec.Struct):
    """Why the management of APIs refuses."""

    error: str


class GatewayError(msgspec.Struct):
    """What the gateway's own refusals are."""

    status: int
    message: Annotated[str, Meta(description="`Error: ` and a sentence")]


class Subscription(msgspec.Struct):
    """A client of an API, which brings its id, and its secret where it was given one."""

    client_id: Annotated[str, Meta(min_length=1, max_length=512)]
    artifact_id: Annotated[str, Meta(description="the API: its base path; only a tenant's client needs none")] | (
        msgspec.UnsetType
    ) = msgspec.UNSET
    client_secret: Annotated[str, Meta(min_length=1, max_length=512)] | msgspec.UnsetType = msgspec.UNSET
    scope: Annotated[str, Meta(description="`api`, `resource` or `tenant`")] | msgspec.UnsetType = msgspec.UNSET
    resource: Annotated[str, Meta(description="a path of the API, for its scope")] | msgspec.UnsetType = msgspec.UNSET


class Artifact(msgspec.Struct):
    """An API of the gateway: its id, where it answers, and its Swagger document."""

    artifact_id: str
    managed_url: str
    open_api_doc: dict[str, Any]


class Tenant(msgspec.Struct):
    """A namespace, as the gateway names it; there are no instances of one."""

    namespace: str
    instance: str
    id: str | msgspec.UnsetType = msgspec.UNSET


class FirstApi(msgspec.Struct, kw_only=True, rename="camel"):
    """An API in the gateway's first form."""

    name: str
    base_path: str
    tenant_id: str
    resources: Annotated[
        dict[str, dict[str, Any]],
        Meta(
            description="by path: `cors`; `operations` by verb: `backendMethod`, `backendUrl`, `policies`, `security`"
        ),
    ]
    id: str | msgspec.UnsetType = msgspec.UNSET
    tenant_namespace: str | msgspec.UnsetType = msgspec.UNSET
    tenant_instance: str | msgspec.UnsetType = msgspec.UNSET
    managed_url: str | msgspec.UnsetType = msgspec.UNSET


class FirstSubscription(msgspec.Struct, kw_only=True, rename="camel"):
    """A key, and what it opens."""

    key: Annotated[str, Meta(min_length=1, max_length=512)]
    scope: Annotated[str, Meta(description="`tenant`, `resource` or `api`")]
    tenant_id: str
    resource: Annotated[str, Meta(description="a path with its base path")] | msgspec.UnsetType = msgspec.UNSET
    api_id: str | msgspec.UnsetType = msgspec.UNSET


class Subscribed(msgspec.Struct):
    """A sentence."""

    message: str


class NamespaceLimits(msgspec.Struct, kw_only=True, rename="camel"):
    """What a namespace may do. Memory and logs are MB, timeouts milliseconds, sizes texts such as `1048576 B`."""

    invocations_per_minute: Count
    concurrent_invocations: Count
    fires_per_minute: Count
    min_action_memory: Count
    max_action_memory: Count
    min_action_logs: Count
    max_action_logs: Count
    min_action_timeout: Count
    max_action_timeout: Count
    min_action_concurrency: Count
    max_action_concurrency: Count
    max_parameter_size: str
    max_action_instances: Count
    allowed_kinds: list[str] | UnsetType = UNSET
    store_activations: bool | UnsetType = UNSET
    max_payload_size: str | UnsetType = UNSET
    truncation_size: str | UnsetType = UNSET
    warmed_container_keeping_count: Count | UnsetType = UNSET
    warmed_container_keeping_timeout: str | UnsetType = UNSET
    retention_days: Annotated[float, Meta(description="of records; 0: whatever their age")] | UnsetType = UNSET


class Runtime(msgspec.Struct, kw_only=True, rename="camel"):
    """A kind of actions."""

    kind: str
    image: str
    deprecated: bool
    default: Annotated[bool, Meta(description="what `<family>:default` is")]
    attached: bool
    require_main: bool


class ServerInfo(msgspec.Struct, kw_only=True):
    """What this server is and what it can run."""

    description: str
    support: dict[str, str]
    api_paths: list[str]
    limits: Annotated[dict[str, int], Meta(description="durations in milliseconds, memory and logs in bytes")]
    runtimes: Annotated[dict[str, list[Runtime]], Meta(description="by family")]


class ApiInfo(msgspec.Struct, kw_only=True):
    """What this API is."""

    description: str
    api_version: str
    api_version_path: str
    build: str
    buildno: str
    swagger_paths: dict[str, str]
