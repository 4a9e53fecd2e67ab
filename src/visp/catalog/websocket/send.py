"""Sends one message by WebSocket, and closes.

Source: RFC 6455.
"""

import base64
import hashlib
import json
import os
import urllib.parse

from connecting import Refused, Target

PORTS = (80, 443)
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING = 1, 8, 9
CONNECT_S = 30


def main(args):
    for name in ("uri", "payload"):
        if args.get(name) in (None, ""):
            return {"error": f"You must specify a {name} parameter."}
    payload = args["payload"]
    text = payload if isinstance(payload, str) else json.dumps(payload)
    try:
        where = Target(args["uri"], ("ws",), ("wss",), *PORTS)
        with where.connect(CONNECT_S) as connection:
            shake(connection, where, args["uri"])
            connection.send(frame(TEXT, text.encode()))
            connection.send(frame(CLOSE, (1000).to_bytes(2, "big")))
            while opcode(connection) != CLOSE:
                pass
    except Refused as refused:
        return {"error": str(refused)}
    return {"payload": payload}


def shake(connection, where, uri):
    key = base64.b64encode(os.urandom(16))
    parts = urllib.parse.urlsplit(uri)
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
    host = f"[{where.host}]" if ":" in where.host else where.host
    host += "" if where.port in PORTS else f":{where.port}"
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key.decode()}",
        "Sec-WebSocket-Version: 13",
    ]
    if where.user is not None:
        pair = base64.b64encode(f"{where.user}:{where.password or ''}".encode()).decode()
        lines.append(f"Authorization: Basic {pair}")
    connection.send("\r\n".join([*lines, "", ""]).encode())
    status = connection.read_line().split(b" ", 2)
    headers = {}
    while line := connection.read_line():
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    if status[1:2] != [b"101"]:
        raise Refused(f"{where.host} does not speak WebSocket there: it answered {b' '.join(status[1:]).decode()}")
    if headers.get(b"sec-websocket-accept") != base64.b64encode(hashlib.sha1(key + MAGIC).digest()):
        raise Refused(f"{where.host} does not speak WebSocket there")


def frame(kind, content):
    """One frame, masked as a client's must be."""
    mask = os.urandom(4)
    size = len(content)
    if size < 126:
        head = bytes([0x80 | size])
    elif size < 1 << 16:
        head = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))
    return bytes([0x80 | kind]) + head + mask + masked


def opcode(connection):
    """Of the next frame, whose content is dropped."""
    first, size = connection.read(2)
    size &= 0x7F
    if size > 125:
        size = int.from_bytes(connection.read(2 if size == 126 else 8), "big")
    if size > 1 << 20:
        raise Refused("the server sent a message of more than a megabyte")
    content = connection.read(size)
    if first & 15 == PING:
        connection.send(frame(10, content))
    return first & 15
