from __future__ import annotations

import json

BINDING = {"namespace": "other", "name": "utils"}


def test_what_is_given_is_sent(api, visp):
    api.answer("PUT /namespaces/_/packages/tools", body={})
    done = visp("package", "create", "tools", "-p", "n", "1", "-a", "description", "tools", "--shared", "yes")
    assert (done.exit_code, done.stdout) == (0, "ok: created package tools\n")
    [request] = api.requests
    assert request.query == {"overwrite": "false"}
    assert request.body == {
        "parameters": [{"key": "n", "value": 1}],
        "annotations": [{"key": "description", "value": "tools"}],
        "publish": True,
    }


def test_an_update_says_no_more_than_it_was_told(api, visp):
    api.answer("PUT /namespaces/_/packages/tools", body={})
    assert visp("package", "update", "tools", "--shared", "no").exit_code == 0
    [request] = api.requests
    assert (request.query, request.body) == ({"overwrite": "true"}, {"publish": False})


def test_a_binding_names_its_provider(api, visp):
    api.answer("PUT /namespaces/_/packages/mine", body={})
    done = visp("package", "bind", "/other/utils", "mine", "-p", "k", "v")
    assert (done.exit_code, done.stdout) == (0, "ok: created binding mine\n")
    [request] = api.requests
    assert request.body == {"parameters": [{"key": "k", "value": "v"}], "binding": BINDING}


def test_one_is_shown_with_what_is_in_it(api, visp):
    document = {"namespace": "guest", "name": "tools", "actions": [{"name": "a"}], "feeds": [{"name": "f"}]}
    api.answer("GET /namespaces/_/packages/tools", body=document)
    assert visp("package", "get", "tools").stdout.startswith("ok: got package tools\n{")
    assert json.loads(visp("package", "get", "tools", "feeds", "--json").stdout) == [{"name": "f"}]


def test_a_summary_describes_the_package_and_each_of_its_actions(api, visp):
    def annotations(description, *names):
        told = [{"name": name, "required": True} for name in names]
        return [{"key": "description", "value": description}, {"key": "parameters", "value": told}]

    document = {
        "namespace": "guest",
        "name": "tools",
        "annotations": annotations("Tools", "url"),
        "parameters": [{"key": "url", "value": ""}],
        "actions": [{"name": "a", "annotations": annotations("Acts", "b", "a")}],
        "feeds": [{"name": "f"}],
    }
    api.answer("GET /namespaces/_/packages/tools", body=document)
    assert visp("package", "get", "tools", "-s").stdout == (
        "package /guest/tools: Tools\n   (parameters: *url)\n"
        " action /guest/tools/a: Acts\n   (parameters: a, b)\n"
        " feed /guest/tools/f\n   (parameters: none defined)\n"
    )


def test_those_of_a_namespace_are_listed(api, visp):
    packages = [{"namespace": "other", "name": name, "publish": name == "b"} for name in "ba"]
    api.answer("GET /namespaces/other/packages", body=packages)
    lines = visp("package", "list", "/other", "-n").stdout.splitlines()
    assert [line.split() for line in lines] == [["packages"], ["/other/a", "private"], ["/other/b", "shared"]]


def test_one_is_deleted_with_what_is_in_it_if_that_is_meant(api, visp):
    api.answer("DELETE /namespaces/_/packages/tools", body={})
    assert visp("package", "delete", "tools").stdout == "ok: deleted package tools\n"
    assert visp("package", "delete", "tools", "--force").exit_code == 0
    assert [request.query for request in api.requests] == [{}, {"force": "true"}]


def test_a_package_lies_in_no_other(api, visp):
    done = visp("package", "create", "a/b")
    assert (done.exit_code, api.requests) == (2, [])
    assert "packages lie in no other" in done.stderr
