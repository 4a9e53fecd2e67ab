"""Waiting for a record through a server's refusals, restarts and bounds."""

from typing import cast

import pytest

from visp.client import waiting
from visp.client.errors import ApiError, ClientError, NoConnection, NotInTime
from visp.client.rest import Client
from visp.client.waiting import wait_for

NOT_YET = ApiError(404, "The requested resource does not exist.", "t", retry_after_s=1)
NEVER = ApiError(404, "The requested resource does not exist.", "t")
BUSY = ApiError(503, "busy", "t", retry_after_s=2)
AWAY = NoConnection("nothing listens")


class Time:
    """`time`, which passes only in sleeps and waits."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.now_s += seconds


class Server:
    """Answers by script, the last answer for ever; `waits` says whether it takes the time that it is given."""

    def __init__(self, time: Time, *script: ClientError | bytes, waits: bool = True) -> None:
        self._time = time
        self._script = list(script)
        self._waits = waits
        self.asked: list[float] = []

    def activation(self, id: str, *, wait_s: float) -> bytes:
        self.asked.append(wait_s)
        answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if answer is NOT_YET and self._waits:
            self._time.now_s += wait_s
        if isinstance(answer, ClientError):
            raise answer
        return answer


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(waiting, "time", time)
    return time


def client(server: Server) -> Client:
    return cast(Client, server)


def test_it_asks_again_when_the_server_s_own_bound_is_over(time: Time) -> None:
    server = Server(time, NOT_YET, NOT_YET, b"{}")
    assert wait_for(client(server), "id", 150) == b"{}"
    assert server.asked == [60, 60, 30]
    assert time.slept == []


def test_it_gives_up_when_its_own_time_is_over(time: Time) -> None:
    server = Server(time, NOT_YET)
    with pytest.raises(NotInTime) as raised:
        wait_for(client(server), "id", 90)
    assert raised.value.exit_code == 124
    assert server.asked == [60, 30]


def test_a_server_that_does_not_wait_is_not_asked_without_pause(time: Time) -> None:
    server = Server(time, NOT_YET, waits=False)
    with pytest.raises(NotInTime):
        wait_for(client(server), "id", 10)
    assert len(server.asked) <= 11


def test_what_can_never_come_is_not_waited_for(time: Time) -> None:
    with pytest.raises(ApiError) as raised:
        wait_for(client(Server(time, NEVER)), "id", 90)
    assert raised.value is NEVER
    assert time.now_s == 0


def test_it_goes_on_over_a_restart_and_says_once_that_there_is_trouble(time: Time) -> None:
    heard: list[ClientError] = []
    server = Server(time, NOT_YET, AWAY, AWAY, BUSY, NOT_YET, AWAY, b"{}")
    assert wait_for(client(server), "id", 300, heard.append) == b"{}"
    assert heard == [AWAY, AWAY]
    assert time.slept == [0.1, 0.2, 2.0, 0.1]


def test_trouble_to_the_end_is_what_it_raises(time: Time) -> None:
    with pytest.raises(NoConnection):
        wait_for(client(Server(time, AWAY)), "id", 5)
    assert time.now_s == 5
