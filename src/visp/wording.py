"""Every sentence a user can see. Those that clients of Apache OpenWhisk read are its own, to the letter.

Source: the REST behaviour of Apache OpenWhisk (its `Messages` object, recorded answers of a standalone server),
misspellings included. Sentences of our own name the limit that was met and how to change it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# ── identity and rights ─────────────────────────────────────────────────────────────────────────────────────────
AUTH_CHALLENGE = 'Basic realm="OpenWhisk secure realm",charset=UTF-8'
AUTH_MISSING = "The resource requires authentication, which was not supplied with the request"
AUTH_INVALID = "The supplied authentication is invalid"


def not_authorized(resources: Iterable[str]) -> str:
    return f"The supplied authentication is not authorized to access '{', '.join(sorted(resources))}'."


def kind_not_authorized(kind: str) -> str:
    return f"The supplied authentication is not authorized to access actions of kind '{kind}'."


# ── routes and resources ────────────────────────────────────────────────────────────────────────────────────────
NOT_FOUND = "The requested resource does not exist."


def resource_missing(resource: str) -> str:
    return f"The requested resource '{resource}' does not exist."


UNKNOWN_ROUTE = "The requested resource could not be found."
ONLY_OPTIONS = "HTTP method not allowed, supported methods: OPTIONS"
WEB_METHODS = "HTTP method not allowed, supported methods: GET, DELETE, POST, PUT, HEAD, OPTIONS, PATCH"
WEB_NOT_FOUND = "The requested resource does not exist."
WEB_UNAUTHORIZED = "Authentication is possible but has failed or not yet been provided."
WEB_FAILED = "There was an error processing your request."
WEB_NOT_READY = "Response not yet ready."
NO_SUCH_PROPERTY = "Response does not include requested property."
UNKNOWN_CONTENT_TYPE = "Response did not specify a known content-type."
TYPE_MISMATCH = "Response type in header did not match generated content type."


def not_of_type(kind: str) -> str:
    return f"Response is not valid '{kind}'."


def not_acceptable(kind: str) -> str:
    return f"Resource representation is only available with these types:\n{kind}"


SUBJECT_SHORT = "Subject name must be at least 5 characters"
SUBJECT_BLOCKED = "The subject you want to edit is blocked"
NAMESPACE_EMPTY = "Namespace must not be empty"
NAMESPACE_EXISTS = "Namespace already exists"
NO_SUCH_SUBJECT = "Subject id is not recognized"
UUID_INVALID = "authorization id is not a valid UUID"
UUID_TAKEN = "authorization id belongs to another namespace"
KEY_SHORT = "authorization key must be at least 64 characters long"


def key_long(length: int) -> str:
    return f"authorization key must be {length} characters long: no other is let in"


def no_limits(names: list[str], known: list[str]) -> str:
    return f"{', '.join(names)}: no such limit; there are {', '.join(known)}"


def no_subject(subject: str) -> str:
    return f'Failed to get subject (there is no "{subject}")'


def no_namespace_of(namespace: str, subject: str) -> str:
    return f'namespace "{namespace}" not found for "{subject}"'


def no_namespace_for(namespace: str, subject: str) -> str:
    return f'Namespace "{namespace}" does not exist for "{subject}"'


def no_identities(namespace: str) -> str:
    return f'no identities found for namespace "{namespace}"'


PACKAGE_NOT_BINDING = "Resource is a package and cannot be converted into a binding."
BINDING_TO_NOTHING = "Binding references a package that does not exist."
BINDING_TO_BINDING = "Cannot bind to another package binding."
BINDING_TO_OTHER = "Cannot bind to a resource that is not a package."
NOT_ON_BINDING = "Operation not permitted on package binding."


def package_reserved(name: str) -> str:
    return f"Package name '{name}' is reserved."


def package_not_empty(count: int) -> str:
    entities = "entity" if count == 1 else "entities"
    return f"Package not empty (contains {count} {entities}). Set force param or delete package contents."


def circular_binding(name: str) -> str:
    return f"Package binding '{name}' contains a circular reference."


def member_missing(member: str) -> str:
    return f"Object is missing required member '{member}'"


WRONG_COLLECTION = "Resource by this name exists but is not in this collection."
ALREADY_EXISTS = "resource already exists"
CONCURRENT_CHANGE = "Concurrent modification to resource detected."
CORRUPT = "Resource is corrupted and cannot be read."
INTERNAL = "There was an internal server error."
UNAVAILABLE = "The server is currently unavailable (because it is overloaded or down for maintenance)."
DISK_FULL = (
    "The platform's disk has no room for new work: free space below the data directory, or lower [retention] bytes."
)
LIMITS_INNER = "Inner entity level routes for limits are not yet implemented."


def too_many_waits(limit: int) -> str:
    return f"Too many requests wait for activations on this server (allowed: {limit}; setting [waits] at_once)."


BAD_SECONDS = "It must be a number of seconds, 0 or more."


def in_flight_full(limit: int) -> str:
    return f"Too many activations are in flight on this server (allowed: {limit}; setting [queue] activations)."


# ── the gateway's managed endpoints ─────────────────────────────────────────────────────────────────────────────
GATEWAY_NOT_FOUND = "Not found."
VERB_NOT_SUPPORTED = "Whoops. Verb not supported."
GATEWAY_FAILED = "Oops. Something went wrong. Check your URI and try again."
GATEWAY_UNAUTHORIZED = "Unauthorized"
NOT_WHITELISTED = "Dynamic backend host not part of whitelist."
SECRET_MISMATCH = "Secret mismatch or not subscribed to this api."
NO_BEARER = "No Authorization header provided"
TOKEN_REFUSED = "Token didn't work or provider doesn't support OpenID connect. "
TOKEN_UNSIGNED = "The token signature did not match any known JWK."
TOKEN_EXPIRED = "The access token has expired."
RATE_EXCEEDED = "Rate limit exceeded"
ARTIFACT_MISSING = "Missing artifact_id"
NO_SUBSCRIPTION = "Subscription doesn't exist"


def gateway_error(sentence: str) -> str:
    return f"Error: {sentence}"


GATEWAY_READY = "Status: Gateway ready."
REQUEST_BODY_MISSING = "Missing request body"
REQUEST_BODY_NO_OBJECT = "The request body is no JSON object."
RESOURCES_EMPTY = "Empty resources object."
NO_OPERATIONS = "Missing or empty field 'operations' or in resource path object."
SUBSCRIPTION_CREATED = "Subscription created."
SUBSCRIPTION_DELETED = "Subscription deleted."
SCOPE_INVALID = "Invalid scope"
TENANT_KEPT = "A tenant is a namespace: an operator deletes it."
CORS_OF_RESOURCES = "The cors of all resources must be the same, with 'true' or 'false' as origin."


def unknown_tenant(id: str) -> str:
    return f"Unknown tenant id {id}"


def operation_lacks(field: str, verb: str) -> str:
    return f"Missing field '{field}' for '{verb}' operation."


def backend_method_not_supported(method: str) -> str:
    return f"backendMethod '{method}' not supported."


def field_missing_in(what: str, fields: Sequence[str]) -> str:
    return f'Missing field in {what} object. Need "{fields[0]}" and "{fields[1]}".'


def invalid_in(field: str, what: str, valid: Sequence[str]) -> str:
    return f"Invalid {field} in {what} object. Valid: [" + ",".join(f'"{one}"' for one in valid) + "]"


def missing_from_body(field: str) -> str:
    return f'"{field}" missing from request body.'


def bad_scope(scopes: Sequence[str]) -> str:
    return f"A scope is one of {', '.join(scopes)}."


def unknown_resource(path: str) -> str:
    return f"Unknown resource {path}"


def gateway_field_missing(name: str) -> str:
    return f"Missing field '{name}' in request body."


def is_required(name: str) -> str:
    return f"{name} required"


def unknown_api(id: str) -> str:
    return f"Unknown API id {id}"


def subscribed(client: str, api: str) -> str:
    return f"Subscription '{client}' created for API '{api}'"


def bad_client(limit: int) -> str:
    return f"client_id and client_secret are texts of 1 to {limit} characters."


def too_many_subscriptions(limit: int) -> str:
    return f"The namespace has as many subscriptions as it may have: {limit}."


def gateway_body_too_large(limit: int) -> str:
    return f"The request body is larger than allowed: {limit} bytes."


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────
def malformed_content(reason: str) -> str:
    return f"The request content was malformed:\n{reason}"


def malformed_query(name: str, reason: str) -> str:
    return f"The query parameter '{name}' was malformed:\n{reason}"


def wrong_content_type(given: str, expected: str) -> str:
    return f"The request's Content-Type [{given}] is not supported. Expected:\n{expected}"


SOCKET_GONE = "There is no such connection (any more)."
SOCKET_OF_OTHERS = "A connection is its own namespace's alone."


def too_many_sockets(limit: int) -> str:
    return f"The namespace has {limit} WebSocket connections: no more are taken."


SITE_NO_ZIP = "The site is no zip archive that can be read."


def site_too_many(count: int, limit: int) -> str:
    return f"The site has {count} files: {limit} at most."


def site_too_large(limit_bytes: int) -> str:
    return f"The site's files are larger than {limit_bytes >> 20} MiB together."


def site_file_too_large(path: str, limit_bytes: int) -> str:
    return f"The site's file '{path[:200]}' is larger than {limit_bytes >> 20} MiB."


def site_path(path: str) -> str:
    return f"'{path[:200]}' is no path of a file in a site: relative, once, no link, without '..'."


END_OF_INPUT = "Unexpected end-of-input at input index 0 (line 1, position 1), expected JSON Value:\n\n^\n"
JSON_OBJECT_EXPECTED = "JSON object expected"


def unexpected_json(reason: str) -> str:
    return f"Unexpected content: {reason}"


def boolean_expected(given: str) -> str:
    return f"Expected JsBoolean, but got {given}"


def array_expected(given: str) -> str:
    return f"Expected Array as JsArray, but got {given}"


def string_expected(given: str) -> str:
    return f"Expected String as JsString, but got {given}"


def object_expected_in(field: str) -> str:
    return f"Object expected in field '{field}'"


def not_boolean(value: str) -> str:
    return f"'{value}' is not a valid Boolean value"


def limit_out_of_range(value: int, maximum: int, collection: str) -> str:
    return f"The value '{value}' is not in the range of 0 to {maximum} for {collection}."


def skip_out_of_range(value: int, collection: str) -> str:
    return f"The value '{value}' is not greater than or equal to 0 for {collection}."


def not_integer(value: str, collection: str) -> str:
    return f"The value '{value}' is not an integer for {collection}."


def bad_epoch(value: str) -> str:
    return f"Parameter is not a valid value for epoch seconds: {value}"


def bad_name_filter(value: str) -> str:
    return f"Parameter may be a 'simple' name or 'package-name/simple' name: {value}"


def bad_wait(maximum_ms: int) -> str:
    return f"Timeout must be number of milliseconds up to {maximum_ms}."


DOCS_WITH_COUNT = "The parameter 'docs' is not permitted with 'count'."


def too_large(field: str, size: int, limit: int) -> str:
    return f"{field} larger than allowed: {size} > {limit} bytes."


def body_too_large(size: str, limit: int) -> str:
    """The reason for a body over the server's own bound; `size` is a number, or `while streaming`."""
    return (
        f"EntityStreamSizeException: incoming entity size ({size}) exceeded size limit ({limit} bytes)! "
        "This may have been a parser limit (set via `pekko.http.[server|client].parsing.max-content-length`), "
        "a decoder limit (set via `pekko.http.routing.decode-max-size`), "
        "or a custom limit set with `withSizeLimit`."
    )


# ── requests that are no HTTP, or not ours to understand ────────────────────────────────────────────────────────
NOT_HTTP = "The request is not valid HTTP/1.1."
NOT_HTTP2 = "The request is not valid HTTP/2."
TARGET_NOT_PATH = "The request target must be a path of ASCII characters that begins with '/'."
HOST_NOT_SINGLE = "The request needs one Host header that names a host."
TRANSFER_NOT_CHUNKED = "The only transfer coding understood is 'chunked', once, in HTTP/1.1 and without Content-Length."
TOO_MANY_BODIES = "The server is receiving too much at once: try again later."
TOO_SLOW = "The request did not arrive in time."


def head_too_large(limit: int) -> str:
    return f"The head of the request is longer than allowed: {limit} bytes."


def uri_too_long(limit: int) -> str:
    return f"The URI is longer than allowed: {limit} bytes."


def too_many_fields(limit: int) -> str:
    return f"The query has more than {limit} parameters."


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────
NAME_ILLEGAL = "The name of the entity contains illegal characters."
NAMESPACE_ILLEGAL = "The namespace contains illegal characters."
NAME_INCOMPLETE = (
    "requirement failed: The fully qualified name of the entity must contain at least the namespace "
    "and the name of the entity."
)
ACTIVATION_ID_ILLEGAL = "The activation id is not valid."


def name_too_long(length: int, limit: int) -> str:
    return f"Name segement longer than allowed: {length} > {limit}."


def namespace_too_long(length: int, limit: int) -> str:
    return f"Namespace longer than allowed: {length} > {limit}."


def activation_id_length(length: int) -> str:
    return f"Activation id length is {length} but must be 32."


# ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────────
EXEC_UNDEFINED = "exec undefined"
KIND_NOT_STRING = "'kind' must be a string defined in 'exec'"
COMPONENTS_MISSING = "'components' must be defined for sequence kind"
COMPONENTS_NOT_ARRAY = "'components' must be an array"
IMAGE_NOT_STRING = "'image' must be a string defined in 'exec' for 'blackbox' actions"
IMAGE_UNPARSABLE = "could not parse image name"
PARAMETERS_MALFORMED = "parameters malformed!"
VERSION_MALFORMED = "semantic version malformed"
INSTANCES_NEGATIVE = "requirement failed: Action container concurrency must be greater than or equal to 0."
RESERVED_PARAMETERS = "Request defines parameters that are not allowed (e.g., reserved properties)."
SEQUENCE_TOO_LONG = "Too many actions in the sequence."
SEQUENCE_EMPTY = "No component specified for the sequence."
SEQUENCE_COMPONENT_MISSING = "Sequence component does not exist."
SEQUENCE_CYCLIC = "Sequence may not refer to itself."


def code_missing(kind: str) -> str:
    return f"'code' must be a string or attachment object defined in 'exec' for '{kind}' actions"


def code_not_string(value: str) -> str:
    return f"Could not deserialize as attachment record: {value}"


def main_not_string(kind: str) -> str:
    return f"if defined, 'main' be a string in 'exec' for '{kind}' actions"


def main_missing(kind: str) -> str:
    return f"'main' must be a string defined in 'exec' for '{kind}' actions"


def unknown_kind(kind: str, kinds: Iterable[str]) -> str:
    known = ", ".join(f"'{name}'" for name in kinds)
    return f"The specified runtime '{kind}' is not supported by this platform. Valid values are: {known}."


def deprecated_kind(kind: str) -> str:
    return f"The '{kind}' runtime is no longer supported. You may read and delete but not update or invoke this action."


def limit_malformed(name: str) -> str:
    return f"{name} limit malformed"


def limit_not_whole(name: str) -> str:
    return f"requirement failed: {name} limit must be whole number"


def duration_out_of_range(value: int, bound: int, *, is_above: bool) -> str:
    side = "exceeds allowed" if is_above else "below allowed"
    return f"duration {value} milliseconds {side} threshold of {bound} milliseconds"


def memory_out_of_range(value: int, bound: int, *, is_above: bool) -> str:
    return f"memory size {value} MB {'exceeds' if is_above else 'below'} allowed threshold of {bound} MB"


def logs_out_of_range(value: int, bound: int, *, is_above: bool) -> str:
    return f"log size {value} MB {'exceeds' if is_above else 'below'} allowed threshold of {bound} MB"


def concurrency_out_of_range(value: int, bound: int, *, is_above: bool) -> str:
    return f"concurrency {value} {'exceeds' if is_above else 'below'} allowed threshold of {bound}"


def requirement_failed(sentence: str) -> str:
    return f"requirement failed: {sentence}"


def too_many_instances(limit: int) -> str:
    return f"Max action instance concurrency must not exceed your namespace concurrency of {limit}."


# ── triggers and rules ──────────────────────────────────────────────────────────────────────────────────────────
FEED_INVALID = "Feed name is not valid"
RULE_INCOMPLETE = "rule requires a valid trigger and a valid action"
RULE_TRIGGER_GONE = "Only rules with existing triggers can be activated"
STATUS_MISSING = "key not found: status"


def trigger_missing(name: str) -> str:
    return f"trigger /{name} does not exist"


def action_missing(name: str) -> str:
    return f"action /{name} does not exist"


def bad_rule_status(value: str) -> str:
    return f"requirement failed: {value} is not a recognized rule state"


def rule_inactive(rule: str, action: str) -> str:
    return f"Rule '{rule}' is inactive, action '{action}' was not activated."


# ── throttles ───────────────────────────────────────────────────────────────────────────────────────────────────
def too_many_per_minute(count: int, limit: int) -> str:
    return f"Too many requests in the last minute (count: {count}, allowed: {limit})."


def too_many_in_flight(count: int, limit: int) -> str:
    return f"Too many concurrent requests in flight (count: {count}, allowed: {limit})."


# ── outcomes of activations ─────────────────────────────────────────────────────────────────────────────────────
RUN_EXITED = "The action did not produce a valid response and exited unexpectedly."
INIT_EXITED = "The action did not initialize and exited unexpectedly."
OUT_OF_MEMORY = "The action exhausted its memory and was aborted."
WEAK_SANDBOX = "This server's sandbox is too weak to serve a second namespace."
NO_ROOT = "This server's sandbox has no root file system of its own, in which code of this kind is compiled."
NO_RESOURCES = "Failed to provision resources to run the action."
ACTION_GONE = "Action could not be found or may have been deleted."
KEY_IN_FLIGHT = "A request with this Idempotency-Key is being begun: send this one again."
KEY_REUSED = "This Idempotency-Key was used with another body: use a new key for a new request."
BATCH_IN_FLIGHT = "This batch of the source is being fired: send it again."
MANY_LATER = "Fires in lines begin at once: 'delay' and 'at' are for a single one."
MANY_WITH_KEY = "Fires in lines have keys of their own (?keyed=true): an Idempotency-Key is for a single one."
BATCH_WITHOUT_KEYS = "A batch is told by its keys: give ?keyed=true with it."
LINES_EXPECTED = "Keys and batches are of fires in lines: send them as application/x-ndjson."
KEYED_LINE = 'Expected {"key": text, "value": object} in each line.'
STREAMED_WITH_KEY = "Parts of a result are sent once: an idempotency key and 'text/event-stream' exclude each other."
DELAYED_AND_BLOCKING = "A delayed request cannot be blocking: its result is there after its time."
CANCELLED = "The activation was cancelled before it began."
TRIGGER_GONE = "Trigger could not be found or may have been deleted."
BAD_DEAD_LETTER = (
    "The annotation 'dead-letter' must be the name of a trigger or an action of the same namespace, or true."
)
BAD_HOOK_URL = "`url` is an http or https address of at most 2000 characters, without credentials or fragment"
BAD_HOOK_SECRET = "`secret` is whsec_ and the Base64 of 24 to 64 random bytes, as `openssl rand -base64 24` makes them"
ACTION_UNREADABLE = "Action version is not compatible and cannot be invoked."
ACTION_NOT_FETCHED = "Action could not be fetched."
SEQUENCE_FAILED = "Sequence failed."


def bad_store_policy(annotation: str, policies: tuple[str, ...]) -> str:
    return f"The annotation '{annotation}' must be one of {', '.join(policies)}."


def bad_provision(annotation: str, most: int) -> str:
    return f"The annotation '{annotation}' must be a number of containers from 0 to {most}."


def bad_network(annotation: str, reason: str) -> str:
    return f"The annotation '{annotation}' cannot be meant: {reason}."


def network_too_wide(annotation: str, own: str, allowed: str) -> str:
    return f"The annotation '{annotation}' asks for '{own}', and the namespace may reach '{allowed}' only."


def not_permitted(target: str, policy: str) -> str:
    return f"'{target}' is not reached from here: the network policy of this action is '{policy}'."


def network_closed(target: str) -> str:
    return f"'{target}' is not reached from here: it is private, or belongs to the host or its network."


def not_found_out(target: str) -> str:
    return f"'{target}' has no address."


def no_way_to(target: str, reason: str) -> str:
    return f"'{target}' could not be connected with: {reason}."


def too_many_ways(limit: int) -> str:
    return f"More than {limit} connections lead out: raise [network] connections or all_connections."


OPERATOR_WRONG = "username or password are wrong."
DISABLED = "controller is disabled"
PARAMETERS_LOCKED = "The action's parameters could not be decrypted."
COMPOSITION_FAILED = "Activation failure during composition."
COMPOSITION_TOO_LONG = "Too many actions in the composition."
INTERRUPTED = (
    "The platform was stopped while the action was running; it was not run again. "
    "The action may have had its effect in part or in whole."
)


def run_timed_out(limit_ms: int) -> str:
    return f"The action exceeded its time limits of {limit_ms} milliseconds."


def init_timed_out(limit_ms: int) -> str:
    return f"The action exceeded its time limits of {limit_ms} milliseconds during initialization."


def invalid_run_response(text: str) -> str:
    tail = f": {text}" if text else "."
    return f"The action did not produce a valid JSON or JSON Array response{tail}"


def invalid_init_response(text: str) -> str:
    return f"The action failed during initialization: {text}" if text else "The action failed during initialization."


def result_too_large(size: int, limit: int, start: str) -> str:
    return (
        f"The action produced a response that exceeded the allowed length: {size} > {limit} bytes. "
        f"The truncated response was: {start}"
    )


def image_not_pulled(image: str) -> str:
    return f"Failed to pull container image '{image}'."


def component_not_answered(activation_id: str) -> str:
    return f"Timeout reached when retrieving activation {activation_id} for sequence component."


def composition_not_answered(activation_id: str) -> str:
    return f"Timeout reached when retrieving activation {activation_id} during composition."


def composition_unparsable(value: str) -> str:
    return f"Failed to parse action name from json value {value} during composition."


def composition_forbidden(name: str) -> str:
    return f"Failed entitlement check for action with name '{name}' during composition."


def composition_missing(name: str) -> str:
    return f"Failed to resolve action with name '{name}' during composition."


# ── what runtimes answer ────────────────────────────────────────────────────────────────────────────────────────
NOT_A_DICTIONARY_OR_ARRAY = "The action did not return a dictionary or array."
COMMAND_EXITED = "command exited"


# ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────
LOGS_INCOMPLETE = "There was an issue while collecting your logs. Data might be missing."
LOGS_MIXED = "Activations ran at the same time in one container: each line is in the logs of one of them."
LOGS_AFTER_FAILURE = "The action did not initialize or run as expected. Log data might be missing."


def logs_truncated(limit_bytes: int) -> str:
    return f"Logs were truncated because the total bytes size exceeds the limit of {limit_bytes} bytes."


# ── code in archives ────────────────────────────────────────────────────────────────────────────────────────────
# What is wrong with an entry is said by the program that unpacks, inside its sandbox.
CODE_NOT_BASE64 = "The action's code could not be decoded: it is not valid base64."
CODE_UNREADABLE = "The action's code could not be unpacked."
CODE_SCATTERED = "The action's code cannot be unpacked: its entries lie too deep, in too mixed an order."


def code_needs_memory(limit_mb: int) -> str:
    return f"The action's code needs more than {limit_mb} MB of memory to be unpacked."


# ── builds ──────────────────────────────────────────────────────────────────────────────────────────────────────
BUILD_NOT_BEGUN = "The action's code cannot be built now."
BUILD_CUT_SHORT = "The action's code was not built: the server ends."
SAID_LETTERS = 2000


def build_overdue(limit_s: float) -> str:
    return (
        f"Building the action's code took more than {limit_s:g} s: make it smaller, or ask the operator to raise "
        "[build] timeout_s."
    )


def build_needs_memory(limit_mb: int) -> str:
    return (
        f"Building the action's code needs more than {limit_mb} MB of memory: make it smaller, or ask the operator to "
        "raise [build] memory_mb."
    )


def build_too_large(limit_bytes: int, limit_files: int) -> str:
    return (
        f"What was built of the action's code is larger than {limit_bytes} bytes or {limit_files} files: make it "
        "smaller, or ask the operator to raise [build] bytes or [build] files."
    )


def build_broke(said: str) -> str:
    return f"Building the action's code ended without a result.\n{said}".strip()


def too_many_builds(limit: int) -> str:
    return (
        f"{limit} actions of the namespace are being built: put this one later, or ask the operator to raise "
        "[build] waiting."
    )


def bad_build(word: str) -> str:
    return f"'{word}' is not 'wait', the one way there is to ask for a build"


def bad_retry(reason: str) -> str:
    return (
        "The annotation 'retry' must be an object like "
        f'{{"attempts": 3, "backoff_ms": 1000, "max_backoff_ms": 60000, "on": ["internal"]}}: {reason}.'
    )


def bad_hook(reason: str) -> str:
    return (
        "The annotation 'completion-hook' must be an object like "
        f'{{"url": "https://example.com/done", "secret": "whsec_…", "on": ["success", "internal"]}}: {reason}.'
    )


def address_closed(host: str) -> str:
    return f'{host} is not an address of the internet; the operator\'s setting [hooks] reach = "any" allows it'


def answer_too_long(limit: int) -> str:
    return f"the answer is longer than {limit} bytes"


def too_many_requests_out(limit: int) -> str:
    return f"more than {limit} requests to targets elsewhere are under way"


def target_not_permitted(target: str, policy: str) -> str:
    return f"{target} is not reached from here: the network policy of the namespace is '{policy}'"


CALLS_ITSELF = "the API calls itself"


def not_answered(limit_s: float) -> str:
    return f"no answer within {limit_s:g} s"


def too_much_delayed(limit: int) -> str:
    return (
        f"The namespace has {limit} activations and fires that are not due yet: cancel some, or ask the operator to "
        "raise [queue] delayed."
    )


def bad_idempotency_key(limit: int) -> str:
    return f"An Idempotency-Key is 1 to {limit} printable ASCII characters."


def too_many_lines(limit: int) -> str:
    return f"More than {limit} lines: send them in several requests."


def bad_event_key(limit: int) -> str:
    return f"A key is 1 to {limit} characters."


def bad_batch(limit: int) -> str:
    return f"expected SOURCE/N: a name of 1 to {limit} characters, a slash and a number that grows"


def too_many_batch_keys(limit: int) -> str:
    return f"A batch has {limit} keys at most: begin the next one."


def older_batch(number: int, newest: int) -> str:
    return f"Batch {number} of the source is over: batch {newest} has come."


def too_many_keys(limit: int) -> str:
    return (
        f"The namespace has used {limit} idempotency keys in a day: send requests without one, or ask the operator to "
        "raise [queue] idempotency_keys."
    )


def bad_delay(days: int) -> str:
    return f"expected a time like 90, 1.5s, 10m, 2h or 1d, at most {days} days"


def bad_instant(days: int) -> str:
    return f"expected milliseconds since 1970 or a time like 2030-01-31T12:00:00Z, at most {days} days from now"


# ── APIs of the gateway ─────────────────────────────────────────────────────────────────────────────────────────
API_NO_KEY = "A valid auth key is required."
API_NO_CALLER = "Invalid authentication."
APIDOC_REQUIRED = "apidoc is required."
BASEPATH_REQUIRED = "basepath is required."
RELPATH_REQUIRED = "When specifying an operation, the path is required."
SWAGGER_AND_BASE_PATH = "swagger and gatewayBasePath are mutually exclusive and cannot be specified together."
NO_ASSEMBLY = "The swagger file is missing x-ibm-configuration.assembly.execute."
PATHS_NOT_OBJECTS = "The paths of the swagger file and the operations of each must be objects."
NOT_HTTP_RESPONSE = "The action must use a response type of '.http' in order to receive the path parameters."
RESOURCE_PATH_SLASH = "Resource path must begin with '/'."
RESOURCE_PATH_QUOTE = 'resource path contains illegal character "\'".'
BASE_PATH_QUOTE = 'basePath contains illegal character "\'".'
NUMBER_TOO_LARGE = "a number of the document is too large."
API_CHANGED = "The API was changed by others meanwhile: try again."


def api_field_unparsable(field: str) -> str:
    return f"{field} field cannot be parsed. Ensure it is valid JSON."


def apidoc_of_type(kind: str) -> str:
    return f"apidoc field is of type {kind} and should be a JSON object or a JSON string."


def swagger_of_type(kind: str) -> str:
    return f"swagger field is {kind} and should be an object or a JSON string."


def apidoc_lacks(field: str) -> str:
    return f"apidoc is missing the {field} field"


def action_lacks(field: str) -> str:
    return f"action is missing the {field} field."


def swagger_lacks(field: str) -> str:
    return f"swagger is missing the {field} field."


APIDOC_LACKS_ACTION = "apidoc is missing the action field."


def bad_backend_url(url: str) -> str:
    return f"The backendUrl '{url}' is no URL with http or https and a host."


def bad_response_type(kind: str, known: Iterable[str]) -> str:
    return f"The response type '{kind}' is none of {', '.join(sorted(known))}."


def base_path_has_parameters(base_path: str) -> str:
    return f"The base path ({base_path}) cannot have parameters. Only the relative path supports path parameters."


def target_not_path(operation_id: str) -> str:
    return (
        f"The target-url for operationId '{operation_id}' must end in '$(request.path)' in order for actions to "
        "receive the path parameters."
    )


def parameter_not_defined(name: str, path: str) -> str:
    return (
        f"The parameter '{name}' defined in path '{path}' does not match any of the parameters defined for the path in "
        "the swagger file."
    )


def verb_not_supported(verb: str) -> str:
    return f"Resource verb '{verb}' not supported."


def gateway_refused(text: str) -> str:
    """`text` is a part of a JSON string."""
    return f'Unable to configure the API Gateway (status code 400): {{"status":400,"message":"Error: {text}"}}'


def api_not_created(cause: str) -> str:
    return f"API creation failure: {cause}"


def api_not_deleted(cause: str) -> str:
    return f"API deletion failure: {cause}"


def no_such_api(name: str) -> str:
    return f"API '{name}' does not exist."


def no_such_api_path(path: str) -> str:
    return f"path '{path}' does not exist in the API"


def no_such_api_operation(path: str, verb: str) -> str:
    return f"path '{path}' with operation '{verb}' does not exist in the API"


def too_many_apis(limit: int) -> str:
    return f"The namespace has {limit} APIs, which is as many as it may have: delete one, or put more paths into one."


def api_too_large(size: int, limit: int) -> str:
    return f"The document of the API has {size} bytes, more than {limit}: split it into several base paths."


def apis_too_large(limit: int) -> str:
    return (
        f"The documents of the namespace's APIs have more than {limit} bytes together: delete one, or make it smaller."
    )


def api_too_deep(limit: int) -> str:
    return f"The document of the API is nested more than {limit} deep."


def bad_openapi(what: str) -> str:
    return f"The OpenAPI document cannot be taken: {what}."


# ── feeds ───────────────────────────────────────────────────────────────────────────────────────────────────────

TRIGGER_NOT_AUTHENTICATED = "Trigger authentication request failed."
NO_FEED_NAMED = 'The body names no feed: {"feed": "package/feed", "parameters": {…}}.'
BAD_FEED_STATE = "The state of a feed can be set to 'paused' or 'live'."
FEED_THROTTLED = "Automatically disabled after continuously receiving a 429 status code when firing the trigger"
NO_SUCH_HOOK = "There is nothing at this address."
NOTHING_TO_FIRE = "No rule of the trigger is active."
SOURCE_STOPPED = "The source ended by itself."


def no_such_feed(name: str) -> str:
    return f"There is no feed '{name}' here."


def feed_not_installed(library: str, extra: str = "") -> str:
    """`extra` is the package's own that brings the library, if one does."""
    how = f": its operator can install it by pip install 'visp[{extra}]'" if extra else ""
    return f"This feed needs '{library}', which is not on the server{how}."


def no_feed_of(trigger: str) -> str:
    return f"could not find trigger {trigger} in the database"


def too_many_feeds(limit: int) -> str:
    return f"The namespace has {limit} feeds, which is as many as it may have: delete one."


def feed_disabled_by_admin(name: str) -> str:
    return (
        f"{name} cannot be updated because it was disabled by an admin.  Please contact support for further assistance"
    )


def feed_is_disabled(name: str) -> str:
    return f"{name} cannot be updated because it is disabled"


def feed_disabled(status: int, error: str) -> str:
    said = f"Received a {status} status code when firing the trigger"
    return f"Trigger automatically disabled: {said}" + (f" ({error})" if error else "")


def feed_disabled_at_start(status: int) -> str:
    return f"Automatically disabled after receiving a {status} status code on trigger initialization"


def not_fired(status: int, error: str) -> str:
    return f"The trigger could not be fired ({status})" + (f": {error}" if error else ".")


def source_closed(host: str) -> str:
    return (
        f"{host} is a private address or this machine's: sources may be there only while visp listens on loopback, or "
        "where its operator allows it ([feeds] reach, [network] openings)."
    )


def path_not_watched(path: str) -> str:
    return f"{path} is not below a folder that the operator lets be watched ([feeds] roots)."


def name_not_found(host: str) -> str:
    return f"The name {host} was not found."


NOTHING_UPDATABLE = "no updatable parameters were specified"


def feed_parameter_missing(name: str) -> str:
    return f"You must supply a '{name}' parameter."


def feed_parameter_bad(name: str, expected: str) -> str:
    return f"The parameter '{name}' must be {expected}."


def feed_parameter_fixed(name: str) -> str:
    return f"The parameter '{name}' cannot be updated: create the trigger anew."


def feed_text(limit: int) -> str:
    return f"a text of at most {limit} characters"


FEED_FLAG = "true or false"
FEED_LINE = "a text of one line"


def feed_texts(limit: int) -> str:
    return f"a list of 1 to {limit} texts, or a text with commas"


def feed_listed(limit: int) -> str:
    return f"a text, or a list of at most {limit} texts"


def feed_whole(low: int, high: int) -> str:
    return f"a whole number from {low} to {high}"


def feed_choice(values: Iterable[str]) -> str:
    return f"one of {', '.join(values)}"


def feed_url(schemes: Iterable[str]) -> str:
    return f"a URL with one host that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}"


def source_lost(what: str, where: str, why: str) -> str:
    return f"{what} at {where} cannot be reached, or broke off: {why}"


SOURCE_SILENT = "it does not answer in time"

FEED_STREAM_FROM = "$, 0 or the id of an entry"

SOURCE_CLOSED = "the connection was closed"


BROKERS_NEEDED = "You must supply a 'brokers' parameter as an array of Message Hub brokers."
JSON_AND_BINARY = "isJSONData and isBinaryValue cannot both be enabled."


def message_hub_needs(name: str) -> str:
    return f"You must supply a '{name}' parameter to authenticate with Message Hub."


def no_such_topic(topic: str) -> str:
    return f"The topic '{topic}' does not exist."


FEED_SSLMODE = "a URL whose one option, if any, is sslmode"
FEED_TABLES = "names of tables: name or schema.name"
FEED_SLOT = "lower-case letters, digits and underscores, at most 63"


def no_such_table(table: str) -> str:
    return f"The table '{table}' does not exist."


def slot_in_use(slot: str) -> str:
    return f"the slot '{slot}' is read by another feed: give each a slot of its own"


def slot_of_another_plugin(slot: str, plugin: str) -> str:
    return f"The slot '{slot}' has the plugin '{plugin}', and test_decoding is needed: give another slot."


FEED_BUCKET = "the name of a bucket"


def too_many_objects(limit: int) -> str:
    return f"There are more than {limit} objects under the prefix: give a longer one."


def certificate_refused(why: str) -> str:
    return f"its certificate is not trusted ({why})"


def answered(status: int, code: str) -> str:
    return f"it answered {status} {code}".rstrip()


def bad_filter(cause: str) -> str:
    return f"The filter cannot be used: {cause}."


def shortened(value: object, limit: int = 200) -> str:
    """What a user gave, in a sentence of ours."""
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"


# ── alarms, as OpenWhisk's package of them says it ──────────────────────────────────────────────────────────────
ALARM_NO_CRON = "alarms trigger feed is missing the cron parameter"
INTERVAL_NO_MINUTES = "interval trigger feed is missing the minutes parameter"
MINUTES_NOT_INTEGER = "the minutes parameter must be an integer"
MINUTES_NOT_POSITIVE = "the minutes parameter must be an integer greater than zero"
ONCE_NO_DATE = "alarms once trigger feed is missing the date parameter"
BAD_DELETE_AFTER = "deleteAfterFire parameter must be one of [false, true, rules]."
ALARM_MAX_WITH_STOP = "maxTriggers is not allowed when the stopDate parameter is specified"
INTERVAL_MAX = "maxTriggers is not supported for the interval trigger feed"
STOP_BEFORE_FIRST = "the first scheduled trigger fire is not until after the stop date"
CRON_TOO_FINE = "cron pattern is limited to 5 fields with 1 minute as the finest granularity"
BAD_TIMEZONE = "Invalid timezone."
ALARM_ONCE_DONE = "Automatically disabled after firing once"
ALARM_LAST_CRON = "Automatically disabled after firing last scheduled cron trigger"
ALARM_LAST_INTERVAL = "Automatically disabled after firing last scheduled interval trigger"
ALARM_MAX_REACHED = "Automatically disabled after reaching max triggers"


def bad_cron(pattern: str) -> str:
    return f"cron pattern '{pattern}' is not valid"


def bad_date(name: str, value: str) -> str:
    return f"{name} parameter '{value}' is not a valid Date"


def date_not_future(name: str, value: str) -> str:
    return f"{name} parameter '{value}' must be in the future"


def stop_not_after(stop: str, start: str) -> str:
    return f"stopDate parameter '{stop}' must be greater than the startDate parameter '{start}'"


# ── Cloudant, as OpenWhisk's package for it says it ─────────────────────────────────────────────────────────────
CLOUDANT_NO_DBNAME = "cloudant trigger feed: missing dbname parameter"
CLOUDANT_NO_HOST = "cloudant trigger feed: missing host parameter"
CLOUDANT_NO_CREDENTIALS = "cloudant trigger feed: Must specify parameter/s of iamApiKey or username/password"
CLOUDANT_QUERY_WITHOUT_FILTER = "The query_params parameter is only allowed if the filter parameter is defined"
CLOUDANT_QUERY_UNPARSABLE = "The query_params parameter cannot be parsed. Ensure it is valid JSON."
CLOUDANT_QUERY_NO_OBJECT = "The query_params parameter is not a valid JSON Object"


def cloudant_not_connected(dbname: str) -> str:
    return f"error connecting to database {dbname}"


def cloudant_bad_host(host: str) -> str:
    return f"The host parameter '{host}' is no name or address of a host."


def cloudant_answered(dbname: str, status: int) -> str:
    return f"The database {dbname} answered with status {status}, or with what is no list of changes."


def iam_answered(status: int) -> str:
    return f"The service that makes tokens of API keys answered with status {status}, or without a token."


# ── sources ─────────────────────────────────────────────────────────────────────────────────────────────────────
def source_not_reached(host: str, cause: str) -> str:
    return f"{host} could not be reached: {cause}"


def source_answer_too_large(limit: int) -> str:
    return f"an answer has more than {limit} bytes"


TOPICS_REFUSED = "The broker does not let the topics be read."


def feed_no_answer(whom: str) -> str:
    return f"No answer from {whom} in time."


def bad_topic(topic: str) -> str:
    return f"'{topic}' is no filter of topics: + and # stand for whole levels, and # for the last."


HOOK_NO_OPTIONS = "This address is told by POST."
HOOK_NOT_SIGNED = "The request is not signed as it is to be."
HOOK_UNREADABLE = "The body of the request cannot be read as what it is said to be."
HOOK_OTHER_ORIGIN = "Requests of this origin are not let in."
HOOK_NEEDS_SCHEME = "A secret needs a scheme: say which signatures the requests have."
HOOK_BAD_SECRET = "The parameter secret is no text that begins with whsec_ and goes on with 16 bytes or more in Base64."


def hook_out_of_time(tolerance_s: int) -> str:
    return f"The request was not signed within the last {tolerance_s} seconds."


def cloud_event_refused(cause: str) -> str:
    return f"The request is no CloudEvent: {cause}."


RSS_REDIRECTED = "The feed sends elsewhere too often, or to what is no address of a feed."
RSS_UNREADABLE = "What is at the address cannot be read as a feed of news."


def rss_answered(status: int) -> str:
    return f"The feed answered with status {status}."


def too_many_files(limit: int) -> str:
    return f"The folder has more than {limit} files to look at: watch a part of it, or name files by a glob."


def folder_unreadable(cause: str) -> str:
    return f"The folder cannot be read: {cause}"


def imap_not_let_in(host: str) -> str:
    return f"{host} does not let the user in."


def imap_no_folder(folder: str) -> str:
    return f"There is no folder '{folder}' that can be read."
