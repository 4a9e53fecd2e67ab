"""The parent of several shards: how it waits between starts, and whom it buries."""

import os
import subprocess

import pytest

from visp import shards


def test_a_shard_that_keeps_ending_waits_longer_each_time_and_one_that_lived_does_not() -> None:
    waits, wait_s = list[float](), 0.0
    for restarts in range(1, 10):
        wait_s = shards.next_wait_s(wait_s, 0.5, restarts)
        waits.append(wait_s)
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert shards.next_wait_s(5.0, shards.CALM_S, 10) == 0.0
    assert shards.next_wait_s(0.0, 0.5, 11) == 0.1


def test_orphans_are_waited_for_and_children_are_not() -> None:
    own, orphan = subprocess.Popen(["true"]), subprocess.Popen(["true"])
    for process in (own, orphan):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    shards.bury_orphans({own.pid})
    assert not os.path.exists(f"/proc/{orphan.pid}")
    assert own.wait() == 0
    orphan.returncode = 0


@pytest.mark.parametrize(
    ("sockets", "workers", "hands"),
    [(2, 2, [[0], [1]]), (1, 3, [[0], [0], [0]]), (3, 2, [[0, 2], [1]]), (3, 1, [[0, 1, 2]]), (2, 3, [[0], [1], [0]])],
)
def test_every_shard_accepts_on_a_socket_and_every_socket_is_accepted_on(
    sockets: int, workers: int, hands: list[list[int]]
) -> None:
    assert shards.dealt(sockets, workers) == hands
