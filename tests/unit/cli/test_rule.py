"""`visp rule` and `visp namespace`."""

import json

RULE = {
    "namespace": "guest",
    "name": "r",
    "trigger": {"path": "guest", "name": "t"},
    "action": {"path": "guest/pkg", "name": "a"},
    "status": "active",
}


def test_create_and_update_name_trigger_and_action_in_full(api, visp):
    api.answer("PUT /namespaces/_/rules/r", body=RULE)
    assert visp("rule", "create", "r", "t", "pkg/a").stdout == "ok: created rule r\n"
    assert visp("rule", "update", "r", "/ns/t", "/ns/pkg/a").stdout == "ok: updated rule r\n"
    first, second = api.requests
    assert (first.query, first.body) == ({"overwrite": "false"}, {"trigger": "/_/t", "action": "/_/pkg/a"})
    assert (second.query, second.body) == ({"overwrite": "true"}, {"trigger": "/ns/t", "action": "/ns/pkg/a"})


def test_enable_and_disable(api, visp):
    api.answer("POST /namespaces/_/rules/r", body=b"OK")
    assert visp("rule", "enable", "r").stdout == "ok: enabled rule r\n"
    assert visp("rule", "disable", "r").stdout == "ok: disabled rule r\n"
    assert [request.body for request in api.requests] == [{"status": "active"}, {"status": "inactive"}]


def test_status_get_and_summary(api, visp):
    api.answer("GET /namespaces/_/rules/r", body=RULE)
    assert visp("rule", "status", "r").stdout == "ok: rule r is active\n"
    assert json.loads(visp("rule", "status", "r", "--json").stdout) == RULE
    assert visp("rule", "get", "r", "status").stdout == 'ok: got rule r, displaying field status\n"active"\n'
    assert visp("rule", "get", "r", "-s").stdout == "rule /guest/r\n   (/guest/t invokes /guest/pkg/a; active)\n"


def test_list_asks_each_rule_for_its_status_and_passes_over_what_has_gone(api, visp):
    api.answer("GET /namespaces/_/rules", body=[RULE | {"status": None}, RULE | {"name": "gone"}])
    api.answer("GET /namespaces/_/rules/r", body=RULE | {"status": "inactive"})
    assert visp("rule", "list").stdout.splitlines() == [
        "rules",
        f"{'/guest/r':<70} {'private':<20} inactive",
        f"{'/guest/gone':<70} private",
    ]


def test_delete_can_disable_first(api, visp):
    api.answer("POST /namespaces/_/rules/r", body=b"OK")
    api.answer("DELETE /namespaces/_/rules/r", body=RULE)
    assert visp("rule", "delete", "r", "--disable").stdout == "ok: deleted rule r\n"
    assert api.routes == ["POST /namespaces/_/rules/r", "DELETE /namespaces/_/rules/r"]
    assert visp("rule", "delete", "r").exit_code == 0
    assert api.routes[2:] == ["DELETE /namespaces/_/rules/r"]


def test_namespaces(api, visp):
    api.answer("GET /namespaces", body=["guest"])
    assert visp("namespace", "list").stdout == "namespaces\nguest\n"
    assert visp("namespace", "list", "--json").stdout == '[\n    "guest"\n]\n'
