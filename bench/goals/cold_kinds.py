"""Cold starts of other kinds whose containers are copies of a program that waits, beside starts of that program."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec

from bench.goals import Goal
from bench.goals.cold import ColdStarts, medians_ms
from bench.measure import Chart, Finding, ratio, spread
from bench.server import platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("cold_kinds", "a cold hello of PHP, Ruby and Java in the sandbox, copied and started: create, init, run")


class Hello(msgspec.Struct, frozen=True):
    """An action of a kind whose program lies there, if it is here."""

    kind: str
    program: str
    code: str
    main: str | None = None


HELLOS = (
    Hello("php:8.2", "php8.2", "<?php\nfunction main($args) { return ['greeting' => 'Hello, ' . $args['name']]; }\n"),
    Hello("ruby:3.1", "ruby3.1", "def main(args)\n  { greeting: 'Hello, ' + args['name'] }\nend\n"),
    Hello(
        "java:17",
        "java",
        """
        import com.google.gson.JsonObject;

        public class Hello {
            public static JsonObject main(JsonObject args) {
                JsonObject result = new JsonObject();
                result.addProperty("greeting", "Hello, " + args.get("name").getAsString());
                return result;
            }
        }
        """,
        "Hello",
    ),
)


def measure(rig: Rig) -> Iterator[Finding | Chart]:
    here = [hello for hello in HELLOS if shutil.which(hello.program) is not None]
    settings = {"pool.stem_cells": 0}
    with platform(settings) as copying, platform(settings | {"container.zygotes": 0}) as starting:
        for hello in here:
            copied_ms, started_ms = medians_ms(
                rig,
                ColdStarts(copying, hello.code, hello.kind, hello.main).start_s,
                ColdStarts(starting, hello.code, hello.kind, hello.main).start_s,
            )
            yield Finding(
                goal=GOAL.name,
                what=f"p50, {hello.kind}; beside a program that is started",
                unit="ms",
                ours=spread(copied_ms),
                floor=spread(started_ms),
                ratio=ratio(copied_ms, started_ms),
            )
