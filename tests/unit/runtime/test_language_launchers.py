"""The launchers of PHP, Ruby and Java, where each behaves in its own way."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtime.wires import Wire, init, launcher, run, wired

NOT_A_DICTIONARY = "!The action did not return a dictionary or array."
TWICE = "!Cannot initialize the action more than once."
MISSING = "!Missing main/no code to execute."


def needs(program: str, package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not here: apt-get install {package}")


def folder_of(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = path / "code" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path / "code"


# ── PHP ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@needs("php", "php-cli")
class TestPhp:
    @pytest.fixture
    def wire(self, tmp_path: Path) -> Iterator[Wire]:
        argv = ["php", "-d", "display_errors=stderr", "-d", "log_errors=0", launcher("php/launcher.php")]
        with wired(argv, tmp_path) as wire:
            yield wire

    @pytest.mark.parametrize(
        ("returned", "result"),
        [
            ("['a' => 1.0, 'ü' => ['b']]", '{"a":1.0,"ü":["b"]}'),
            ("new ArrayObject(['a' => 1])", '{"a":1}'),
            ("(object) ['a' => []]", '{"a":[]}'),
            ("new stdClass", "{}"),
            ("null", "{}"),
            ("[]", "{}"),
            ("[1, 2]", "[1,2]"),
        ],
    )
    def test_results(self, wire: Wire, returned: str, result: str) -> None:
        assert wire.asked(init(code=f"<?php function main($args) {{ return {returned}; }}")) == {"ok": True}
        assert wire.ask(run({})).decode() == result

    @pytest.mark.parametrize("returned", ["5", "'text'", "true", "['a' => \"\\xff\"]", "new DateTime"])
    def test_what_is_no_result(self, wire: Wire, returned: str) -> None:
        wire.ask(init(code=f"<?php function main($args) {{ return {returned}; }}"))
        assert wire.asked(run({})) == NOT_A_DICTIONARY

    def test_fatal_error_is_told_before_the_end(self, wire: Wire) -> None:
        wire.ask(
            init(
                code="<?php function main($args) { ini_set('memory_limit', '8M'); return [str_repeat('x', 1 << 24)]; }"
            )
        )
        assert wire.asked(run({})) == NOT_A_DICTIONARY
        assert "Allowed memory size" in wire.logs()[1]
        assert "An error occurred running the action." in wire.logs()[1]

    def test_exit_is_an_end_without_a_reply(self, wire: Wire) -> None:
        wire.ask(init(code="<?php function main($args) { exit(3); }"))
        assert wire.ask(run({})) == b""

    def test_output_that_is_held_is_out_before_the_reply(self, wire: Wire) -> None:
        wire.ask(init(code="<?php function main($args) { ob_start(); echo 'held'; return []; }"))
        wire.ask(run({}))
        assert wire.logs()[0] == "held"

    def test_programs_that_it_starts_do_not_read_its_lines(self, wire: Wire) -> None:
        wire.ask(init(code="<?php function main($args) { return ['read' => shell_exec('cat')]; }"))
        assert wire.asked(run({})) == {"read": None}
        assert wire.asked(run({})) == {"read": None}

    def test_archive_without_index(self, wire: Wire, tmp_path: Path) -> None:
        assert (
            wire.asked(init(folder_of(tmp_path, {"a.php": ""})))
            == "!Zipped actions must contain index.php at the root."
        )

    def test_class_method_is_a_main(self, wire: Wire) -> None:
        code = "<?php class A { static function b($args) { return ['by' => 'A::b']; } }"
        assert wire.asked(init(code=code, main="A::b")) == {"ok": True}
        assert wire.asked(run({})) == {"by": "A::b"}

    def test_second_init(self, wire: Wire) -> None:
        line = init(code="<?php function main($args) { return ['n' => 1]; }")
        assert wire.asked(line) == {"ok": True}
        assert wire.asked(line) == TWICE
        assert wire.asked(run({})) == {"n": 1}

    @pytest.mark.parametrize("code", ["", " \n"])
    def test_no_code(self, wire: Wire, code: str) -> None:
        assert wire.asked(init(code=code)) == MISSING


# ── Ruby ────────────────────────────────────────────────────────────────────────────────────────────────────────


@needs("ruby", "ruby")
class TestRuby:
    @pytest.fixture
    def wire(self, tmp_path: Path) -> Iterator[Wire]:
        with wired(["ruby", launcher("ruby/launcher.rb")], tmp_path) as wire:
            yield wire

    @pytest.mark.parametrize(
        ("returned", "result"),
        [
            ("{ a: 1.0, 'ü' => [nil] }", '{"a":1.0,"ü":[null]}'),
            ("[1, :b]", '[1,"b"]'),
            ("Struct.new(:a) { def to_json(*) = '{}' }.new(1)", "{}"),
            ("{}", "{}"),
        ],
    )
    def test_results(self, wire: Wire, returned: str, result: str) -> None:
        assert wire.asked(init(code=f"def main(args)\n  {returned}\nend")) == {"ok": True}
        assert wire.ask(run({})).decode() == result

    @pytest.mark.parametrize("returned", ["nil", "5", "'text'", "Object.new"])
    def test_what_is_no_result(self, wire: Wire, returned: str) -> None:
        wire.ask(init(code=f"def main(args)\n  {returned}\nend"))
        assert wire.asked(run({})) == NOT_A_DICTIONARY

    @pytest.mark.parametrize("ends", ["exit", "exit 3", "abort 'why'"])
    def test_exit_is_an_error_of_the_run(self, wire: Wire, ends: str) -> None:
        wire.ask(init(code=f"def main(args)\n  {ends}\nend"))
        assert wire.asked(run({})) == "!Invalid Action: An error occurred running the action"

    def test_exception_says_what_it_was(self, wire: Wire) -> None:
        wire.ask(init(code="def main(args)\n  raise ArgumentError, 'why'\nend"))
        assert wire.asked(run({})) == "!Invalid Action: the execution was not successful. / why (ArgumentError)"
        assert "main.rb:2:in `main': why (ArgumentError)" in wire.logs()[1]

    def test_programs_that_it_starts_have_neither_channel(self, wire: Wire) -> None:
        code = "def main(args)\n  { read: `cat`, open: `ls /proc/self/fd`.split.map(&:to_i).max < 100 }\nend"
        wire.ask(init(code=code))
        assert wire.asked(run({})) == {"read": "", "open": True}

    def test_archive_without_main(self, wire: Wire, tmp_path: Path) -> None:
        said = wire.asked(init(folder_of(tmp_path, {"a.rb": ""})))
        assert said == "!Invalid Ruby Code: zipped actions must contain main.rb at the root."

    def test_gemfile_without_a_cache(self, wire: Wire, tmp_path: Path) -> None:
        said = wire.asked(init(folder_of(tmp_path, {"main.rb": "", "Gemfile": ""})))
        assert said.startswith("!Invalid Binary: vendor/cache folder is not found.")

    def test_second_init(self, wire: Wire) -> None:
        line = init(code="def main(args)\n  { n: 1 }\nend")
        assert wire.asked(line) == {"ok": True}
        assert wire.asked(line) == TWICE
        assert wire.asked(run({})) == {"n": 1}

    def test_no_code(self, wire: Wire) -> None:
        assert wire.asked(init(code=" ")) == MISSING


# ── Java ────────────────────────────────────────────────────────────────────────────────────────────────────────

JAVA = Path("/usr/lib/jvm/java-17-openjdk-amd64/bin/java")
GSON = Path("/usr/share/java/gson.jar")
LAUNCHER = launcher("java/launcher.jar")
ACTION = """
import com.google.gson.*;
public class Main {
  public static JsonObject main(JsonObject args) { args.addProperty("by", System.getenv("OWN")); return args; }
  public static JsonObject exit(JsonObject args) { System.exit(3); return args; }
  public static JsonObject none(JsonObject args) { return null; }
  public static JsonArray list(JsonArray args) { return args; }
  public static String text(JsonObject args) { return ""; }
  public JsonObject member(JsonObject args) { return args; }
}
"""


def compile_java(target: Path, source: Path, *options: str) -> None:
    compiler = [str(JAVA), "-m", "jdk.compiler/com.sun.tools.javac.Main", *options]
    subprocess.run([*compiler, "-cp", str(GSON), "-d", str(target), str(source)], check=True)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("java")
    (folder / "Main.java").write_text(ACTION)
    compile_java(folder, folder / "Main.java")
    return folder


@pytest.mark.all
@pytest.mark.skipif(
    not JAVA.exists() or not GSON.exists(),
    reason="Java is not here: apt-get install openjdk-17-jdk libgoogle-gson-java",
)
class TestJava:
    @pytest.fixture
    def wire(self, tmp_path: Path) -> Iterator[Wire]:
        argv = [str(JAVA), "-XX:+UseSerialGC", "-Djava.security.manager=allow", "-jar", LAUNCHER]
        with wired(argv, tmp_path) as wire:
            yield wire

    def test_class_and_environment(self, wire: Wire, classes: Path) -> None:
        line = init(classes, main="Main", OWN="launcher")
        assert wire.asked(line) == {"ok": True}
        assert wire.asked(run({"ü": "❄"})) == {"ü": "❄", "by": "launcher"}
        assert wire.asked(line) == TWICE
        assert wire.logs() == ("", TWICE[1:] + "\n"), "and nothing of the machine's own in the logs"

    def test_exit_is_an_error_of_the_run(self, wire: Wire, classes: Path) -> None:
        wire.ask(init(classes, main="Main#exit"))
        prefix = "!An error has occurred while invoking the action (see logs for details): "
        assert (
            wire.asked(run({})) == prefix + "java.lang.SecurityException: System.exit(3) called from within an action."
        )

    def test_null(self, wire: Wire, classes: Path) -> None:
        wire.ask(init(classes, main="Main#none"))
        prefix = "!An error has occurred (see logs for details): "
        assert wire.asked(run({})) == prefix + "java.lang.NullPointerException: The action returned null"

    def test_arrays_only(self, wire: Wire, classes: Path) -> None:
        wire.ask(init(classes, main="Main#list"))
        assert wire.asked(run([1])) == [1]
        assert "NoSuchMethodException" in wire.asked(run({}))

    @pytest.mark.parametrize("main", ["Nope", "Main#nope", "Main#text", "Main#member"])
    def test_what_is_no_entry_point(self, wire: Wire, classes: Path, main: str) -> None:
        said = wire.asked(init(classes, main=main))
        assert said.startswith("!An error has occurred (see logs for details): java.lang.")

    def test_what_is_kept_compiled_is_what_the_source_says(self, tmp_path: Path) -> None:
        source = Path(LAUNCHER).with_name("Launcher.java")
        compiler = [
            str(JAVA),
            "-m",
            "jdk.compiler/com.sun.tools.javac.Main",
            "--release",
            "17",
            "-proc:none",
            "-g:none",
        ]
        subprocess.run([*compiler, "-cp", str(GSON), "-d", str(tmp_path), str(source)], check=True)
        with zipfile.ZipFile(LAUNCHER) as jar:
            kept = {name: jar.read(name) for name in jar.namelist() if name.endswith(".class")}
        made = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.class")}
        assert kept == made, "run make launchers"
