"""Short turns reach what a process had started before."""

from __future__ import annotations

import subprocess

import pytest
from tests.contract.test_drivers import turn_ns

from visp.container import turns, watch


def test_children_that_were_there_before_have_short_turns_too() -> None:
    shell = ["/bin/sh", "-c", "sleep 60 & echo up; wait"]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            turns.shorten(process.pid)
            pids = watch.tree(process.pid)
            taken = {turn_ns(pid) for pid in pids}
        finally:
            watch.end_tree(process.pid)
    if taken == {0}:
        pytest.skip("this kernel heeds no length of turns: Linux 6.12 does")
    assert (len(pids), taken) == (2, {turns.TURN_NS})
