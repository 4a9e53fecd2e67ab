"""What a real OpenWhisk answered is what visp answers: `golden/` holds its answers and the tools that judge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from visp.client import running
from visp.entity.subject import GUEST_KEY, GUEST_UUID

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.slow  # the story of 414 requests takes about fifteen seconds, most of them waits of its own
@pytest.mark.parametrize("workers", [1, 2])
def test_recorded_answers_of_openwhisk(workers: int, tmp_path: Path) -> None:
    actual, expected = tmp_path / "actual.jsonl", GOLDEN / "expected.jsonl"
    with running.running({"workers": workers}) as server:
        auth = f"{GUEST_UUID}:{GUEST_KEY}"
        _run("record.py", "--apihost", server.url, "--auth", auth, "--out", str(actual))
    judged = _run("compare.py", str(expected), str(actual), "--show", "100", is_checked=False)
    *differences, summary = judged.stdout.strip().split("\n")
    if workers > 1:  # an action that is warm on one shard may be started anew on another
        differences = [line for line in differences if "initTime" not in line]
    assert not differences, judged.stdout
    assert workers > 1 or " 0 failed" in summary


def _run(tool: str, *words: str, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, GOLDEN / tool, *words], capture_output=True, text=True, check=is_checked)
