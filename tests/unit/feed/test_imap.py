from __future__ import annotations

from email.message import EmailMessage
from typing import Any

import pytest

from visp.feed.base import FeedRefused
from visp.feed.imap import Inbox, event_of

GIVEN = {"host": "mail.example", "username": "u", "password": "p"}


def test_a_mail_with_everything() -> None:
    message = EmailMessage()
    message["From"] = "Änne <a@example>"
    message["To"] = "B <b@example>, c@example"
    message["Subject"] = "Grüße"
    message["Date"] = "Mon, 06 Sep 2021 00:01:00 +0000"
    message.set_content("plain")
    message.add_alternative("<p>rich</p>", subtype="html")
    message.add_attachment(b"12345", maintype="image", subtype="png", filename="a.png")
    event = event_of(message.as_bytes())
    assert event == {
        **{"from": "Änne <a@example>", "to": ["b@example", "c@example"], "subject": "Grüße", "text": "plain\n"},
        **{"date": "Mon, 06 Sep 2021 00:01:00 +0000"},
        "attachments": [{"name": "a.png", "type": "image/png", "bytes": 5}],
    }


@pytest.mark.parametrize(
    "raw",
    [
        *(
            b"",
            b"\xff\xfe",
            b"Subject: =?utf-8?b?////?=\r\n\r\n",
            b"Content-Type: text/plain; charset=nonsense\r\n\r\n\xff",
        ),
        *(
            b"Content-Type: multipart/mixed\r\n\r\nno boundary",
            b"From: " + b"(" * 5000 + b"\r\n\r\n",
            b"To: <<<>>>,,,\r\n\r\n",
        ),
        b"Content-Transfer-Encoding: base64\r\n\r\n!!!",
    ],
)
def test_mails_that_nobody_should_write(raw: bytes) -> None:
    assert event_of(raw).keys() == {"from", "to", "subject", "date", "text", "attachments"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {**GIVEN, "folder": "a\r\nLOGOUT"},
        {**GIVEN, "password": "a\nb"},
        {**GIVEN, "port": 0},
        {**GIVEN, "tls": "maybe"},
    ],
)
def test_what_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(FeedRefused):
        Inbox().parse(given, 0)


def test_ports() -> None:
    assert Inbox().parse(GIVEN, 0)["port"] == 993
    assert Inbox().parse({**GIVEN, "tls": "false"}, 0)["port"] == 143
