"""What single kinds take beside source: a jar, and gems that come with the code."""

from __future__ import annotations

import base64
import io
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.conftest import Place, Servers
from tests.conformance.drivers import DRIVERS
from tests.conformance.kinds import DEVELOPER, KINDS, zipped
from tests.system.conftest import Api

pytestmark = pytest.mark.all

JAVAC = ["/usr/bin/java", "-m", "jdk.compiler/com.sun.tools.javac.Main", "-cp", "/usr/share/java/gson.jar"]
JAR = """
package some.where;
import com.google.gson.JsonObject;
public class Main {
  public static JsonObject main(JsonObject args) throws Exception {
    JsonObject out = new JsonObject();
    out.addProperty("by", new Inner().word());
    out.addProperty("read", new String(Main.class.getResourceAsStream("word.txt").readAllBytes()));
    return out;
  }
  public static JsonObject other(JsonObject args) { return args; }
  static class Inner { String word() { return "jar"; } }
}
"""
GEMSPEC = """
Gem::Specification.new do |gem|
  gem.name = "greeter"
  gem.version = "1.2.3"
  gem.summary = "greets"
  gem.authors = ["visp"]
  gem.files = ["lib/greeter.rb"]
end
"""


@pytest.fixture
def at(servers: Servers) -> Callable[[str], Place]:
    """A kind over the default sandbox."""

    def place(name: str) -> Place:
        driver = next(driver for driver in DRIVERS if driver.name == "bwrap")
        kind = next(kind for kind in KINDS if kind.name == name)
        reason = driver.missing() or kind.missing(servers.home)
        if reason is not None:
            pytest.skip(reason)
        return Place(driver, kind, Api(servers.of(driver)))

    return place


def jar(folder: Path) -> str:
    (folder / "Main.java").write_text(JAR)
    subprocess.run([*JAVAC, "-d", str(folder / "classes"), str(folder / "Main.java")], check=True)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
        archive.writestr("some/where/word.txt", "resource")
        for path in (folder / "classes").rglob("*.class"):
            archive.write(path, str(path.relative_to(folder / "classes")))
    return base64.b64encode(out.getvalue()).decode()


def test_jar(at: Callable[[str], Place], tmp_path: Path) -> None:
    place = at("java:17")
    code = jar(tmp_path)
    place.action(code, "some.where.Main")
    assert place.run({}) == {"by": "jar", "read": "resource"}
    place.action(code, "some.where.Main#other")
    assert place.run({"a": 1}) == {"a": 1}


def test_java_needs_a_main(at: Callable[[str], Place]) -> None:
    place = at("java:17")
    body: dict[str, Any] = {"exec": {"kind": "java:17", "code": place.kind.code}}
    assert place.api.request("PUT", "actions/without-main?overwrite=true", body).status == 400


def test_exit_does_not_end_java(at: Callable[[str], Place]) -> None:
    place = at("java:17")
    place.action(place.kind.code, "Everything#exit")
    record = place.invoke({})
    assert record["response"]["status"] == DEVELOPER
    assert record["response"]["result"]["error"].endswith("System.exit(3) called from within an action.")


def test_gems_in_the_cache_of_the_archive(at: Callable[[str], Place], tmp_path: Path) -> None:
    place = at("ruby:3.1")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/greeter.rb").write_text('module Greeter\n  def self.greet(name) = "Hello, #{name}!"\nend\n')
    (tmp_path / "greeter.gemspec").write_text(GEMSPEC)
    subprocess.run(["/usr/bin/gem", "build", "-q", "greeter.gemspec"], cwd=tmp_path, check=True, capture_output=True)
    program = 'require "greeter"\n\ndef main(args)\n  { greeting: Greeter.greet(args["name"]) }\nend\n'
    files = {
        "main.rb": program.encode(),
        "Gemfile": b'source "https://gems.example"\ngem "greeter", "1.2.3"\n',
        "vendor/cache/greeter-1.2.3.gem": (tmp_path / "greeter-1.2.3.gem").read_bytes(),
    }
    place.action(zipped(files))
    assert place.run({"name": "gem"}) == {"greeting": "Hello, gem!"}
    del files["vendor/cache/greeter-1.2.3.gem"]
    place.action(zipped(files))
    assert "vendor/cache folder is not found" in place.invoke({})["response"]["result"]["error"]
