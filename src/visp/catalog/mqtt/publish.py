"""Publishes one message by MQTT 3.1.1; with `qos` 1 and 2 it returns once the server has it.

Source: OASIS MQTT 3.1.1.
"""

import base64
import json
import struct

from connecting import Refused, Target, required

CONNACK, PUBACK, PUBREC, PUBCOMP = 0x20, 0x40, 0x50, 0x70
REASONS = {
    1: "unacceptable protocol version",
    2: "client identifier rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}


def main(args):
    try:
        url, topic = required(args, "url", "topic")
        if args.get("payload") is None:
            raise Refused("You must specify a payload parameter.")
        if any(sign in str(topic) for sign in "+#"):
            raise Refused("a message is published to one topic: no wildcards")
        qos = level(args.get("qos"))
        content = encoded(args["payload"], args.get("encoding"))
        where = Target(url, ("mqtt", "tcp"), ("mqtts", "ssl"), 1883, 8883)
        with where.connect() as connection:
            enter(connection, where, args)
            publish(connection, str(topic), content, qos, args.get("retain") in (True, "true"))
            connection.send(b"\xe0\x00")
    except Refused as refused:
        return {"error": str(refused)}
    return {"topic": topic, "qos": qos, "bytes": len(content)}


def level(value):
    try:
        qos = int(value or 0)
    except (TypeError, ValueError):
        qos = -1
    if qos not in (0, 1, 2):
        raise Refused("qos must be 0, 1 or 2")
    return qos


def encoded(payload, encoding):
    if encoding == "base64":
        try:
            return base64.b64decode(payload, validate=True)
        except (TypeError, ValueError):
            raise Refused("payload is no base64") from None
    return (payload if isinstance(payload, str) else json.dumps(payload)).encode()


def enter(connection, where, args):
    user = args.get("username") or where.user
    password = args.get("password") or where.password
    flags = 0x02 | (0x80 if user else 0) | (0x40 if user and password else 0)
    body = text("MQTT") + bytes([4, flags]) + struct.pack(">H", 60) + text(str(args.get("client_id") or ""))
    body += text(user) if user else b""
    body += text(password) if user and password else b""
    connection.send(packet(0x10, body))
    kind, answer = read(connection)
    if kind != CONNACK or len(answer) != 2:
        raise Refused(f"{where.host} does not speak MQTT")
    if answer[1]:
        raise Refused(f"{where.host} refused the connection: {REASONS.get(answer[1], answer[1])}")


def publish(connection, topic, content, qos, is_retained):
    id = struct.pack(">H", 1) if qos else b""
    connection.send(packet(0x30 | qos << 1 | is_retained, text(topic) + id + content))
    if qos == 1:
        expect(connection, PUBACK)
    elif qos == 2:
        expect(connection, PUBREC)
        connection.send(packet(0x62, id))
        expect(connection, PUBCOMP)


def expect(connection, wanted):
    kind, _ = read(connection)
    if kind != wanted:
        raise Refused(f"{connection.host} did not acknowledge the message")


def packet(kind, body):
    size, left = b"", len(body)
    while True:
        left, digit = left >> 7, left & 0x7F
        size += bytes([digit | (0x80 if left else 0)])
        if not left:
            return bytes([kind]) + size + body


def read(connection):
    kind, size, shift = connection.read(1)[0], 0, 0
    while shift <= 21:
        digit = connection.read(1)[0]
        size |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return kind & 0xF0, connection.read(size)
    raise Refused(f"{connection.host} does not speak MQTT")


def text(value):
    content = value.encode()
    if len(content) > 65535:
        raise Refused("topic, user name and password have at most 65535 bytes each")
    return struct.pack(">H", len(content)) + content
