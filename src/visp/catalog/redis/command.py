"""Runs one command of Redis.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/ (RESP2).
"""

import base64
import json

from connecting import Refused, Target, required

BYTES_MOST = 16 * 1024 * 1024
ITEMS_MOST = 100_000


class Error(str):
    """What the server answered that is an error."""


def main(args):
    try:
        url, command = required(args, "url", "command")
        words = command.split() if isinstance(command, str) else list(command)
        more = args.get("args")
        words += [] if more is None else more if isinstance(more, list) else [more]
        where = Target(url, ("redis",), ("rediss",), 6379, 6379)
        with where.connect() as connection:
            enter(connection, where)
            result = ask(connection, words)
    except Refused as refused:
        return {"error": str(refused)}
    return {"error": str(result)} if isinstance(result, Error) else {"result": result}


def enter(connection, where):
    first = []
    if where.password is not None:
        first.append(["AUTH", *([where.user] if where.user else []), where.password])
    number = where.path
    if number:
        first.append(["SELECT", number])
    for words in first:
        answer = ask(connection, words)
        if isinstance(answer, Error):
            raise Refused(str(answer))


def ask(connection, words):
    sent = [encoded(word) for word in words]
    connection.send(b"*%d\r\n" % len(sent) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in sent))
    return read(connection)


def encoded(word):
    if isinstance(word, bool) or not isinstance(word, (str, int, float)):
        return json.dumps(word).encode()
    return str(word).encode()


def read(connection, depth=0):
    line = connection.read_line()
    kind, rest = line[:1], line[1:].decode("utf-8", "replace")
    if kind == b"+":
        return rest
    if kind == b"-":
        return Error(rest)
    try:
        count = int(rest)
    except ValueError:
        raise Refused(f"{connection.host} does not speak Redis' protocol") from None
    if kind == b":":
        return count
    if kind == b"$":
        return None if count < 0 else shown(connection, count)
    if kind == b"*" and depth < 32:
        if count > ITEMS_MOST:
            raise Refused(f"the answer has more than {ITEMS_MOST} items")
        return None if count < 0 else [read(connection, depth + 1) for _ in range(count)]
    raise Refused(f"{connection.host} does not speak Redis' protocol")


def shown(connection, count):
    """Text, or bytes that are none as `{"base64": …}`."""
    if count > BYTES_MOST:
        raise Refused(f"the answer has more than {BYTES_MOST} bytes")
    content = connection.read(count + 2)[:-2]
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
