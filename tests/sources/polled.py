"""Servers that are asked from time to time: a news feed and a mailbox, as small as may be."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any


class News:
    def __init__(self) -> None:
        self.entries: list[str] = []
        self.status = 200
        self.asked: list[dict[str, str]] = []
        self.port = 0

    def add(self, *ids: str) -> None:
        self.entries[:0] = reversed(ids)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            path = lines[0].split()[1]
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            self.asked.append(headers)
            items = "".join(f"<item><guid>{id}</guid><title>T {id}</title></item>" for id in self.entries)
            etag, more = f'"{len(self.entries)}"', ""
            status, body = self.status, f"<rss><channel>{items}</channel></rss>"
            if path.startswith("/moved"):
                status, more = 302, f"Location: {path[6:] or '/moved'}\r\n"
            elif headers.get("if-none-match") == etag:
                status, body = 304, ""
            head = (
                f"HTTP/1.1 {status} X\r\nETag: {etag}\r\n{more}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write((head + body).encode())
            await writer.drain()


class Mailbox:
    """As much of an IMAP server as is asked; `tells` what comes to who is idle."""

    def __init__(self) -> None:
        self.tells = False
        self.refuses_idle = False
        self.idle: set[asyncio.StreamWriter] = set()
        self.serving: set[asyncio.Task[Any]] = set()
        self.validity = 7
        self.next = 1
        self.mails: dict[int, bytes] = {}
        self.port = 0
        self.commands: list[str] = []

    def add(self, *subjects: str) -> None:
        for subject in subjects:
            self.mails[self.next] = f"From: a@example\r\nTo: b@example\r\nSubject: {subject}\r\n\r\nHello\r\n".encode()
            self.next += 1
        for writer in self.idle:
            writer.write(f"* {len(self.mails)} EXISTS\r\n".encode())

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(b"* OK ready\r\n")
            while line := (await reader.readline()).decode().strip():
                tag, _, command = line.partition(" ")
                self.commands.append(command)
                if command == "IDLE" and not self.refuses_idle:
                    writer.write(b"+ idling\r\n")
                    self.idle.add(writer)
                    try:
                        assert (await reader.readline()).strip() in (b"DONE", b"")
                    finally:
                        self.idle.discard(writer)
                    self.commands.append("DONE")
                writer.write(self._said(command) + f"{tag} {self._status(command)}\r\n".encode())
                await writer.drain()

    def _status(self, command: str) -> str:
        if command == "IDLE" and self.refuses_idle:
            return "BAD not now"
        return "NO refused, with secret" if command.startswith("LOGIN") and "secret" not in command else "OK done"

    def _said(self, command: str) -> bytes:
        words = command.split()
        if words[0] == "CAPABILITY":
            return b"* CAPABILITY IMAP4rev1 IDLE\r\n" if self.tells else b"* CAPABILITY IMAP4rev1\r\n"
        if words[0] == "EXAMINE":
            told = f"* OK [UIDVALIDITY {self.validity}] v\r\n* OK [UIDNEXT {self.next}] n\r\n"
            return f"* {len(self.mails)} EXISTS\r\n{told}".encode()
        if words[:2] == ["UID", "SEARCH"]:
            low = int(words[3].split(":")[0])
            found = [uid for uid in self.mails if uid >= low] or list(self.mails)[-1:]
            return f"* SEARCH {' '.join(map(str, found))}\r\n".encode()
        if words[:2] == ["UID", "FETCH"] and int(words[2]) in self.mails:
            raw = self.mails[int(words[2])]
            return f"* 1 FETCH (UID {words[2]} BODY[]<0> {{{len(raw)}}}\r\n".encode() + raw + b")\r\n"
        return b""
