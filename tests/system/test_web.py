"""Web actions over the wire: each request is sent twice, for the first fills what the second is answered from."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from tests.system.conftest import GUEST, Api
from tests.system.traces import until

from visp.client import running

if TYPE_CHECKING:
    from visp.client.running import Server

ECHO = "const main = p => ({body: p})"
SAYS = "const main = p => p.says ? JSON.parse(p.says) : {}"
FAILS = "const main = p => ({error: JSON.parse(p.says)})"
NODE, PYTHON = "nodejs:20", "python:3.11"
MISMATCH = "Response type in header did not match generated content type."
ACTIVATION, ORIGIN = "x-openwhisk-activation-id", "access-control-allow-origin"
PNG = base64.b64decode("iVBORw0KGgo=")
PARTS = """
def main(params):
    yield {'statusCode': 201, 'headers': {'Content-Type': 'text/plain', 'X-A': 'b'}}
    yield 'one '
    yield b'two '
    if params.get('fails'): raise ValueError('in the middle')
    yield {'n': 3}
"""


class Told:
    """One answer, with every header line."""

    def __init__(self, got: http.client.HTTPResponse) -> None:
        self.status = got.status
        self.lines = [(name.lower(), value) for name, value in got.getheaders()]
        self.body = got.read()

    def header(self, name: str) -> str | None:
        return dict(self.lines).get(name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.lines} {self.body!r}>"


class Web:
    """A browser, of sorts."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self._host = urlsplit(api.url).netloc

    def once(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Told:
        target = path if path.startswith("/") else f"/api/v1/web/guest/default/{path}"
        connection = http.client.HTTPConnection(self._host, timeout=60)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders(body)
            return Told(connection.getresponse())
        finally:
            connection.close()

    def __call__(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Told:
        """Both answers are alike."""
        first, second = (self.once(method, path, body, **headers) for _ in range(2))
        assert first.status == second.status, (first, second)
        changing = {ACTIVATION, "date", "x-request-id", "content-length"}
        shown = [{pair for pair in told.lines if pair[0] not in changing} for told in (first, second)]
        assert shown[0] == shown[1], (first, second)
        return second

    def action(self, name: str, code: str, kind: str = NODE, *, params: Any = None, **annotations: Any) -> None:
        listed = [{"key": key.replace("_", "-"), "value": value} for key, value in annotations.items()]
        fields: dict[str, Any] = {"annotations": [{"key": "web-export", "value": True}, *listed]}
        if params is not None:
            fields["parameters"] = [{"key": key, "value": value} for key, value in params.items()]
        self.api.action(name, code, kind, **fields)

    def runs(self, name: str) -> int:
        answer = self.api.get(f"activations?name={name}&count=true")
        return int(answer.json["activations"])


@pytest.fixture(scope="module")
def web(server: Server) -> Web:
    found = Web(Api(server.url))
    found.action("echo", ECHO, params={"own": "d"})
    found.action("says", SAYS)
    found.action("fails", FAILS)
    return found


def says(value: Any) -> str:
    import urllib.parse

    return "says=" + urllib.parse.quote(json.dumps(value))


# ── what the action is given ────────────────────────────────────────────────────────────────────────────────────


def test_query_and_body_are_merged_and_the_body_wins(web: Web) -> None:
    told = web(
        "POST", "echo?a=q&b=q&b=last&flag&t=two+words%21", b'{"a":"body","n":[1]}', Content_Type="application/json"
    )
    given = told.json
    assert {key: given[key] for key in ("a", "b", "flag", "t", "n", "own")} == {
        "a": "body",
        "b": "last",
        "flag": "",
        "t": "two words!",
        "n": [1],
        "own": "d",
    }
    assert given["__ow_method"] == "post"
    assert given["__ow_path"] == ""
    assert given["__ow_headers"]["content-type"] == "application/json"
    assert "content-length" not in given["__ow_headers"]
    assert "__ow_body" not in given
    assert "__ow_user" not in given


@pytest.mark.parametrize("value", [[], "x", 3, None, False])
def test_json_that_is_no_object_is_the_body(web: Web, value: Any) -> None:
    told = web("POST", "echo", json.dumps(value).encode(), Content_Type="application/vnd.a+json")
    assert told.json["__ow_body"] == value


def test_bodies_of_other_types(web: Web) -> None:
    assert "__ow_body" not in web("POST", "echo", b"", Content_Type="application/json").json
    form = web("POST", "echo", b"x=1&y=two+words&x=3", Content_Type="application/x-www-form-urlencoded").json
    assert (form["x"], form["y"]) == ("3", "two words")
    assert web("POST", "echo", "tëxt".encode(), Content_Type="text/plain").json["__ow_body"] == "tëxt"
    assert web("POST", "echo", PNG, Content_Type="image/png").json["__ow_body"] == base64.b64encode(PNG).decode()
    assert web("POST", "echo", b"ab").json["__ow_body"] == "YWI="
    assert web("POST", "echo", b"ab", Content_Type="multipart/form-data; boundary=x").json["__ow_body"] == "YWI="


def test_raw_actions_are_given_query_and_body_as_they_came(web: Web) -> None:
    web.action("raw", ECHO, raw_http=True)
    told = web("GET", "raw?a=1&b=%20x").json
    assert (told["__ow_query"], told["__ow_body"]) == ("a=1&b=+x", "")
    assert web("POST", "raw", b'{"a":1}', Content_Type="application/json").json["__ow_body"] == "eyJhIjoxfQ=="
    assert web("POST", "raw", b"a=1", Content_Type="application/x-www-form-urlencoded").json["__ow_body"] == "a=1"
    assert web("GET", "raw").json["__ow_query"] == ""


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "PUT", "PATCH"])
def test_each_verb_reaches_the_action(web: Web, method: str) -> None:
    assert web(method, "echo").json["__ow_method"] == method.lower()


def test_head_runs_the_action_and_has_the_heads_alone(web: Web) -> None:
    told = web("HEAD", "says?" + says({"body": "four"}))
    assert (told.status, told.body, told.header("content-length")) == (200, b"", "4")


def test_verbs_that_there_are_not(web: Web) -> None:
    told = web("PROPFIND", "echo")
    assert told.status == 405
    assert told.json["error"].startswith("HTTP method not allowed")


def test_path_after_the_action(web: Web) -> None:
    assert web("GET", "echo.http/some/path%20x").json["__ow_path"] == "/some/path%20x"
    assert web("GET", "echo/").json["__ow_path"] == "/"


def test_whoever_has_a_key_is_named(web: Web) -> None:
    key = base64.b64encode(GUEST.encode()).decode()
    assert web("GET", "echo", Authorization=f"Basic {key}").json["__ow_user"] == "guest"
    for wrong in ("Basic abc", "Basic " + base64.b64encode(b"nobody:nothing").decode()):
        told = web("GET", "echo", Authorization=wrong)
        assert told.status == 200
        assert "__ow_user" not in told.json


def test_reserved_and_final_parameters_are_refused(web: Web) -> None:
    web.action("final", ECHO, params={"set": 1, "unset": None}, final=True)
    for path, body in (
        ("echo?__ow_method=x", None),
        ("echo", b'{"__ow_headers":1}'),
        ("final?set=2", None),
        ("final", b'{"set":2}'),
    ):
        told = web("POST", path, body, Content_Type="application/json")
        assert told.status == 400
        assert told.json["error"].startswith("Request defines parameters that are not allowed")
        assert told.header(ORIGIN) == "*"
        assert told.header(ACTIVATION) is None
    assert web("GET", "final?unset=2").json["unset"] == "2"


# ── what is answered ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("result", [{}, {"body": ""}, {"body": None}, {"headers": {"Content-Type": "bad"}}])
def test_nothing_is_204(web: Web, result: Any) -> None:
    told = web("GET", "says?" + says(result), Accept="application/json")
    assert (told.status, told.body) == (204, b"")
    assert told.header("content-type") is None
    assert told.header("content-length") is None
    assert told.header(ACTIVATION)


@pytest.mark.parametrize(
    ("code", "status"), [("200", 200), ("xyz", 400), (444, 444), (99, 400), (600, 400), (None, 400), (True, 400)]
)
def test_status_codes(web: Web, code: Any, status: int) -> None:
    told = web("GET", "says?" + says({"statusCode": code, "body": "b"}))
    assert told.status == status
    if status == 400:
        assert told.json["error"] == "Response is not valid 'message/http'."


def test_headers_that_an_action_sets(web: Web) -> None:
    headers = {"Set-Cookie": ["a=1", ["b=2"]], "X-N": 5, "X-B": True, "Content-Length": 3, "X-Wide": "ü☃"}
    told = web("GET", "says?" + says({"headers": headers, "body": "x"}))
    assert [value for name, value in told.lines if name == "set-cookie"] == ["a=1", "b=2"]
    assert (told.header("x-n"), told.header("x-b"), told.header("x-wide")) == ("5", "true", "ü?")
    assert told.body == b"x"
    for bad in ({"X": None}, {"X": {}}, "x", {"X\r\nY": "z"}, {"X": "a\r\nY: b"}):
        assert web("GET", "says?" + says({"headers": bad, "body": "x"})).status == 400


@pytest.mark.parametrize(
    ("result", "kind", "body"),
    [
        ({"body": "<b>"}, "text/html; charset=UTF-8", b"<b>"),
        ({"body": {"a": [1, {}]}}, "application/json", b'{\n  "a": [1, {\n\n  }]\n}'),
        ({"body": 7}, "application/json", b"7"),
        ({"body": "x", "headers": {"content-type": "text/plain; charset=x"}}, "text/plain; charset=UTF-8", b"x"),
        ({"body": '{"a":1}', "headers": {"Content-Type": "application/json"}}, "application/json", b'{"a":1}'),
        ({"body": 1, "headers": {"Content-Type": "application/a+json"}}, "application/a+json; charset=UTF-8", b"1"),
        ({"body": "iVBORw0KGgo=", "headers": {"Content-Type": "image/png"}}, "image/png", PNG),
    ],
)  # fmt: skip
def test_types_of_bodies(web: Web, result: Any, kind: str, body: bytes) -> None:
    told = web("GET", "says?" + says(result))
    assert (told.status, told.header("content-type"), told.body) == (200, kind, body)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        ({"body": {"a": 1}, "headers": {"Content-Type": "text/html"}}, MISMATCH),
        ({"body": "no base64", "headers": {"Content-Type": "image/png"}}, MISMATCH),
        ({"body": "x", "headers": {"Content-Type": "nothing"}}, "Response did not specify a known content-type."),
        ([1], "Response is not valid 'message/http'."),
    ],
)  # fmt: skip
def test_what_makes_no_response(web: Web, result: Any, sentence: str) -> None:
    told = web("GET", "says?" + says(result))
    assert (told.status, told.json["error"]) == (400, sentence)
    assert told.header(ORIGIN) == "*"


def test_extensions(web: Web) -> None:
    everything = {"html": "<i>", "svg": "<svg/>", "text": [1, 2], "statusCode": 404}
    query = "?" + says(everything)
    assert web("GET", "says.json" + query).json == everything
    assert (web("GET", "says.html" + query).body, web("GET", "says.svg" + query).body) == (b"<i>", b"<svg/>")
    assert web("GET", "says.text" + query).body == b"[1, 2]"
    assert web("GET", "says.text?" + says({"a": 1})).status == 404
    assert web("GET", "says.text?" + says([1])).body == b"[1]"
    assert web("GET", "says.json?" + says({})).body == b"{\n\n}"
    assert web("GET", "says.xml" + query).status == 404
    assert web("GET", "says.text/html" + query).body == b"[1, 2]", "there is no projection"


def test_errors_of_an_application_are_answers(web: Web) -> None:
    told = web("GET", "fails?" + says({"statusCode": 403, "body": "no"}))
    assert (told.status, told.body) == (403, b"no")
    assert web("GET", "fails.text?" + says("why")).body == b"why"
    assert web("GET", "fails.json?" + says({"a": 1})).status == 200
    assert web("GET", "fails?" + says("why")).status == 400


def test_errors_of_a_developer_tell_nothing(web: Web) -> None:
    web.action("throws", "const main = () => { process.exit(3) }")
    told = web("GET", "throws")
    assert (told.status, told.json["error"]) == (400, "There was an error processing your request.")
    assert told.header(ACTIVATION)


def test_accept_refuses_and_never_selects(web: Web) -> None:
    before = web.runs("says")
    told = web("GET", "says.html?" + says({"html": "x"}), Accept="text/xml")
    assert told.status == 406
    assert told.json["error"].endswith("types:\ntext/html; charset=UTF-8")
    assert (told.header(ORIGIN), told.header(ACTIVATION)) == (None, None)
    assert web.runs("says") == before + 2, "each ran once"
    assert web("GET", "says?" + says({"statusCode": 500, "body": "x"}), Accept="text/xml").status == 500


# ── who may, and what is refused ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "hidden",
        "/api/v1/web/guest/nopackage/x",
        "/api/v1/web/nobody/default/x",
        "/api/v1/web/_/default/echo",
    ],
)
def test_what_is_not_there_and_what_may_not_be_seen_are_the_same(web: Web, path: str) -> None:
    web.api.action("hidden", ECHO, annotations=[{"key": "web-export", "value": "true"}])
    told = web("GET", path)
    assert told.status == 404
    assert told.json["error"] == "The requested resource does not exist."
    assert told.body.startswith(b'{\n  "')
    assert told.header(ORIGIN) is None


def test_paths_that_are_no_web_actions(web: Web) -> None:
    assert web("GET", "/api/v1/web/guest").status == 401
    assert web("GET", "/api/v1/web/guest/default/").status == 401
    assert web("OPTIONS", "/api/v1/web/guest").body == b"OK"


def test_secrets(web: Web) -> None:
    web.action("text", ECHO, require_whisk_auth="s3cret")
    web.action("number", ECHO, require_whisk_auth=1234)
    web.action("user", ECHO, require_whisk_auth=True)
    web.action("never", ECHO, require_whisk_auth=None)
    key = "Basic " + base64.b64encode(GUEST.encode()).decode()
    for name, headers, status in (
        ("text", {}, 401),
        ("text", {"X-Require-Whisk-Auth": "S3cret"}, 401),
        ("text", {"X-Require-Whisk-Auth": "s3cret"}, 200),
        ("number", {"X-Require-Whisk-Auth": "1234"}, 200),
        ("user", {}, 401),
        ("user", {"Authorization": "Basic abc"}, 401),
        ("user", {"Authorization": key}, 200),
        ("never", {"Authorization": key}, 401),
    ):
        told = web("GET", name, **headers)
        assert told.status == status, (name, headers)
        assert told.header(ORIGIN) == "*"
        assert told.header("www-authenticate") is None
        if status == 401:
            assert told.json["error"] == "Authentication is possible but has failed or not yet been provided."


def test_questions_of_browsers(web: Web) -> None:
    before = web.runs("echo")
    told = web("OPTIONS", "echo", Access_Control_Request_Headers="X-Foo")
    assert (told.status, told.body, told.header("content-length")) == (200, b"", "0")
    assert told.header("access-control-allow-headers") == "X-Foo"
    assert told.header("access-control-allow-methods") == "OPTIONS, GET, DELETE, POST, PUT, HEAD, PATCH"
    assert web.runs("echo") == before
    web.action("custom", ECHO, web_custom_options=True, require_whisk_auth="s")
    told = web("OPTIONS", "custom")
    assert told.json["__ow_method"] == "options"
    assert told.header(ORIGIN) is None


def test_malformed_and_large_bodies(web: Web) -> None:
    told = web("POST", "echo", b"{bad", Content_Type="application/json")
    assert told.status == 400
    assert told.json["error"].startswith("The request content was malformed:\n")
    assert told.header(ORIGIN) is None
    size = 1024 * 1024 + 1
    told = web("POST", "echo", b"x" * size, Content_Type="text/plain")
    assert (told.status, told.json["error"]) == (413, f"Request larger than allowed: {size} > 1048576 bytes.")


def test_packages_bindings_and_sequences(web: Web) -> None:
    api = web.api
    given = [{"key": "pp", "value": "package"}, {"key": "bp", "value": "package"}]
    assert api.request("PUT", "packages/kit?overwrite=true", {"parameters": given, "publish": True}).status == 200
    binding = {"binding": {"namespace": "_", "name": "kit"}, "parameters": [{"key": "bp", "value": "binding"}]}
    assert api.request("PUT", "packages/bound?overwrite=true", binding).status in (200, 409)
    web.action("kit/echo", ECHO, params={"own": 1}, final=True)
    told = web("GET", "/api/v1/web/guest/bound/echo").json
    assert (told["pp"], told["bp"], told["own"]) == ("package", "binding", 1)
    assert web("GET", "/api/v1/web/guest/bound/echo?bp=x").status == 400
    components = ["/guest/echo", "/guest/kit/echo"]
    exported = [{"key": "web-export", "value": True}]
    body = {"exec": {"kind": "sequence", "components": components}, "annotations": exported}
    assert api.request("PUT", "actions/both?overwrite=true", body).status == 200
    assert web("GET", "both?n=1").json["body"]["n"] == "1"


def test_runs_are_the_owners(web: Web) -> None:
    web.action("whose", "const main = () => ({body: process.env.__OW_NAMESPACE})")
    told = web("GET", "whose")
    assert told.body == b"guest"
    assert web.api.record(told.header(ACTIVATION) or "")["namespace"] == "guest"


# ── results in parts ────────────────────────────────────────────────────────────────────────────────────────────


def test_parts_are_passed_on_as_they_come(web: Web) -> None:
    web.action("parts", PARTS, PYTHON)
    told = web("GET", "parts")
    assert (told.status, told.header("x-a")) == (201, "b")
    assert told.header("content-type") == "text/plain; charset=UTF-8"
    assert told.header("transfer-encoding") == "chunked"
    assert told.body == b'one two {"n":3}\n'
    record = web.api.record(told.header(ACTIVATION) or "")
    assert record["response"]["result"]["body"] == 'one two {"n":3}\n'


def test_a_part_comes_before_the_next_is_made(web: Web) -> None:
    """The action waits for a connection that is made once its first part was read."""
    web.action(
        "waits",
        "import time\ndef main(params):\n  yield 'first'\n  time.sleep(0.8)\n  yield 'last'\n",
        PYTHON,
    )
    for _ in range(2):
        with socket.create_connection(urlsplit(web.api.url).netloc.split(":")) as sock:
            sock.sendall(b"GET /api/v1/web/guest/default/waits HTTP/1.1\r\nHost: x\r\n\r\n")
            got = b""
            while b"first" not in got:
                got += sock.recv(4096)
            assert b"last" not in got
            while b"last" not in got:
                got += sock.recv(4096)


def test_one_that_fails_in_the_middle_has_no_end(web: Web) -> None:
    web.action("parts", PARTS, PYTHON)
    for _ in range(2):
        with pytest.raises(http.client.IncompleteRead):
            web.once("GET", "parts?fails=1")
    assert web("GET", "parts").status == 201, "the next connection is served"


def test_readers_that_leave_end_nothing(web: Web) -> None:
    web.action("parts", PARTS, PYTHON)
    before = web.runs("parts")
    for _ in range(3):
        with socket.create_connection(urlsplit(web.api.url).netloc.split(":")) as sock:
            sock.sendall(b"GET /api/v1/web/guest/default/parts HTTP/1.1\r\nHost: x\r\n\r\n")
    done = threading.Event()
    for _ in range(200):
        if web.runs("parts") >= before + 3:
            break
        done.wait(0.05)
    assert web.runs("parts") >= before + 3


def test_a_reader_that_left_does_not_hold_up_a_long_result(web: Web) -> None:
    """Twice: what is on its way without a reader is no more than a window, then the action would wait for ever."""
    code = "def main(params):\n  for n in range(60):\n    yield 'x' * 16000\n"
    web.action("long", code, PYTHON)
    for run in range(1, 4):
        with socket.create_connection(urlsplit(web.api.url).netloc.split(":")) as sock:
            sock.sendall(b"GET /api/v1/web/guest/default/long HTTP/1.1\r\nHost: x\r\n\r\n")
            sock.recv(1000)
        until(lambda run=run: web.runs("long") >= run, 20.0)
    records = web.api.get("activations?name=long&docs=true").json
    assert [record["response"]["success"] for record in records] == [True] * 3


def test_a_stream_goes_on_after_the_time_that_a_caller_is_kept_waiting() -> None:
    code = """
import time
def main(params):
    yield 'one '
    if 'quick' not in params: time.sleep(1.5)
    yield 'two '
"""
    with running.running({"limits.blocking_wait_ms": 1000}) as server:
        web = Web(Api(server.url))
        web.action("slow", code, PYTHON)
        until(lambda: web.once("GET", "slow.text?quick").status == 200, 20.0)
        answer = web("GET", "slow.text")
        assert (answer.status, answer.body) == (200, b"one two ")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (PYTHON, "def main(params):\n    yield 'one '\n    yield 'two'"),
        (NODE, "async function* main() { yield 'one '; yield 'two' }"),
    ],
)
def test_parts_come_without_a_wall_too(kind: str, code: str) -> None:
    with running.running(flags=("--driver", "process", "--i-trust-all-code")) as server:
        web = Web(Api(server.url))
        web.action("parts", code, kind)
        answer = web("GET", "parts.text")
        assert (answer.status, answer.body) == (200, b"one two")
