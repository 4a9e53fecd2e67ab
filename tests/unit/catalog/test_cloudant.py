"""Calls of CouchDB: which request each action makes."""

from __future__ import annotations

import base64
import json

import pytest

AUTH = "Basic " + base64.b64encode(b"me:secret").decode()
DOC = {"_id": "a/b", "_rev": "1-x", "v": 1}
CALLS = [
    ("create-database", {}, "PUT", "/shop", {}, None),
    ("read-database", {}, "GET", "/shop", {}, None),
    ("delete-database", {}, "DELETE", "/shop", {}, None),
    ("read-updates-feed", {"params": {"timeout": 5}}, "GET", "/_db_updates", {"timeout": "5"}, None),
    ("create-document", {"doc": {"v": 1}, "params": '{"batch":"ok"}'}, "POST", "/shop", {"batch": "ok"}, {"v": 1}),
    ("create-document", {"doc": '{"v": 2}'}, "POST", "/shop", {}, {"v": 2}),
    ("read", {"id": "a/b"}, "GET", "/shop/a%2Fb", {}, None),
    ("read", {"docid": "x", "params": {"rev": "1-x"}}, "GET", "/shop/x", {"rev": "1-x"}, None),
    ("read-document", {"docid": "_design/d"}, "GET", "/shop/_design/d", {}, None),
    ("write", {"doc": {"v": 1}}, "POST", "/shop", {}, {"v": 1}),
    ("write", {"doc": DOC, "overwrite": "false"}, "PUT", "/shop/a%2Fb", {}, DOC),
    (
        "update-document",
        {"doc": DOC, "params": {"new_edits": False}},
        "PUT",
        "/shop/a%2Fb",
        {"new_edits": "false"},
        DOC,
    ),
    ("delete-document", {"docid": "x", "docrev": "1-x"}, "DELETE", "/shop/x", {"rev": "1-x"}, None),
    ("list-documents", {"params": {"startkey": "a"}}, "GET", "/shop/_all_docs", {"startkey": '"a"'}, None),
    (
        "list-design-documents",
        {"includedocs": "true"},
        "GET",
        "/shop/_all_docs",
        {"startkey": '"_design"', "endkey": '"_design0"', "include_docs": "true"},
        None,
    ),
    (
        "create-query-index",
        {"index": {"index": {"fields": ["v"]}}},
        "POST",
        "/shop/_index",
        {},
        {"index": {"fields": ["v"]}},
    ),
    ("list-query-indexes", {}, "GET", "/shop/_index", {}, None),
    ("delete-query-index", {"docid": "d", "indexname": "i"}, "DELETE", "/shop/_index/_design/d/json/i", {}, None),
    ("exec-query-find", {"query": '{"selector": {}}'}, "POST", "/shop/_find", {}, {"selector": {}}),
    (
        "exec-query-search",
        {"docid": "d", "indexname": "i", "search": {"q": "a:b"}},
        "POST",
        "/shop/_design/d/_search/i",
        {},
        {"q": "a:b"},
    ),
    (
        "exec-query-view",
        {"docid": "d", "viewname": "v", "params": {"key": 1}},
        "GET",
        "/shop/_design/d/_view/v",
        {"key": "1"},
        None,
    ),
    (
        "exec-query-view",
        {"docid": "_design/d", "viewname": "v", "params": {"keys": [1], "limit": 2}},
        "POST",
        "/shop/_design/d/_view/v",
        {"limit": "2"},
        {"keys": [1]},
    ),
    ("manage-bulk-documents", {"docs": [{"v": 1}]}, "POST", "/shop/_bulk_docs", {}, {"docs": [{"v": 1}]}),
    ("manage-bulk-documents", {"docs": '{"docs": []}'}, "POST", "/shop/_bulk_docs", {}, {"docs": []}),
    ("read-changes-feed", {"params": {"since": "now"}}, "GET", "/shop/_changes", {"since": "now"}, None),
    (
        "delete-attachment",
        {"docid": "x", "docrev": "2", "attachmentname": "n"},
        "DELETE",
        "/shop/x/n",
        {"rev": "2"},
        None,
    ),
]


def account(standin) -> dict[str, object]:
    given = {"host": "127.0.0.1", "port": standin.port, "protocol": "http", "username": "me", "password": "secret"}
    return given | {"dbname": "shop"}


@pytest.mark.parametrize(("name", "args", "method", "path", "query", "body"), CALLS, ids=lambda value: str(value)[:24])
def test_each_asks_for_what_it_should(run, standin, name, args, method, path, query, body) -> None:
    assert run(f"cloudant/{name}", account(standin) | args) == {"ok": True}
    heard = standin.one
    assert (heard.method, heard.path, heard.query) == (method, path, query)
    assert heard.headers["authorization"] == AUTH
    assert (json.loads(heard.body) if heard.body else None) == body


def test_a_url_stands_for_all(run, standin) -> None:
    standin.answer = lambda _: (200, ["a", "b"])
    url = standin.url.replace("http://", "http://me:secret@")
    assert run("cloudant/list-all-databases", {"url": url}) == {"all_databases": ["a", "b"]}
    assert standin.one.headers["authorization"] == AUTH


def test_bulk_results_are_named(run, standin) -> None:
    standin.answer = lambda _: (201, [{"ok": True, "id": "a", "rev": "1-x"}])
    result = run("cloudant/manage-bulk-documents", account(standin) | {"docs": [{}]})
    assert result == {"results": [{"ok": True, "id": "a", "rev": "1-x"}]}


@pytest.mark.parametrize("there", [True, False])
def test_overwriting_takes_the_revision_that_is_there(run, standin, there: bool) -> None:
    def answer(heard):
        if heard.method == "GET":
            return (200, {"_rev": "7-y"}) if there else (404, {"error": "not_found", "reason": "missing"})
        return 201, {"ok": True}

    standin.answer = answer
    args = account(standin) | {"doc": json.dumps({"_id": "x", "v": 1}), "overwrite": True}
    assert run("cloudant/write", args) == {"ok": True}
    assert [heard.method for heard in standin.heard] == ["GET", "PUT"]
    assert standin.heard[1].json == {"_id": "x", "v": 1} | ({"_rev": "7-y"} if there else {})


def test_a_view_is_taken_out_of_its_document(run, standin) -> None:
    doc = {"_id": "_design/d", "_rev": "3", "views": {"v": {"map": "f"}, "w": {"map": "g"}}}
    standin.answer = lambda heard: (200, doc if heard.method == "GET" else {"ok": True})
    assert run("cloudant/delete-view", account(standin) | {"docid": "d", "viewname": "v"}) == {"ok": True}
    assert standin.heard[1].json == doc | {"views": {"w": {"map": "g"}}}


def test_attachments(run, standin) -> None:
    args = account(standin) | {"docid": "x", "attachmentname": "a b.txt"}
    sent = args | {"docrev": "1", "attachment": "aGk=", "contenttype": "text/plain", "encoding": "base64"}
    for name in ("create-attachment", "update-attachment"):
        assert run(f"cloudant/{name}", sent) == {"ok": True}
    for heard in standin.heard:
        assert (heard.method, heard.path, heard.query, heard.body) == ("PUT", "/shop/x/a%20b.txt", {"rev": "1"}, b"hi")
        assert heard.headers["content-type"] == "text/plain"
    standin.headers = {"Content-Type": "image/png"}
    standin.answer = lambda _: (200, b"\xff\x00")
    result = run("cloudant/read-attachment", args)
    assert result == {"attachment": "/wA=", "contenttype": "image/png", "encoding": "base64"}


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("host", "cloudant account host is required."),
        ("username", "cloudant account username is required."),
        ("password", "cloudant account password is required."),
        ("dbname", "dbname is required."),
        ("docid", "docid is required."),
        ("docrev", "docrev is required."),
    ],
)
def test_what_is_missing_is_named(run, standin, missing: str, sentence: str) -> None:
    args = account(standin) | {"docid": "x", "docrev": "1"}
    del args[missing]
    assert run("cloudant/delete-document", args) == {"error": sentence}
    assert not standin.heard


def test_the_databases_error_is_the_result(run, standin) -> None:
    standin.answer = lambda _: (412, {"error": "file_exists", "reason": "it is there"})
    result = run("cloudant/create-database", account(standin))
    assert result == {"error": {"error": "file_exists", "reason": "it is there", "statusCode": 412}}
