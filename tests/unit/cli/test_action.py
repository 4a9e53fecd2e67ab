"""`visp action`: what it sends, what it prints, how it ends."""

import base64
import io
import json
import zipfile
from pathlib import Path

import pytest

LOGS = "2026-01-01T00:00:00.123456789Z stderr: boom"
ID = "0123456789abcdef0123456789abcdef"
SOURCE = "def main(args):\n    return args\n"


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "hello.py").write_text(SOURCE)
    return "hello.py"


# ── create and update ───────────────────────────────────────────────────────────────────────────────────────────────


def test_create_sends_code_kind_and_everything_given(api, visp, source, tmp_path):
    (tmp_path / "parameters.json").write_text('{"a": 1.50, "b": "file"}')
    api.answer("PUT /namespaces/_/actions/hello", body={})
    done = visp(
        "action", "create", "hello", source, "-P", "parameters.json", "-p", "b", "5", "-p", "c", "not json",
        "-a", "description", "greets", "-t", "1000", "-m", "128", "-l", "1", "-c", "2", "--main", "main",
        "--web", "raw",
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (0, "ok: created action hello\n")
    [request] = api.requests
    assert request.query == {"overwrite": "false", "build": "wait"}
    assert request.headers["authorization"].startswith("Basic ")
    assert request.headers["content-type"] == "application/json"
    assert request.body == {
        "exec": {"kind": "python:default", "code": SOURCE, "main": "main"},
        "parameters": [{"key": "a", "value": 1.5}, {"key": "b", "value": 5}, {"key": "c", "value": "not json"}],
        "annotations": [
            {"key": "description", "value": "greets"},
            {"key": "web-export", "value": True},
            {"key": "raw-http", "value": True},
            {"key": "final", "value": True},
        ],
        "limits": {"timeout": 1000, "memory": 128, "logs": 1, "concurrency": 2},
    }


def told(*lines):
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_a_build_is_waited_for(api, visp, source):
    lines = told({"progress": "compiling"}, {"progress": ""}, {"status": 200, "body": {}})
    api.answer("PUT /namespaces/_/actions/hello", body=lines, headers={"Content-Type": "application/x-ndjson"})
    done = visp("action", "create", "hello", source)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "ok: created action hello\n", "")
    assert "application/x-ndjson" in api.requests[0].headers["accept"]


def test_what_the_compiler_says_is_printed(api, visp, source):
    error = {"error": "# exec\n./exec.go:3: undefined: x", "code": "tid"}
    lines = told({"progress": "compiling"}, {"status": 400, "body": error, "build": "failed"})
    api.answer("PUT /namespaces/_/actions/hello", body=lines, headers={"Content-Type": "application/x-ndjson"})
    done = visp("action", "update", "hello", source)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "error: Unable to update action 'hello': # exec\n./exec.go:3: undefined: x\n"


def test_a_refusal_in_the_last_line_is_one(api, visp, source):
    lines = told({"status": 409, "body": {"error": "resource already exists", "code": "tid7"}})
    api.answer("PUT /namespaces/_/actions/hello", body=lines, headers={"Content-Type": "application/x-ndjson"})
    assert visp("action", "create", "hello", source).exit_code == 153


def test_a_server_that_ends_before_the_last_line(api, visp, source):
    lines = told({"progress": "compiling"})
    api.answer("PUT /namespaces/_/actions/hello", body=lines, headers={"Content-Type": "application/x-ndjson"})
    done = visp("action", "create", "hello", source)
    assert (done.exit_code != 0, "ended before" in done.stderr) == (True, True)


def test_a_build_is_left_alone(api, visp, source):
    api.answer("PUT /namespaces/_/actions/hello", body={})
    assert visp("action", "create", "hello", source, "--no-build-wait").exit_code == 0
    assert api.requests[0].query == {"overwrite": "false"}


def test_names_are_escaped_in_the_path_and_shown_as_typed(api, visp, source):
    api.answer("PUT /namespaces/my%20ns/actions/p%26q/a%20b", body={})
    done = visp("action", "create", "/my ns/p&q/a b", source)
    assert done.stdout == "ok: created action p&q/a b\n"


def test_a_refusal_is_told_with_its_code_and_the_exit_status_of_wsk(api, visp, source):
    api.refuse("PUT /namespaces/_/actions/hello", 409, "resource already exists")
    done = visp("action", "create", "hello", source)
    assert done.exit_code == 153
    assert done.stdout == ""
    assert done.stderr == "error: Unable to create action 'hello': resource already exists (code tid7)\n"


@pytest.mark.parametrize("extension", ["zip", "jar", "balx"])
def test_archives_go_in_base64(api, visp, tmp_path, extension):
    (tmp_path / f"app.{extension}").write_bytes(b"PK\x03\x04text")
    api.answer("PUT /namespaces/_/actions/app", body={})
    assert visp("action", "create", "app", f"app.{extension}", "--kind", "java:8", "--main", "Hello").exit_code == 0
    made = api.requests[0].body["exec"]
    assert base64.b64decode(made["code"]) == b"PK\x03\x04text"
    assert (made["kind"], made["main"]) == ("java:8", "Hello")


def test_an_archive_without_a_kind_is_refused_with_the_way_out(api, visp, tmp_path):
    (tmp_path / "app.zip").write_bytes(b"PK")
    done = visp("action", "create", "app", "app.zip")
    assert done.exit_code == 1
    assert "--kind, --docker or --native" in done.stderr
    assert api.requests == []


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("hello", "nowhere.py"), 2, "'nowhere.py' is not a valid file or it does not exist"),
        (("hello", "note.xyz"), 1, "'.xyz' is not a supported action runtime"),
        (("hello",), 2, "needs an ARTIFACT"),
        (("hello", "note.xyz", "--kind", "a:1", "--native"), 2, "exclude one another"),
        (("hello", "x.jar"), 1, "Java actions require --main"),
        (("a/b/c/d", "note.xyz"), 2, "is no name"),
        (("..", "note.xyz"), 2, "made of dots"),
        (("hello", "folder"), 1, "cannot be told"),
        (("hello", "hello.py", "-P", "note.xyz"), 2, "does not hold a JSON object"),
        (("hello", "hello.py", "-P", "absent.json"), 2, "'absent.json' cannot be read"),
        (("hello", "hello.py", "--web-secure", "true"), 2, "--web true"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(api, visp, tmp_path, source, arguments, status, sentence):
    (tmp_path / "note.xyz").write_text("?")
    (tmp_path / "x.jar").write_bytes(b"PK")
    (tmp_path / "folder").mkdir()
    done = visp("action", "create", *arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    assert sentence in done.stderr
    assert api.requests == []


@pytest.mark.parametrize(
    ("file", "kind"),
    [("package.json", "nodejs:default"), ("index.js", "nodejs:default"), ("__main__.py", "python:default")],
)
def test_a_folder_is_packed_and_its_kind_told_by_what_lies_in_it(api, visp, tmp_path, file, kind):
    folder = tmp_path / "app"
    (folder / "lib").mkdir(parents=True)
    (folder / file).write_text("{}")
    (folder / "lib" / "more.txt").write_text("more")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    api.answer("PUT /namespaces/_/actions/app", body={})
    assert visp("action", "create", "app", "app").exit_code == 0
    made = api.requests[0].body["exec"]
    assert made["kind"] == kind
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(made["code"]))) as archive:
        assert sorted(archive.namelist()) == sorted([file, "lib/more.txt"])


def test_a_sequence_names_its_parts_in_full(api, visp):
    api.answer("PUT /namespaces/_/actions/both", body={})
    assert visp("action", "create", "both", "--sequence", "a, pkg/b,/ns/c").exit_code == 0
    assert api.requests[0].body == {"exec": {"kind": "sequence", "components": ["/_/a", "/_/pkg/b", "/ns/c"]}}


def test_an_image_that_needs_an_engine_is_warned_about(api, visp):
    api.answer("PUT /namespaces/_/actions/box", body={})
    done = visp("action", "create", "box", "--docker", "me/image")
    assert (done.exit_code, done.stdout) == (0, "ok: created action box\n")
    assert "warning: this server has no container engine" in done.stderr
    assert api.requests[0].body == {"exec": {"kind": "blackbox", "image": "me/image"}}


def test_a_native_action_is_the_skeleton_with_code_and_no_warning(api, visp, tmp_path):
    (tmp_path / "exec").write_bytes(b"\x7fELF\xff\xfe")
    api.answer("PUT /namespaces/_/actions/raw", body={})
    done = visp("action", "create", "raw", "exec", "--native")
    assert (done.exit_code, done.stderr) == (0, "")
    code = base64.b64encode(b"\x7fELF\xff\xfe").decode()
    assert api.requests[0].body == {"exec": {"kind": "blackbox", "image": "openwhisk/dockerskeleton", "code": code}}


def test_a_copy_takes_code_parameters_and_annotations_and_what_is_given_wins(api, visp):
    source = {
        "exec": {"kind": "python:3.11", "code": "x", "binary": False},
        "parameters": [{"key": "a", "value": 1}, {"key": "b", "value": 2, "init": True}],
        "annotations": [{"key": "exec", "value": "python:3.11"}],
        "limits": {"memory": 512},
    }
    api.answer("GET /namespaces/other/actions/pkg/old", body=source)
    api.answer("PUT /namespaces/_/actions/new", body={})
    assert visp("action", "create", "new", "/other/pkg/old", "--copy", "-p", "a", "9").exit_code == 0
    assert api.requests[0].query == {"code": "true"}
    assert api.requests[1].body == {
        "exec": source["exec"],
        "parameters": [{"key": "b", "value": 2, "init": True}, {"key": "a", "value": 9}],
        "annotations": source["annotations"],
    }


def test_an_update_sends_only_what_is_given(api, visp):
    api.answer("PUT /namespaces/_/actions/hello", body={})
    done = visp("action", "update", "hello", "-m", "512", "--del-annotation", "a", "--del-annotation", "b")
    assert done.stdout == "ok: updated action hello\n"
    [request] = api.requests
    assert request.query == {"overwrite": "true"}
    assert request.body == {"limits": {"memory": 512}, "delAnnotations": ["a", "b"]}


def test_a_secret_is_kept_to_web_actions_on_update(api, visp):
    api.answer("GET /namespaces/_/actions/web", body={"annotations": [{"key": "web-export", "value": True}]})
    api.answer("GET /namespaces/_/actions/plain", body={"annotations": []})
    api.answer("PUT /namespaces/_/actions/web", body={})
    assert visp("action", "update", "plain", "--web-secure", "s3").exit_code == 2
    assert visp("action", "update", "web", "--web-secure", "s3").exit_code == 0
    assert api.requests[-1].body == {"annotations": [{"key": "require-whisk-auth", "value": "s3"}]}
    assert visp("action", "update", "web", "--web-secure", "false").exit_code == 0
    assert api.requests[-1].body == {"delAnnotations": ["require-whisk-auth"]}


def test_a_made_secret_is_a_whole_number(api, visp, source):
    api.answer("PUT /namespaces/_/actions/web", body={})
    assert visp("action", "create", "web", source, "--web", "true", "--web-secure", "true").exit_code == 0
    secret = {one["key"]: one["value"] for one in api.requests[0].body["annotations"]}["require-whisk-auth"]
    assert isinstance(secret, int)
    assert 0 <= secret < 2**53


# ── invoke ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def events(*given: tuple[str, str]) -> bytes:
    return b"retry: 1000\n\n:\n\n" + b"".join(f"event: {name}\ndata: {data}\n\n".encode() for name, data in given)


STREAM = {"Content-Type": "text/event-stream"}
SUCCESS = json.dumps({"activationId": ID, "response": {"success": True, "result": {"a": 1}}})
FAILURE = json.dumps({"activationId": ID, "response": {"success": False, "status": "x", "result": {"error": "mid"}}})
BEGUN = ("activation", json.dumps({"activationId": ID}))


def test_a_stream_is_printed_as_it_comes(api, visp):
    parts = [("part", '"one é\\n"'), ("part", '{"n": 1}'), ("bytes", "dHdv")]
    api.answer("POST /namespaces/_/actions/hello", body=events(BEGUN, *parts, ("record", SUCCESS)), headers=STREAM)
    done = visp("action", "invoke", "hello", "--stream", "-p", "n", "1")
    assert (done.exit_code, done.stdout) == (0, 'one é\n{"n": 1}\ntwo')
    [request] = api.requests
    assert request.headers["accept"] == "text/event-stream"
    assert (request.query, request.body) == ({"blocking": "true"}, {"n": 1})


def test_of_what_has_no_parts_the_result_is_printed(api, visp):
    api.answer("POST /namespaces/_/actions/hello", body=events(BEGUN, ("record", SUCCESS)), headers=STREAM)
    assert json.loads(visp("action", "invoke", "hello", "--stream").stdout) == {"a": 1}
    api.answers.clear()
    api.answer("POST /namespaces/_/actions/hello", body=SUCCESS.encode())
    assert json.loads(visp("action", "invoke", "hello", "--stream").stdout) == {"a": 1}


def test_a_stream_that_fails_ends_with_its_error(api, visp):
    given = events(BEGUN, ("part", '"one"'), ("record", FAILURE))
    api.answer("POST /namespaces/_/actions/hello", body=given, headers=STREAM)
    done = visp("action", "invoke", "hello", "--stream")
    assert (done.exit_code, done.stdout) == (246, "one")
    assert "Unable to invoke action 'hello': mid" in done.stderr


def test_a_stream_without_an_end_still_runs(api, visp):
    api.answer("POST /namespaces/_/actions/hello", body=events(BEGUN), headers=STREAM)
    assert visp("action", "invoke", "hello", "--stream").exit_code == 202


@pytest.mark.parametrize("flag", ["-b", "-r", "--wait", "--json"])
def test_a_stream_stands_alone(visp, flag):
    assert visp("action", "invoke", "hello", "--stream", flag).exit_code == 2


def test_an_invocation_that_is_not_waited_for(api, visp):
    api.answer("POST /namespaces/_/actions/pkg/hello", 202, {"activationId": ID})
    done = visp("action", "invoke", "pkg/hello", "-p", "n", "-1", "-p", "s", "NaN", "-p", "o", '{"a": [1]}')
    assert (done.exit_code, done.stdout) == (0, f"ok: invoked /_/pkg/hello with id {ID}\n")
    [request] = api.requests
    assert request.query == {"blocking": "false", "result": "false"}
    assert request.body == {"n": -1, "s": "NaN", "o": {"a": [1]}}


@pytest.mark.parametrize("command", ["action", "trigger"])
def test_terms_go_with_the_request(api, visp, command):
    api.answer(f"POST /namespaces/_/{command}s/hello", 202, {"activationId": ID})
    do = "invoke" if command == "action" else "fire"
    assert visp(command, do, "hello", "--delay", "10m", "--idempotency-key", "k 1").exit_code == 0
    assert visp(command, do, "hello", "--at", "2030-01-31T12:00:00Z").exit_code == 0
    first, second = api.requests
    assert (first.query.get("delay"), first.query.get("at")) == ("10m", None)
    assert first.headers["idempotency-key"] == "k 1"
    assert (second.query.get("delay"), second.query.get("at")) == (None, "2030-01-31T12:00:00Z")
    assert "idempotency-key" not in second.headers
    assert visp(command, do, "hello", "--at", "1", "--delay", "1").exit_code == 2


def test_what_begins_later_is_not_blocked_for_but_waited_for(api, visp):
    for flag in ("-b", "-r"):
        done = visp("action", "invoke", "hello", "--delay", "1", flag)
        assert (done.exit_code, "use --wait" in done.stderr) == (2, True), done.stderr
    assert api.requests == []


def test_a_result_is_printed_alone_with_its_numbers_as_they_came(api, visp):
    api.answer("POST /namespaces/_/actions/hello", body=b'{"z":1.50,"a":123456789012345678901234567890,"b":1e999}')
    done = visp("action", "invoke", "hello", "-r")
    assert done.exit_code == 0
    assert done.stdout == '{\n    "z": 1.50,\n    "a": 123456789012345678901234567890,\n    "b": 1e999\n}\n'
    assert api.requests[0].query == {"blocking": "true", "result": "true"}


@pytest.mark.parametrize("body", [b"[1,2]", b"5", b"null", b'"\\ud800"', b"no json", b"\xff\xfe", b""])
def test_any_answer_is_shown(api, visp, body):
    api.answer("POST /namespaces/_/actions/hello", body=body)
    done = visp("action", "invoke", "hello", "-r")
    assert done.exit_code == 0
    assert done.exception is None


def test_a_record_is_printed_below_its_id(api, visp):
    record = {"activationId": ID, "response": {"success": True, "result": {"a": 1}}}
    api.answer("POST /namespaces/_/actions/hello", body=record)
    done = visp("action", "invoke", "hello", "-b")
    first, rest = done.stdout.split("\n", 1)
    assert first == f"ok: invoked /_/hello with id {ID}"
    assert json.loads(rest) == record


def test_a_failing_action_shows_logs_and_error_on_stderr(api, visp):
    api.answer("POST /namespaces/_/actions/div", 502, {"error": "division by zero"}, {"x-openwhisk-activation-id": ID})
    api.answer(f"GET /namespaces/_/activations/{ID}/logs", body={"logs": [LOGS]})
    done = visp("action", "invoke", "div", "-r")
    assert (done.exit_code, done.stdout) == (246, "")
    assert done.stderr == (
        f'{LOGS}\n{{\n    "error": "division by zero"\n}}\n'
        f"error: Unable to invoke action 'div': division by zero (activation {ID})\n"
    )


def test_a_failing_record_without_logs_to_be_had_still_tells_its_error(api, visp):
    record = {"activationId": ID, "response": {"success": False, "status": "whisk internal error", "result": {}}}
    api.answer("POST /namespaces/_/actions/div", 500, record, {"x-openwhisk-activation-id": ID})
    done = visp("action", "invoke", "div", "-b")
    assert (done.exit_code, done.stdout) == (244, "")
    assert f"ok: invoked /_/div with id {ID}\n" in done.stderr
    assert done.stderr.endswith(f"whisk internal error (activation {ID})\n")


def test_json_of_a_failure_stays_on_stdout(api, visp):
    api.answer("POST /namespaces/_/actions/div", 502, {"error": {"deep": 1}}, {"x-openwhisk-activation-id": ID})
    done = visp("action", "invoke", "div", "-r", "--json")
    assert done.exit_code == 246
    assert json.loads(done.stdout) == {"error": {"deep": 1}}
    assert 'application error: {"deep":1}' in done.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("first\nsecond", "first …"),
        ("x" * 400, "x" * 300 + " …"),
        ("\n", r'application error: "\n"'),
        ("", 'application error: ""'),
    ],
)
def test_a_long_error_is_told_in_one_line(api, visp, error, told):
    api.answer("POST /namespaces/_/actions/div", 502, {"error": error})
    assert visp("action", "invoke", "div", "-r").stderr.endswith(f"action 'div': {told}\n")


def test_a_record_of_failure_under_200_is_a_failure(api, visp):
    record = {"activationId": ID, "response": {"success": False, "result": {"error": "no"}}}
    api.answer("POST /namespaces/_/actions/div", 200, record)
    assert visp("action", "invoke", "div", "-b").exit_code == 246
    assert visp("action", "invoke", "div", "-r").exit_code == 0


def test_an_invocation_that_takes_too_long_ends_with_202(api, visp):
    api.answer("POST /namespaces/_/actions/slow", 202, {"activationId": ID})
    done = visp("action", "invoke", "slow", "-r")
    assert done.exit_code == 202
    assert done.stdout == f"ok: invoked /_/slow, but the request has not yet finished, with id {ID}\n"


def test_an_api_error_is_told_from_an_application_error_by_its_code(api, visp):
    api.refuse("POST /namespaces/_/actions/a", 502, "refused")
    api.answer("POST /namespaces/_/actions/b", 502, {"error": "thrown"})
    api.answer("POST /namespaces/_/actions/c", 503, b"<html>")
    first, second, third = (visp("action", "invoke", name, "-r") for name in "abc")
    assert first.stderr == "error: Unable to invoke action 'a': refused (code tid7)\n"
    assert second.stderr.endswith("error: Unable to invoke action 'b': thrown\n")
    assert "The connection failed, or timed out. (HTTP status code 503)" in third.stderr
    assert [first.exit_code, second.exit_code, third.exit_code] == [246, 246, 247]


def test_arguments_from_standard_input(api, visp):
    api.answer("POST /namespaces/_/actions/hello", 202, {"activationId": ID})
    assert visp("action", "invoke", "hello", "-P", "-", input='{"a": 1}').exit_code == 0
    assert api.requests[0].body == {"a": 1}


# ── get, list, delete ───────────────────────────────────────────────────────────────────────────────────────────────

ACTION = {
    "namespace": "guest/pkg",
    "name": "hello",
    "publish": False,
    "exec": {"kind": "python:3.11", "code": SOURCE, "binary": False},
    "annotations": [
        {"key": "exec", "value": "python:3.11"},
        {"key": "description", "value": "greets"},
        {"key": "parameters", "value": [{"name": "name"}, {"name": "place"}]},
    ],
    "parameters": [{"key": "place", "value": "Earth"}],
}


def test_get_shows_a_document_or_a_field(api, visp):
    api.answer("GET /namespaces/_/actions/pkg/hello", body=ACTION)
    whole = visp("action", "get", "pkg/hello")
    assert whole.stdout.startswith("ok: got action pkg/hello\n{")
    assert api.requests[0].query == {"code": "false"}
    field = visp("action", "get", "pkg/hello", "exec")
    assert field.stdout.startswith("ok: got action pkg/hello, displaying field exec\n{")
    assert json.loads(visp("action", "get", "pkg/hello", "--json").stdout) == ACTION
    assert json.loads(visp("action", "get", "pkg/hello", "name", "--json").stdout) == "hello"
    absent = visp("action", "get", "pkg/hello", "nothing")
    assert absent.exit_code == 1
    assert "Invalid field filter 'nothing'" in absent.stderr


def test_get_of_what_is_not_there(visp):
    done = visp("action", "get", "hello")
    assert done.exit_code == 148
    assert "The requested resource does not exist. (code tid404)" in done.stderr


def test_get_url(api, visp):
    api.answer("GET /namespaces/_/actions/pkg/hello", body=ACTION)
    assert visp("action", "get", "pkg/hello", "--url").stdout.splitlines()[1] == (
        f"{api.url}/api/v1/namespaces/guest/actions/pkg/hello"
    )
    web = ACTION | {"namespace": "guest", "annotations": [{"key": "web-export", "value": True}]}
    api.answers.clear()
    api.answer("GET /namespaces/_/actions/hello", body=web)
    assert visp("action", "get", "hello", "--url").stdout.splitlines()[1] == f"{api.url}/api/v1/web/guest/default/hello"


def test_get_summary(api, visp):
    api.answer("GET /namespaces/_/actions/pkg/hello", body=ACTION)
    assert visp("action", "get", "pkg/hello", "-s").stdout == (
        "action /guest/pkg/hello: greets\n   (parameters: name, *place)\n"
    )


def test_save_writes_the_code_and_never_over_a_file(api, visp, tmp_path):
    api.answer("GET /namespaces/_/actions/pkg/hello", body=ACTION)
    done = visp("action", "get", "pkg/hello", "--save")
    assert done.stdout == f"ok: saved action code to {tmp_path / 'hello.py'}\n"
    assert (tmp_path / "hello.py").read_text() == SOURCE
    assert api.requests[0].query == {"code": "true"}
    again = visp("action", "get", "pkg/hello", "--save")
    assert again.exit_code == 2
    assert "already exists" in again.stderr


def test_save_of_an_archive_and_of_what_has_no_code(api, visp, tmp_path):
    packed = ACTION | {"exec": {"kind": "nodejs:20", "binary": True, "code": base64.b64encode(b"PK\xff").decode()}}
    api.answer("GET /namespaces/_/actions/hello", body=packed)
    assert visp("action", "get", "hello", "--save").exit_code == 0
    assert (tmp_path / "hello.zip").read_bytes() == b"PK\xff"
    api.answer("GET /namespaces/_/actions/both", body=ACTION | {"exec": {"kind": "sequence", "components": []}})
    assert "it is a sequence" in visp("action", "get", "both", "--save").stderr


def test_list_prints_lines_as_wsk(api, visp):
    api.answer("GET /namespaces/_/actions", body=[ACTION, ACTION | {"name": "abc", "publish": True, "annotations": 5}])
    done = visp("action", "list", "-s", "1", "-l", "2")
    assert done.stdout.splitlines() == [
        "actions",
        f"{'/guest/pkg/hello':<70} private python:3.11",
        f"{'/guest/pkg/abc':<70} shared unknown",
    ]
    assert api.requests[0].query == {"skip": "1", "limit": "2"}
    by_name = visp("action", "list", "-n")
    assert by_name.stdout.splitlines()[1].startswith("/guest/pkg/abc")


@pytest.mark.parametrize(
    ("where", "path"),
    [("pkg", "/namespaces/_/actions/pkg/"), ("/ns", "/namespaces/ns/actions"), ("/ns/p", "/namespaces/ns/actions/p/")],
)
def test_list_of_a_namespace_or_a_package(api, visp, where, path):
    api.answer(f"GET {path}", body=[])
    assert visp("action", "list", where).exit_code == 0
    assert api.routes == [f"GET {path}"]


@pytest.mark.parametrize("body", [b"{}", b"null", b'[5, null, {"name": 3}]', b"?"])
def test_lists_of_anything_else_do_not_crash(api, visp, body):
    api.answer("GET /namespaces/_/actions", body=body)
    assert visp("action", "list").exit_code == 0


def test_delete(api, visp):
    api.answer("DELETE /namespaces/_/actions/hello", body=ACTION)
    assert visp("action", "delete", "hello").stdout == "ok: deleted action hello\n"
