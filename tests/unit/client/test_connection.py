"""The keep-alive connection, against a server that answers what it is told to and then does what it likes."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from visp.client.connection import Connection
from visp.client.credentials import Credentials
from visp.client.errors import ApiError, NoConnection, exit_code
from visp.client.rest import Client

AUTH = "uuid:" + "k" * 64
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"

Script = list[list[bytes]]
"""For each connection the answers that it gives, one for each request; then it is closed."""


@pytest.fixture
def serve() -> Iterator[Callable[[Script], tuple[str, list[str]]]]:
    """Starts a server; gives its address, and the requests it reads, as `connection:METHOD`."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def start(script: Script) -> tuple[str, list[str]]:
        seen: list[str] = []

        def run() -> None:
            for number, answers in enumerate(script):
                connection, _ = listener.accept()
                with connection:
                    for answer in answers:
                        request = connection.recv(65536)
                        seen.append(f"{number}:{request.split(b' ', 1)[0].decode()}")
                        connection.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[0].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}", seen

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    listener.close()


def connection_to(url: str) -> Connection:
    return Connection(Credentials(apihost=url, auth=AUTH))


def test_one_connection_serves_many_requests(serve):
    url, seen = serve([[OK, OK, OK]])
    connection = connection_to(url)
    for _ in range(3):
        assert connection.request("GET", "/").body == b"{}"
    assert seen == ["0:GET", "0:GET", "0:GET"]
    connection.close()


@pytest.mark.parametrize("answer", [OK, LAST])
def test_a_connection_that_the_server_closed_is_made_anew(serve, answer):
    url, seen = serve([[answer], [OK]])
    connection = connection_to(url)
    connection.request("POST", "/", b"{}")
    assert connection.request("GET", "/").status == 200
    assert seen == ["0:POST", "1:GET"]
    connection.close()


def test_a_get_that_is_cut_off_on_a_used_connection_is_sent_again(serve):
    url, seen = serve([[OK, b""], [OK]])
    connection = connection_to(url)
    connection.request("GET", "/")
    assert connection.request("GET", "/").status == 200
    assert seen == ["0:GET", "0:GET", "1:GET"]
    connection.close()


def test_a_post_that_is_cut_off_is_never_sent_twice(serve):
    url, seen = serve([[OK, b""]])
    connection = connection_to(url)
    connection.request("GET", "/")
    with pytest.raises(NoConnection, match="failed"):
        connection.request("POST", "/", b"{}")
    assert seen == ["0:GET", "0:POST"]


def test_a_first_request_that_is_cut_off_is_not_repeated(serve):
    url, seen = serve([[b""]])
    with pytest.raises(NoConnection):
        connection_to(url).request("GET", "/")
    assert seen == ["0:GET"]


def test_what_is_no_http_is_told(serve):
    url, _ = serve([[b"220 mail.example ESMTP\r\n"]])
    with pytest.raises(NoConnection, match="failed"):
        connection_to(url).request("GET", "/")


def test_a_redirect_is_not_followed(serve):
    url, seen = serve([[b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"]])
    with Client(Credentials(apihost=url, auth=AUTH)) as client, pytest.raises(ApiError, match="HTTP status code 301"):
        client.namespaces()
    assert seen == ["0:GET"]


def test_a_host_below_a_path(serve):
    url, _ = serve([[OK]])
    told: list[str] = []
    connection = Connection(Credentials(apihost=f"{url}/whisk", auth=AUTH), told.append)
    connection.request("GET", "/api/v1/namespaces")
    assert told[0].startswith(f"> GET {url}/whisk/api/v1/namespaces\n")
    connection.close()


def test_exit_statuses_are_those_of_wsk():
    statuses = (400, 401, 403, 404, 409, 413, 429, 500, 502)
    assert [exit_code(status) for status in statuses] == [144, 145, 147, 148, 153, 157, 173, 244, 246]
    assert exit_code(512) == 1
