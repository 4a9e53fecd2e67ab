"""Publishes one message by NATS; it returns once the server has it.

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol.
"""

import base64
import json

from connecting import Connection, Refused, Target, required


def main(args):
    try:
        url, subject = required(args, "url", "subject")
        payload = args.get("payload", args.get("body"))
        if payload is None:
            raise Refused("You must specify a payload parameter.")
        subject = str(subject)
        if any(sign in subject for sign in " \t\r\n*>"):
            raise Refused("a message is published to one subject: no blanks, no wildcards")
        content = base64.b64decode(payload) if args.get("encoding") == "base64" else encoded(payload)
        where = Target(url, ("nats",), ("tls", "natss"), 4222, 4222)
        with Connection(where.host, where.port) as connection:
            enter(connection, where, args)
            publish(connection, subject, content, args.get("headers") or {})
            connection.send(b"PING\r\n")
            await_pong(connection)
    except (Refused, ValueError) as refused:
        return {"error": str(refused)}
    return {"subject": subject, "bytes": len(content)}


def encoded(payload):
    return (payload if isinstance(payload, str) else json.dumps(payload)).encode()


def enter(connection, where, args):
    """The server speaks first, in plain text, whatever follows."""
    kind, _, text = connection.read_line().partition(b" ")
    try:
        info = json.loads(text) if kind == b"INFO" else None
    except ValueError:
        info = None
    if not isinstance(info, dict):
        raise Refused(f"{where.host} does not speak NATS")
    if where.is_tls or info.get("tls_required"):
        connection.encrypt()
    said = {"verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 1, "headers": True}
    user, password = args.get("username") or where.user, args.get("password") or where.password
    if args.get("token") or (user and password is None):
        said["auth_token"] = args.get("token") or user
    elif user:
        said |= {"user": user, "pass": password}
    connection.send(b"CONNECT " + json.dumps(said).encode() + b"\r\nPING\r\n")
    await_pong(connection)  # who is not let in is told why before the connection ends


def publish(connection, subject, content, headers):
    if not headers:
        connection.send(f"PUB {subject} {len(content)}\r\n".encode() + content + b"\r\n")
        return
    lines = [f"{name}: {value}" for name, value in headers.items()]
    if any(sign in line for line in lines for sign in "\r\n"):
        raise Refused("a header has one line")
    head = "\r\n".join(["NATS/1.0", *lines, "", ""]).encode()
    connection.send(f"HPUB {subject} {len(head)} {len(head) + len(content)}\r\n".encode() + head + content + b"\r\n")


def await_pong(connection):
    while (line := connection.read_line()) != b"PONG":
        if line == b"PING":
            connection.send(b"PONG\r\n")
        elif line.startswith(b"-ERR"):
            raise Refused(f"{connection.host} refused the message: {line[4:].decode().strip()}")
