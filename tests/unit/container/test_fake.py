"""What an action's code says of a fake container."""

import msgspec

from visp.container.fake import OK, Act, Script, read_script


def line(code: str) -> bytes:
    return msgspec.json.encode({"value": {"name": "a", "main": "main", "binary": False, "code": code, "env": {}}})


def test_code_is_the_script() -> None:
    script = read_script(line('{"init_ms": 5, "run_ms": 50, "answer": {"a": 1}}'))
    assert script.init == Act(after_s=0.005)
    assert script.run == Act(reply=b'{"a": 1}', after_s=0.05)


def test_other_code_answers_at_once() -> None:
    for code in ("{}", "function main() {}", "def main(args):\n    return {}", "[1]", '{"run_ms": "long"}', ""):
        script = read_script(line(code))
        assert (script.init, script.run) == (OK, OK)
    assert read_script(b"no JSON") == Script()
