"""Swift actions: every form of an action's function, packages, the helper `Whisk`."""

from __future__ import annotations

import pytest
from tests.system.compiled import PRECOMPILED, PROGRAMS, behaves, is_here, put, response, result, zipped, zipped_folder
from tests.system.conftest import Api

pytestmark = [
    pytest.mark.all,  # each code is compiled: some seconds
    pytest.mark.skipif(not is_here("swift:5.7"), reason="swift is not here: visp runtime install swift"),
]

TYPES = """
struct Input: Codable { let name: String? }
struct Output: Codable { let greeting: String }
enum Bad: Error { case name }
"""
FORMS = {
    "completion": TYPES
    + """
func main(param: Input, completion: (Output?, Error?) -> Void) -> Void {
    guard let name = param.name else { return completion(nil, Bad.name) }
    completion(Output(greeting: "Hello, \\(name)!"), nil)
}
""",
    "completion-later": "import Dispatch\n"
    + TYPES
    + """
func main(param: Input, completion: @escaping (Output?, Error?) -> Void) -> Void {
    DispatchQueue.main.async {
        guard let name = param.name else { return completion(nil, Bad.name) }
        completion(Output(greeting: "Hello, \\(name)!"), nil)
    }
}
""",
    "async": TYPES
    + """
func main(param: Input) async throws -> Output {
    try await Task.sleep(nanoseconds: 1_000_000)
    guard let name = param.name else { throw Bad.name }
    return Output(greeting: "Hello, \\(name)!")
}
""",
    "throws": TYPES
    + """
func main(param: Input) throws -> Output {
    guard let name = param.name else { throw Bad.name }
    return Output(greeting: "Hello, \\(name)!")
}
""",
    "dictionary": """
enum Bad: Error { case name }
func main(args: [String: Any]) throws -> [String: Any] {
    guard let name = args["name"] as? String else { throw Bad.name }
    return ["greeting": "Hello, \\(name)!"]
}
""",
}
WITHOUT_INPUT = """
struct Output: Codable { let greeting: String }
func hello(completion: (Output?, Error?) -> Void) -> Void { completion(Output(greeting: "Hello!"), nil) }
func later() async -> Output { Output(greeting: "Hello later!") }
"""
CALLS = """
func main(args: [String: Any]) -> [String: Any] {
    let answer = Whisk.invoke(actionNamed: "greeter", withParameters: ["name": "Whisk"])
    let response = answer["response"] as? [String: Any]
    return ["got": response?["result"] ?? answer]
}
"""


@pytest.mark.parametrize("kind", ["swift:5.3", "swift:6.0"])
def test_program(api: Api, kind: str) -> None:
    name = put(api, kind, (PROGRAMS / "swift/everything.swift").read_text())
    behaves(api, name)
    number = response(api, name, {"do": "number"})
    assert number["status"] == "application error"
    assert "no JSON object" in number["result"]["error"]


@pytest.mark.parametrize("form", FORMS)
def test_form(form: str, api: Api) -> None:
    name = put(api, "swift:5.7", FORMS[form])
    assert result(api, name, {"name": "Zoë"}) == {"greeting": "Hello, Zoë!"}
    failed = response(api, name, {})
    assert (failed["status"], failed["result"]) == ("application error", {"error": "name"})
    assert result(api, name, {"name": "again"}) == {"greeting": "Hello, again!"}


@pytest.mark.parametrize(("main", "said"), [("hello", "Hello!"), ("later", "Hello later!")])
def test_form_without_input_and_with_another_name(main: str, said: str, api: Api) -> None:
    assert result(api, put(api, "swift:5.7", WITHOUT_INPUT, main), {"name": "x"}) == {"greeting": said}


def test_package(api: Api) -> None:
    assert result(api, put(api, "swift:5.7", zipped_folder(PROGRAMS / "swift/package")), {}) == {"beside": "imported"}


def test_helper_calls_the_platform(api: Api) -> None:
    api.action("greeter", "const main = ({ name }) => ({ greeting: `Hello, ${name}!` })")
    got = result(api, put(api, "swift:5.7", CALLS), {})
    assert got == {"got": {"greeting": "Hello, Whisk!"}}


def test_what_does_not_compile(api: Api) -> None:
    got = response(api, put(api, "swift:5.7", "func main(args: Any) -> Any {\n  return nope\n}"), {})
    assert got["status"] == "action developer error"
    assert "main.swift:2:10: error: cannot find 'nope' in scope" in got["result"]["error"]


def test_compiled_elsewhere(api: Api) -> None:
    name = put(api, "swift:5.7", zipped({"exec": PRECOMPILED.encode()}, 0o755))
    assert result(api, name, {"name": "exec"}) == {"by": "exec"}
