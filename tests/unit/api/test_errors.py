"""Every error becomes one answer: its status, its sentence, the headers that go with it."""

import json

import pytest

from visp import errors
from visp.api.errors import CORS, HttpAnswer, error_answer, json_answer, render

ROUTED = [
    (errors.BadRequest("no"), 400),
    (errors.Forbidden("no"), 403),
    (errors.NotFound(), 404),
    (errors.Conflict("no"), 409),
    (errors.TooLarge("no"), 413),
    (errors.Throttled("no"), 429),
    (errors.ServiceError(), 500),
    (errors.Corrupt(), 500),
    (errors.StoreUnavailable(), 503),
    (errors.Overloaded(), 503),
    (errors.StoreFull(), 507),
]
UNROUTED = [
    (errors.Malformed("no"), 400),
    (errors.BadQuery("x", "no"), 400),
    (errors.BadName("no"), 400),
    (errors.Unauthorized("no"), 401),
    (errors.UnknownRoute(), 404),
    (errors.BodyTooLarge(2, 1), 413),
    (errors.WrongContentType("text/plain"), 415),
]


@pytest.mark.parametrize(("error", "status"), ROUTED + UNROUTED)
def test_every_error_has_its_status_and_its_code(error: errors.RequestError, status: int) -> None:
    answer = render(error, "tid")
    assert answer.status == status
    assert json.loads(answer.body) == {"error": error.sentence, "code": "tid"}
    assert answer.content_type == "application/json"
    assert answer.is_routed is ((error, status) in ROUTED)


def test_what_nobody_foresaw_is_logged_and_tells_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    answer = render(RuntimeError("a secret"), "tid")
    assert answer.status == 500
    assert json.loads(answer.body) == {"error": "There was an internal server error.", "code": "tid"}
    logged = capsys.readouterr().err
    assert "api.failed" in logged
    assert "transid=tid" in logged
    assert logged.count("\n") == 1


def test_headers_of_a_routed_answer() -> None:
    answer = HttpAnswer(202, b"{}", "application/json", activation_id="abc", headers=(("X-A", "b"),))
    assert answer.all_headers("tid") == [
        ("X-Request-ID", "tid"),
        *CORS,
        ("x-openwhisk-activation-id", "abc"),
        ("Content-Type", "application/json"),
        ("X-A", "b"),
    ]


def test_headers_of_an_answer_before_any_route() -> None:
    headers = dict(render(errors.Unauthorized("no"), "tid").all_headers("tid"))
    assert headers["WWW-Authenticate"] == 'Basic realm="OpenWhisk secure realm",charset=UTF-8'
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(("error", "seconds"), [(errors.StoreFull(), "10"), (errors.Overloaded(), "1")])
def test_what_may_be_tried_again_says_when(error: errors.ServiceError, seconds: str) -> None:
    assert ("Retry-After", seconds) in render(error, "tid").headers


def test_a_throttled_caller_is_not_told_when() -> None:
    assert render(errors.Throttled("no", 7), "tid").headers == (("Retry-After", "7"),)


def test_json_is_compact_and_not_escaped() -> None:
    assert json_answer({"a": [1, "é"]}).body == '{"a":[1,"é"]}'.encode()
    assert error_answer(400, "é\n", "tid").body == '{"code":"tid","error":"é\\n"}'.encode()
