"""Sends one message to a topic of Kafka.

Source: https://kafka.apache.org/protocol: ApiVersions 0, SaslHandshake 1, SaslAuthenticate 0, Metadata 4, Produce 3,
record batches of version 2.
"""

import base64
import binascii
import json
import random
import struct
import time

from connecting import Connection, Refused

PRODUCE, METADATA, HANDSHAKE, VERSIONS, AUTHENTICATE = 0, 3, 17, 18, 36
UNKNOWN_TOPIC, NO_LEADER, LEADER_MOVED = 3, 5, 6
TRIES, PAUSE_S, ACK_MS, CONNECT_S = 8, 0.5, 20_000, 10
NO_BROKERS = "No brokers available. Check that your supplied brokers are correct and available."
TIMED_OUT = "Timed out communicating with Message Hub"
UNAUTHENTICATED = "Authentication failed"


def kafka(args):
    """With a list of brokers, in plain text; `user` and `password` are for those that ask for SASL."""
    return produced(args, "brokers", ("brokers", "topic", "value"), args.get("protocol") or "PLAINTEXT")


def message_hub(args):
    """By SASL over TLS."""
    needed = ("kafka_brokers_sasl", "user", "password", "topic", "value")
    return produced(args, "kafka_brokers_sasl", needed, args.get("protocol") or "SASL_SSL")


def produced(args, brokers, needed, protocol):
    missing = [name for name in needed if args.get(name) in (None, "", [])]
    if missing:
        return {"error": f"You must supply all of the following parameters: {', '.join(missing)}"}
    topic = str(args["topic"])
    try:
        value = content(args, "value", "base64DecodeValue")
        key = None if args.get("key") is None else content(args, "key", "base64DecodeKey")
        partition, offset = sent(args, addresses(args[brokers]), topic, key, value, protocol)
    except Refused as refused:
        return {"error": str(refused)}
    return {"success": True, "message": f"Successfully sent message to {topic}:{partition} at offset {offset}"}


def content(args, name, flag):
    given = args[name]
    if args.get(flag) in (True, "true"):
        try:
            return base64.b64decode(given, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise Refused(f"{name} parameter is not Base64 encoded") from None
    return (given if isinstance(given, str) else json.dumps(given)).encode()


def addresses(given):
    texts = given if isinstance(given, list) else str(given).split(",")
    found = []
    for text in filter(None, (str(text).strip() for text in texts)):
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit():
            raise Refused(f"'{text}' is no broker: host:port is expected")
        found.append((host.strip("[]"), int(port)))
    return found


# ── the exchange ────────────────────────────────────────────────────────────────────────────────────────────────────


class Broker:
    """One connection; what is asked is answered in turn."""

    def __init__(self, host, port, args, protocol):
        self._connection = Connection(host, port, protocol.endswith("SSL"), CONNECT_S)
        self._count = 0
        try:
            self._check_versions()
            if protocol.startswith("SASL") or args.get("user"):
                self._authenticate(str(args.get("user") or ""), str(args.get("password") or ""))
        except BaseException:
            self._connection.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.__exit__()

    def ask(self, api, version, body, timeout_s=CONNECT_S):
        self._count += 1
        head = struct.pack(">hhi", api, version, self._count) + text("visp")
        self._connection.socket.settimeout(timeout_s)
        self._connection.send(struct.pack(">i", len(head) + len(body)) + head + body)
        (size,) = struct.unpack(">i", self._connection.read(4))
        if not 4 <= size <= 1 << 26:
            raise Refused(NO_BROKERS)
        answer = Reader(self._connection.read(size))
        if answer.number("i") != self._count:
            raise Refused(NO_BROKERS)
        return answer

    def _check_versions(self):
        answer = self.ask(VERSIONS, 0, b"")
        if answer.number("h"):
            return
        known = {}
        for _ in range(answer.number("i")):
            api, least, most = answer.number("h"), answer.number("h"), answer.number("h")
            known[api] = (least, most)
        for api, version in ((PRODUCE, 3), (METADATA, 4)):
            least, most = known.get(api, (1, 0))
            if not least <= version <= most:
                raise Refused("these brokers speak another version of Kafka's protocol")

    def _authenticate(self, user, password):
        answer = self.ask(HANDSHAKE, 1, text("PLAIN"))
        if answer.number("h"):
            raise Refused(UNAUTHENTICATED)
        token = b"\0" + user.encode() + b"\0" + password.encode()
        answer = self.ask(AUTHENTICATE, 0, struct.pack(">i", len(token)) + token)
        if answer.number("h"):
            raise Refused(UNAUTHENTICATED)


class Reader:
    def __init__(self, held):
        self._held = held
        self._at = 0

    def number(self, kind):
        (value,) = struct.unpack_from(">" + kind, self._held, self._at)
        self._at += struct.calcsize(kind)
        return value

    def text(self):
        size = self.number("h")
        if size < 0:
            return None
        self._at += size
        return self._held[self._at - size : self._at].decode()


def text(value):
    content = value.encode()
    return struct.pack(">h", len(content)) + content


def sent(args, brokers, topic, key, value, protocol):
    """Partition and offset; a topic that is just being made, or that moves, is asked for again."""
    error = NO_BROKERS
    for _ in range(TRIES):
        leaders, partitions, code = described(args, brokers, topic, protocol)
        if code in (0, NO_LEADER) and partitions:
            partition = chosen(key, partitions)
            if partition in leaders:
                with Broker(*leaders[partition], args, protocol) as broker:
                    code, offset = put(broker, topic, partition, batch(key, value))
                if code == 0:
                    return partition, offset
        if code not in (0, UNKNOWN_TOPIC, NO_LEADER, LEADER_MOVED):
            raise Refused(f"the topic {topic} took no message: Kafka's error {code}")
        error = f"the topic {topic} does not exist" if code == UNKNOWN_TOPIC else TIMED_OUT
        time.sleep(PAUSE_S)
    raise Refused(error)


def described(args, brokers, topic, protocol):
    """Who leads which partition, all partitions, and the topic's error."""
    for host, port in brokers:
        try:
            with Broker(host, port, args, protocol) as broker:
                answer = broker.ask(METADATA, 4, struct.pack(">i", 1) + text(topic) + b"\1")
            break
        except (Refused, struct.error, OSError) as error:
            if str(error) in (UNAUTHENTICATED,):
                raise
    else:
        raise Refused(NO_BROKERS)
    answer.number("i")  # how long it was held back
    nodes = {}
    for _ in range(answer.number("i")):
        node, host, port = answer.number("i"), answer.text(), answer.number("i")
        answer.text()
        nodes[node] = (host, port)
    answer.text()
    answer.number("i")
    answer.number("i")
    code = answer.number("h")
    answer.text()
    answer.number("b")
    leaders, partitions = {}, []
    for _ in range(answer.number("i")):
        answer.number("h")
        partition, leader = answer.number("i"), answer.number("i")
        for _ in range(2):
            for _ in range(answer.number("i")):
                answer.number("i")
        partitions.append(partition)
        if leader in nodes:
            leaders[partition] = nodes[leader]
    return leaders, sorted(partitions), code


def put(broker, topic, partition, records):
    body = struct.pack(">hhii", -1, -1, ACK_MS, 1) + text(topic) + struct.pack(">ii", 1, partition)
    try:
        answer = broker.ask(PRODUCE, 3, body + struct.pack(">i", len(records)) + records, ACK_MS / 1000 + 5)
    except Refused as refused:
        raise Refused(TIMED_OUT if "in time" in str(refused) else str(refused)) from None
    answer.number("i")
    answer.text()
    answer.number("i")
    answer.number("i")
    return answer.number("h"), answer.number("q")


# ── the record ──────────────────────────────────────────────────────────────────────────────────────────────────────


def batch(key, value):
    now = int(time.time() * 1000)
    record = b"\0" + varint(0) + varint(0) + counted(key) + counted(value) + varint(0)
    records = struct.pack(">i", 1) + varint(len(record)) + record
    covered = struct.pack(">hiqqqhi", 0, 0, now, now, -1, -1, -1) + records
    rest = struct.pack(">ib", -1, 2) + struct.pack(">I", crc32c(covered)) + covered
    return struct.pack(">qi", 0, len(rest)) + rest


def counted(content):
    return varint(-1) if content is None else varint(len(content)) + content


def varint(number):
    """Zigzag, seven bits at a time."""
    left, out = (number << 1) ^ (number >> 63), b""
    while left > 0x7F:
        out += bytes([left & 0x7F | 0x80])
        left >>= 7
    return out + bytes([left])


def table():
    out = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        out.append(number)
    return out


TABLE = table()


def crc32c(content):
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def chosen(key, partitions):
    """As Kafka's own clients choose: by the key's murmur2, or any."""
    if key is None:
        return random.choice(partitions)
    return partitions[(murmur2(key) & 0x7FFFFFFF) % len(partitions)]


def murmur2(content):
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    hash = 0x9747B28C ^ len(content)
    whole = len(content) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(content[at : at + 4], "little") * m & mask
        k ^= k >> 24
        hash = hash * m & mask ^ k * m & mask
    rest = content[whole:]
    if rest:
        hash = (hash ^ int.from_bytes(rest, "little")) * m & mask
    hash ^= hash >> 13
    hash = hash * m & mask
    return hash ^ hash >> 15
