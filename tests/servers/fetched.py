"""Servers that no distribution has, fetched once into the cache of tests: NATS by Go, Kafka from Maven Central."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "visp-tests"
NATS = "github.com/nats-io/nats-server/v2@v2.12.1"
KAFKA = "4.1.2"
FETCH_S = 540

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>visp.tests</groupId><artifactId>kafka</artifactId><version>1</version><dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA}</version>
</dependency></dependencies></project>
"""


def nats_server() -> str:
    """The program's path; skips the test where it cannot be had."""
    there = shutil.which("nats-server")
    if there is not None:
        return there
    program = CACHE / "nats" / "nats-server"
    if not program.exists():
        if shutil.which("go") is None:
            pytest.skip(f"nats-server is not installed: apt-get install nats-server, or go install {NATS}")
        program.parent.mkdir(parents=True, exist_ok=True)
        _fetch(["go", "install", NATS], program.parent, {"GOBIN": str(program.parent), "GOFLAGS": "-buildvcs=false"})
    return str(program)


def kafka_classes() -> str:
    """Kafka's class path; skips the test where it cannot be had."""
    if shutil.which("java") is None:
        pytest.skip("Kafka needs Java 17: apt-get install openjdk-17-jre-headless")
    folder = CACHE / f"kafka-{KAFKA}"
    if not folder.exists():
        if shutil.which("mvn") is None:
            pytest.skip("Kafka is fetched by Maven: apt-get install maven")
        draft = CACHE / f"kafka-{KAFKA}.{os.getpid()}"
        draft.mkdir(parents=True, exist_ok=True)
        (draft / "pom.xml").write_text(POM)
        _fetch(["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={draft}"], draft, {})
        try:
            draft.rename(folder)
        except OSError:  # another test was faster
            shutil.rmtree(draft)
    return f"{folder}/*"


def _fetch(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=FETCH_S,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{' '.join(command)} takes too long")
    if done.returncode != 0:
        pytest.skip(f"{' '.join(command)}: {(done.stderr or done.stdout)[-300:]}")
