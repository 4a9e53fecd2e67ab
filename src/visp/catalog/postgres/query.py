"""Runs SQL on PostgreSQL: with `args` one statement with `$1`, `$2`, …; without them several, apart by semicolons.

Source: https://www.postgresql.org/docs/current/protocol.html; SCRAM of RFC 5802 and 7677.
"""

import base64
import hashlib
import hmac
import json
import os
import struct

from connecting import Connection, Refused, Target, required

ROWS_MOST = 100_000
SSL_REQUEST = struct.pack(">II", 8, 80877103)
INTEGERS, FLOATS, JSONS, BOOLEAN = (20, 21, 23, 26), (700, 701), (114, 3802), 16


def main(args):
    try:
        url, sql = required(args, "url", "sql")
        where = Target(url, ("postgres", "postgresql"), ("postgresqls",), 5432, 5432)
        with Connection(where.host, where.port) as connection:
            encrypt(connection, where)
            enter(connection, where)
            values = args.get("args")
            if values is None:
                connection.send(message(b"Q", text(sql)))
            else:
                ask(connection, sql, values)
            answer = read(connection)
            connection.send(message(b"X", b""))
    except Refused as refused:
        return {"error": str(refused)}
    return answer


def message(kind, body):
    return kind + struct.pack(">I", len(body) + 4) + body


def text(value):
    if "\0" in str(value):
        raise Refused("a text holds a zero byte")
    return str(value).encode() + b"\0"


def receive(connection):
    kind = connection.read(1)
    (size,) = struct.unpack(">I", connection.read(4))
    if size < 4 or size > 1 << 28:
        raise Refused(f"{connection.host} does not speak PostgreSQL's protocol")
    return kind, connection.read(size - 4)


def failed(body):
    """The sentence of an ErrorResponse."""
    fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}
    return Refused(f"{fields.get(b'M', 'the database failed')} ({fields.get(b'C', '?')})")


# ── the way in ──────────────────────────────────────────────────────────────────────────────────────────────────────


def encrypt(connection, where):
    """As libpq's `sslmode`: `disable`, `prefer` (the default), `require`, `verify-full`."""
    mode = where.query.get("sslmode") or ("verify-full" if where.is_tls else "prefer")
    if mode == "disable":
        return
    connection.send(SSL_REQUEST)
    if connection.read(1) == b"S":
        connection.encrypt(is_checked=mode in ("verify-full", "verify-ca"))
    elif mode not in ("prefer", "allow"):
        raise Refused(f"{where.host} does not speak TLS")


def enter(connection, where):
    user = where.user or "postgres"
    fields = {"user": user, "database": where.path or user, "client_encoding": "UTF8", "application_name": "visp"}
    body = struct.pack(">I", 196608) + b"".join(text(name) + text(value) for name, value in fields.items()) + b"\0"
    connection.send(struct.pack(">I", len(body) + 4) + body)
    scram = None
    while True:
        kind, body = receive(connection)
        if kind == b"E":
            raise failed(body)
        if kind == b"Z":
            return
        if kind != b"R":
            continue
        (asked,) = struct.unpack(">I", body[:4])
        if asked == 0:
            continue
        if where.password is None:
            raise Refused("the database asks for a password, and the url has none")
        if asked == 3:
            connection.send(message(b"p", text(where.password)))
        elif asked == 5:
            inner = hashlib.md5((where.password + user).encode()).hexdigest()
            connection.send(message(b"p", text("md5" + hashlib.md5(inner.encode() + body[4:8]).hexdigest())))
        elif asked == 10 and b"SCRAM-SHA-256\0" in body[4:]:
            scram = Scram(where.password)
            connection.send(message(b"p", text("SCRAM-SHA-256") + struct.pack(">I", len(scram.first)) + scram.first))
        elif asked == 11 and scram is not None:
            connection.send(message(b"p", scram.answer(body[4:])))
        elif asked == 12 and scram is not None:
            scram.check(body[4:])
        else:
            raise Refused("the database asks for a way of authentication that is not known here")


class Scram:
    """One exchange of SCRAM-SHA-256, without channel binding."""

    def __init__(self, password):
        self._password = password.encode()
        self._bare = b"n=,r=" + base64.b64encode(os.urandom(18))
        self.first = b"n,," + self._bare
        self._signature = b""

    def answer(self, challenge):
        fields = dict(part.split(b"=", 1) for part in challenge.split(b",") if b"=" in part)
        nonce, salt, rounds = fields.get(b"r", b""), fields.get(b"s", b""), int(fields.get(b"i", b"0"))
        if not nonce.startswith(self._bare[5:]) or not 1 <= rounds <= 1_000_000:
            raise Refused("the database's authentication is not what was begun")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(salt), rounds)
        key = hmac.digest(salted, b"Client Key", "sha256")
        last = b"c=biws,r=" + nonce
        signed = b",".join((self._bare, challenge, last))
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = bytes(one ^ other for one, other in zip(key, signature))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        return last + b",p=" + base64.b64encode(proof)

    def check(self, final):
        said = dict(part.split(b"=", 1) for part in final.split(b",") if b"=" in part).get(b"v", b"")
        if not hmac.compare_digest(base64.b64decode(said), self._signature):
            raise Refused("the database does not know the password either")


# ── a question and its answer ───────────────────────────────────────────────────────────────────────────────────────


def ask(connection, sql, values):
    if not isinstance(values, list):
        raise Refused("args must be a list")
    bound = b""
    for value in values:
        if value is None:
            bound += struct.pack(">i", -1)
            continue
        content = written(value).encode()
        bound += struct.pack(">i", len(content)) + content
    parts = (
        message(b"P", b"\0" + text(sql) + struct.pack(">H", 0)),
        message(b"B", b"\0\0" + struct.pack(">HH", 0, len(values)) + bound + struct.pack(">H", 0)),
        message(b"D", b"P\0"),
        message(b"E", b"\0" + struct.pack(">I", 0)),
        message(b"S", b""),
    )
    connection.send(b"".join(parts))


def written(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)


def read(connection):
    """The last statement's rows, its command, how many rows it touched."""
    columns, rows, command, error = [], [], "", None
    while True:
        kind, body = receive(connection)
        if kind == b"T":
            columns, rows = described(body), []
        elif kind == b"D":
            if len(rows) >= ROWS_MOST:
                raise Refused(f"the answer has more than {ROWS_MOST} rows")
            rows.append(row(columns, body))
        elif kind == b"C":
            command = body.rstrip(b"\0").decode()
            if not command.startswith(("SELECT", "FETCH")) and not columns:
                rows = []
        elif kind == b"E":
            error = failed(body)
        elif kind in (b"G", b"H", b"W"):
            raise Refused("COPY is not possible here")
        elif kind == b"Z":
            break
    if error is not None:
        raise error
    count = command.rpartition(" ")[2]
    return {"rows": rows, "command": command.partition(" ")[0], "count": int(count) if count.isdigit() else 0}


def described(body):
    (count,) = struct.unpack(">H", body[:2])
    at, columns = 2, []
    for _ in range(count):
        end = body.index(b"\0", at)
        (kind,) = struct.unpack(">I", body[end + 7 : end + 11])
        columns.append((body[at:end].decode("utf-8", "replace"), kind))
        at = end + 19
    return columns


def row(columns, body):
    at, found = 2, {}
    for name, kind in columns:
        (size,) = struct.unpack(">i", body[at : at + 4])
        at += 4
        found[name] = None if size < 0 else value(kind, body[at : at + size].decode("utf-8", "replace"))
        at += max(0, size)
    return found


def value(kind, written):
    """Whole numbers, floats, booleans and JSON as such; all else as the text that PostgreSQL writes."""
    if kind == BOOLEAN:
        return written == "t"
    if kind in INTEGERS:
        return int(written)
    if kind in FLOATS:
        number = float(written)
        return number if abs(number) != float("inf") and number == number else written
    return json.loads(written) if kind in JSONS else written
