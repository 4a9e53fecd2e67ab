"""What the gateway makes of a namespace's APIs: which operation a request is for, and what is done with it. Pure.

A document is read once, leniently: what it says in a wrong way counts as not said, but a way in that is said wrongly
lets nobody in. Source: the Swagger extensions that OpenWhisk's gateway reads (`x-gateway-*`, else `x-ibm-*`), and its
look-up of resources; `x-visp-*` are our own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import quote, unquote, urlsplit

import msgspec

from visp.entity.api import ACTION, METHODS, PATH_MARK, configuration
from visp.entity.mapping import Change, inserted, parse_changes
from visp.entity.names import is_name
from visp.entity.network import is_domain
from visp.entity.tokens import TokenRule, parse_token_rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from visp.entity.api import Api

KEEP = "keep"
WEB = "/api/v1/web/"
"""What the path of a web action begins with: it is this server's own, whatever host is named."""
SEGMENTS_LIMIT = 100
"""A path of more is of no API: look-up goes through its prefixes."""
UNIT_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
KEY_HEADER, ID_HEADER, SECRET_HEADER = "x-api-key", "x-client-id", "x-client-secret"
CACHED_S_MOST = 86_400
SCOPES = API_SCOPE, RESOURCE_SCOPE, TENANT_SCOPE = "api", "resource", "tenant"
SCOPE = "x-visp-scope"
DOMAINS, DOMAINS_LIMIT = "x-visp-domains", 100
ROUTING, ROUTING_HEADER = "x-visp-backend-routing", "x-cf-forwarded-url"
SECURITY = "x-visp-security"
RATE_LIMIT = "x-visp-rate-limit"

_KEPT_IN_PATH = "/:@!$&'()*+,;=~%"
_KEPT_IN_QUERY = _KEPT_IN_PATH + "?[]"

BY_NAME, BY_UUID = "/gw/", "/api/"

_PARAMETER = re.compile(r"\{([A-Za-z0-9]+)\}")
_TENANT = re.compile(rf"{BY_UUID}([0-9A-Fa-f]{{8}}(?:-[0-9A-Fa-f]{{4}}){{3}}-[0-9A-Fa-f]{{12}})(?=/|\Z)")


# ── where a path leads ──────────────────────────────────────────────────────────────────────────────────────────


class Place(msgspec.Struct, frozen=True):
    """Whose APIs a path is among, by name or by uuid, and what follows, as it came. An empty name is nobody's."""

    name: str
    is_uuid: bool
    rest: str


def parse_place(path: str) -> Place | None:
    """Of a path as it came; None for what is not the gateway's: below `/api/` all but uuids is OpenWhisk's server."""
    if path.startswith(BY_NAME):
        given, slash, rest = path[len(BY_NAME) :].partition("/")
        name = unquote(given, errors="surrogateescape")
        return Place(name if is_name(name) else "", False, slash + rest)
    found = _TENANT.match(path)
    return None if found is None else Place(found[1], True, path[found.end() :])


def parse_domains(text: str) -> dict[str, str]:
    """Which namespace has which domain: `shop.example.com alice; api.example.org bob`; raises `ValueError`."""
    found: dict[str, str] = {}
    for entry in filter(None, (part.split() for part in text.split(";"))):
        if len(entry) != 2 or not is_domain(entry[0]) or not is_name(entry[1]):
            raise ValueError(f"'{' '.join(entry)}' is no domain in lower case and a namespace")
        if entry[0] in found:
            raise ValueError(f"'{entry[0]}' is there twice")
        found[entry[0]] = entry[1]
    return found


def domain_of(host: str) -> str:
    """The name of a header `Host`, in lower case and without port."""
    name, colon, port = host.lower().rpartition(":")
    return (name if colon and port.isdigit() else host.lower()).removesuffix(".")


# ── what is compiled ────────────────────────────────────────────────────────────────────────────────────────────


class Target(msgspec.Struct, frozen=True):
    """`path` is that of a web action's address, whatever host was named; `takes_path`: the whole path goes on to it.

    With an `origin` (`https://host[:port]`) it is elsewhere, and `path` and `query` are as they are sent.
    """

    path: str
    takes_path: bool = False
    origin: str = ""
    query: str = ""


class Split(msgspec.Struct, frozen=True):
    """So many of a hundred requests go to another target."""

    target: Target
    percent: float


class KeyCheck(msgspec.Struct, frozen=True):
    """An API key, in a header or a field of the query of this name; `scope`: whose clients may pass, one of `SCOPES`.

    With a scope that there is not nobody passes.
    """

    header: str = KEY_HEADER
    scope: str = API_SCOPE


class SecretCheck(msgspec.Struct, frozen=True):
    """A client's id and secret, likewise."""

    id_header: str = ID_HEADER
    secret_header: str = SECRET_HEADER
    scope: str = API_SCOPE


Check = KeyCheck | SecretCheck | TokenRule


class Routing(msgspec.Struct, frozen=True):
    """A request may name its target itself, in a header: at one of these hosts (`host` or `host:port`, lower case)."""

    header: str
    hosts: frozenset[str]


class Gap(msgspec.Struct, frozen=True):
    """The time between two calls of what `scope` says; `by_key`: of each subscription of its own."""

    gap_ms: int
    scope: str
    by_key: bool


class Quota(msgspec.Struct, frozen=True):
    """`rate` calls in a window of the wall clock; `by_key`: for each subscription of its own, and for those without."""

    rate: int
    window_s: int
    by_key: bool = False


class Keeping(msgspec.Struct, frozen=True):
    """Answers to GET are kept; `by_credentials`: those to requests that bring some too, each caller's for itself."""

    seconds: int
    by_credentials: bool = False
    vary: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One verb of a resource. `verb` is upper case, `backend_verb` None where the request's own is kept.

    Without a target it fails when it is called.
    """

    id: str
    verb: str
    target: Target | None
    backend_verb: str | None = None
    split: Split | None = None
    changes: tuple[Change, ...] = ()
    quotas: tuple[Quota, ...] = ()
    gaps: tuple[Gap, ...] = ()
    keeping: Keeping | None = None
    routing: Routing | None = None
    checks: tuple[Check, ...] | None = None
    """In place of the API's, where the operation has its own."""

    @property
    def is_inside(self) -> bool:
        """Whether whatever it calls is a web action of this server."""
        targets = (self.target, None if self.split is None else self.split.target)
        return self.routing is None and not any(target is not None and target.origin for target in targets)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all of an API. `has_cors` is None where its document does not say; `gap_ms`: the time between two
    calls of a subscription (of all who have none) that the original's rate limit asks for.
    """

    base_path: str
    title: str
    has_cors: bool | None = None
    checks: tuple[Check, ...] = ()
    gap_ms: int = 0
    quotas: tuple[Quota, ...] = ()
    is_shown: bool = True
    """Whether it has a page."""
    domains: frozenset[str] = frozenset()
    """Those that it answers at, where an operator gave them to its namespace."""
    document: dict[str, Any] = {}


class Resource(msgspec.Struct, frozen=True):
    """`path` begins with the base path; operations by upper-case verb."""

    path: str
    plan: Plan
    operations: dict[str, Operation]

    def checks(self, verb: str) -> tuple[Check, ...]:
        """What a call must pass; of a verb that there is not, the API's."""
        operation = self.operations.get(verb)
        return self.plan.checks if operation is None or operation.checks is None else operation.checks


class Found(msgspec.Struct, frozen=True):
    """A resource, what of the path followed it (as it came), and the values of its parameters."""

    resource: Resource
    rest: str = ""
    values: dict[str, str] = {}


# ── compiling ───────────────────────────────────────────────────────────────────────────────────────────────────


def compile_api(api: Api) -> tuple[Plan, list[Resource]]:
    document = api.document
    base = "" if api.base_path == "/" else api.base_path
    told_to_gateway = configuration(document)
    plan = Plan(
        base_path=api.base_path,
        title=api.title,
        has_cors=_claim(_object(told_to_gateway.get("cors")).get("enabled")),
        checks=tuple(_checks(document)),
        gap_ms=_gap_ms(document.get("x-gateway-rate-limit", document.get("x-ibm-rate-limit"))),
        quotas=_quotas(document.get("x-visp-quota")),
        is_shown=document.get("x-visp-docs") is not False,
        domains=frozenset(
            name.lower() for name in _list(document.get(DOMAINS))[:DOMAINS_LIMIT] if isinstance(name, str)
        ),
        document=document,
    )
    invokes, common, changes = _assembly(_list(_object(told_to_gateway.get("assembly")).get("execute")))
    common_changes = (*common, *parse_changes(document.get("x-visp-mapping")))
    keeping = _keeping(document.get("x-visp-cache"))
    routing = _routing(document.get(ROUTING))
    resources = []
    for path, verbs in _object(document.get("paths")).items():
        if path.startswith("x-"):
            continue
        operations = {}
        for verb, told in _object(verbs).items():
            if verb.lower() not in METHODS or not isinstance(told, dict):
                continue
            id = _text(told.get("operationId"))
            target, backend_verb = _backend(invokes.get(id) or invokes.get(None), told, path)
            operations[verb.upper()] = Operation(
                id=id,
                verb=verb.upper(),
                target=target,
                backend_verb=backend_verb,
                split=_split(told.get("x-visp-split")),
                changes=(*common_changes, *changes.get(id, ()), *parse_changes(told.get("x-visp-mapping"))),
                quotas=_quotas(told.get("x-visp-quota")),
                gaps=_gaps(told.get(RATE_LIMIT)),
                keeping=_keeping(told["x-visp-cache"]) if "x-visp-cache" in told else keeping,
                routing=_routing(told[ROUTING]) if ROUTING in told else routing,
                checks=_own_checks(told[SECURITY]) if SECURITY in told else None,
            )
        resources.append(Resource(base + (path if path.startswith("/") else f"/{path}"), plan, operations))
    return plan, resources


Invoke = dict[str, Any]


def _assembly(policies: Sequence[Any]) -> tuple[dict[str | None, Invoke], tuple[Change, ...], dict[str, list[Change]]]:
    """What is invoked, by id of the operation (None: by all); the changes of all, and those of single operations."""
    invokes: dict[str | None, Invoke] = {}
    common: list[Change] = []
    own: dict[str, list[Change]] = {}
    is_routed = False
    for policy in map(_object, policies):
        common += inserted(_object(policy.get("set-variable")).get("actions"))
        if is_routed:
            continue
        if "invoke" in policy:
            is_routed = True
            invokes[None] = _object(policy["invoke"])
        elif "operation-switch" in policy:
            is_routed = True
            for case in map(_object, _list(_object(policy["operation-switch"]).get("case"))):
                steps = [_object(step) for step in _list(case.get("execute"))]
                invoke = next((_object(step["invoke"]) for step in steps if "invoke" in step), None)
                for id in _list(case.get("operations")):
                    if not isinstance(id, str):
                        continue
                    if invoke is not None:
                        invokes.setdefault(id, invoke)
                    for step in steps:
                        own.setdefault(id, []).extend(inserted(_object(step.get("set-variable")).get("actions")))
    return invokes, tuple(common), own


def _backend(invoke: Invoke | None, told: dict[str, Any], path: str) -> tuple[Target | None, str | None]:
    """Target and verb; where no policy is the operation's, the web action that it names itself."""
    if invoke is None:
        url = _text(_object(told.get(ACTION)).get("url"))
        if url.endswith(".http") and _PARAMETER.search(path):
            url += PATH_MARK
        return parse_target(url), None
    verb = _text(invoke.get("verb")) or KEEP
    return parse_target(_text(invoke.get("target-url"))), None if verb.lower() == KEEP else verb.upper()


def parse_target(url: str, *, is_elsewhere: bool = False) -> Target | None:
    """None for what is neither a web action nor at an address of http; an address with a password in it is none.

    `is_elsewhere`: a web action is none of this server's.
    """
    takes_path = url.endswith(PATH_MARK)
    try:
        parts = urlsplit(url.removesuffix(PATH_MARK))
        port = parts.port
    except ValueError:
        return None
    if parts.path.startswith(WEB) and not is_elsewhere:
        return Target(parts.path, takes_path)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        return None
    named = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{named}" + ("" if port is None else f":{port}")
    return Target(quote(parts.path, safe=_KEPT_IN_PATH), takes_path, origin, quote(parts.query, safe=_KEPT_IN_QUERY))


def routed(routing: Routing, given: str) -> Target | None:
    """The target that a request names, None where it may not. It is elsewhere, whatever its path: what the document
    adds for its own target is nobody else's action's.
    """
    url = given if "://" in given else f"http://{given}"
    target = parse_target(url, is_elsewhere=True)
    if target is None or target.takes_path:
        return None
    place = target.origin.partition("://")[2].lower()
    host = place if place.endswith("]") else place.rpartition(":")[0] or place
    return target if not routing.hosts.isdisjoint((place, host)) else None


def url_of(target: Target, follows: str, query: str) -> str | None:
    """Where a request for a target elsewhere goes; `follows` and `query` as they came. None where what follows would
    lead out of the target's own path.
    """
    segments = unquote(follows).replace("\\", "/").split("/")
    if "." in segments or ".." in segments:
        return None
    path = target.path + quote(follows, safe=_KEPT_IN_PATH, encoding="latin-1")
    asked = "&".join(filter(None, (target.query, quote(query, safe=_KEPT_IN_QUERY, encoding="latin-1"))))
    return target.origin + (path or "/") + (f"?{asked}" if asked else "")


def _checks(document: dict[str, Any]) -> Iterator[Check]:
    definitions = _object(document.get("securityDefinitions"))
    if definitions.keys() == {"client_id", "client_secret"}:
        names = (_text(_object(definitions[name]).get("name")).lower() for name in ("client_id", "client_secret"))
        id, secret = names
        yield SecretCheck(id or ID_HEADER, secret or SECRET_HEADER, _scope(definitions["client_id"]))
        return
    for name, told in definitions.items():
        kind = _object(told).get("type")
        if kind == "apiKey":
            yield KeyCheck(_text(told.get("name")).lower() or KEY_HEADER, _scope(told))
        elif kind in ("oauth2", "openIdConnect"):
            yield parse_token_rule(name, told)


def _scope(told: Any) -> str:
    return _text(_object(told).get(SCOPE, API_SCOPE))


def _own_checks(told: Any) -> tuple[Check, ...]:
    """Of an operation, as the first form of the gateway's documents has them; what is not understood lets nobody in."""
    if not isinstance(told, list):
        return (TokenRule(name=""),)
    return tuple(_own_check(_object(one)) for one in told)


def _own_check(told: dict[str, Any]) -> Check:
    kind, scope = told.get("type"), _text(told.get("scope", API_SCOPE))
    if kind == "apiKey":
        return KeyCheck((_text(told.get("name")) or _text(told.get("header"))).lower() or KEY_HEADER, scope)
    if kind == "clientSecret":
        names = (_text(told.get(name)).lower() for name in ("idFieldName", "secretFieldName"))
        id, secret = names
        return SecretCheck(id or ID_HEADER, secret or SECRET_HEADER, scope)
    if kind == "oauth2":
        return parse_token_rule(_text(told.get("provider")), told)
    return TokenRule(name="")


def _routing(told: Any) -> Routing | None:
    fields = _object(told)
    hosts = frozenset(host.lower() for host in _list(fields.get("whitelist")) if isinstance(host, str))
    return Routing(_text(fields.get("header")).lower() or ROUTING_HEADER, hosts) if fields else None


def _gaps(told: Any) -> tuple[Gap, ...]:
    """Rate limits of one operation: `rate` calls in `interval` seconds, `scope`, `subscription`."""
    out = []
    for limit in map(_object, told if isinstance(told, list) else [told]):
        rate, interval, scope = limit.get("rate"), limit.get("interval", 60), limit.get("scope", API_SCOPE)
        if _is_number(rate) and _is_number(interval) and rate > 0 and interval > 0 and scope in SCOPES:
            out.append(Gap(round(interval * 1000 / rate), scope, by_key=limit.get("subscription") in (True, "true")))
    return tuple(out)


def _gap_ms(limits: Any) -> int:
    first = _object(limits[0]) if isinstance(limits, list) and limits else {}
    rate, units = first.get("rate"), first.get("units", 1)
    if not _is_number(rate) or not _is_number(units) or rate <= 0 or units <= 0:
        return 0
    return round(UNIT_S.get(_text(first.get("unit")), 60) * units * 1000 / rate)


def _quotas(told: Any) -> tuple[Quota, ...]:
    out = []
    for quota in map(_object, told if isinstance(told, list) else [told]):
        rate, units = quota.get("rate"), quota.get("units", 1)
        unit_s = UNIT_S.get(_text(quota.get("unit")) or "minute")
        if _is_count(rate) and _is_count(units) and units and unit_s:
            out.append(Quota(rate, unit_s * units, by_key=quota.get("by") == "key"))
    return tuple(out)


def _keeping(told: Any) -> Keeping | None:
    fields = _object(told)
    seconds = fields.get("seconds")
    if not _is_count(seconds) or not seconds:
        return None
    vary = sorted({name.lower() for name in _list(fields.get("vary")) if isinstance(name, str)})
    return Keeping(min(seconds, CACHED_S_MOST), by_credentials=fields.get("by") == "credentials", vary=tuple(vary))


def _split(told: Any) -> Split | None:
    fields = _object(told)
    target, percent = parse_target(_text(fields.get("target-url"))), fields.get("percent")
    if target is None or not _is_number(percent):
        return None
    return Split(target, min(max(float(percent), 0.0), 100.0))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _claim(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40


# ── looking up ──────────────────────────────────────────────────────────────────────────────────────────────────


class _Pattern(msgspec.Struct, frozen=True):
    """A path with parameters: what stands before, between and behind them, and their names."""

    literals: tuple[str, ...]
    names: tuple[str, ...]
    resource: Resource

    def values(self, path: str) -> dict[str, str] | None:
        """Each parameter is one character or more, a slash too; earlier ones are as short as they can be."""
        if not path.startswith(self.literals[0]):
            return None
        at, out = len(self.literals[0]), []
        for literal in self.literals[1:-1]:
            found = path.find(literal, at + 1)
            if found < 0:
                return None
            out.append(path[at:found])
            at = found + len(literal)
        end = len(path) - len(self.literals[-1])
        if end <= at or not path.endswith(self.literals[-1]):
            return None
        return dict(zip(self.names, (*out, path[at:end]), strict=True))


class Table:
    """The resources of a namespace.

    Paths without parameters are looked up by themselves, those with some by the segments before the first; of several
    the one with most text of its own is taken. Where two APIs have a path in common the longer base path wins.
    """

    def __init__(self, apis: Iterable[Api]) -> None:
        self.plans: dict[str, Plan] = {}
        self.domains: dict[str, str] = {}
        """The base path of the API that has a domain: of several that name it, the shortest."""
        self.resources: dict[str, Resource] = {}
        """By path, as their documents write it."""
        self._exact: dict[str, Resource] = {}
        self._patterns: dict[str, list[_Pattern]] = {}
        for api in sorted(apis, key=lambda api: len(api.base_path)):
            plan, resources = compile_api(api)
            self.plans[api.base_path] = plan
            for domain in plan.domains:
                self.domains.setdefault(domain, api.base_path)
            for resource in resources:
                self._add(resource)
        for patterns in self._patterns.values():
            patterns.sort(key=lambda pattern: (-sum(map(len, pattern.literals)), pattern.resource.path))

    def _add(self, resource: Resource) -> None:
        self.resources[resource.path] = resource
        pieces = _PARAMETER.split(resource.path)
        if len(pieces) == 1:
            self._exact[resource.path] = resource
            return
        pattern = _Pattern(tuple(pieces[::2]), tuple(pieces[1::2]), resource)
        start = pieces[0][: pieces[0].rindex("/") + 1]
        beside = self._patterns.setdefault(start, [])
        beside[:] = [other for other in beside if other.literals != pattern.literals]
        beside.append(pattern)

    def find(self, path: str, *, is_whole: bool = False) -> Found | None:
        """The resource of a path as it came, or of the longest prefix that has one; `is_whole`: of the path itself."""
        if path.count("/") > SEGMENTS_LIMIT:
            return None
        end = len(path)
        while end >= 0:
            found = self._at(unquote(path[:end]), path[end:])
            if found is not None or is_whole:
                return found
            end = path.rfind("/", 0, end)
        return None

    def _at(self, path: str, rest: str) -> Found | None:
        resource = self._exact.get(path) or self._exact.get(f"{path}/")
        if resource is not None:
            return Found(resource, rest)
        at = path.rfind("/")
        while at >= 0:
            for pattern in self._patterns.get(path[: at + 1], ()):
                values = pattern.values(path)
                if values is not None:
                    return Found(pattern.resource, rest, values)
            at = path.rfind("/", 0, at)
        return None
