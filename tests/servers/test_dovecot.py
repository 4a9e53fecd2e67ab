"""`email/inbox` against a real IMAP server, which tells of mails by IDLE."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import shutil
import time
from collections.abc import Iterator, Sequence

import pytest
from tests.servers.programs import Program
from tests.servers.watched import Crash, Near, Watched

from visp.feed.base import FeedRefused, SourceLost
from visp.feed.imap import Inbox

pytestmark = [pytest.mark.all]

DOVECOT = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
mail_location = maildir:{folder}/mail
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 0
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
passdb {{
  driver = static
  args = password=s3cret
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={folder}
}}
"""


class Dovecot(Program):
    def __init__(self) -> None:
        if DOVECOT is None:
            pytest.skip("Dovecot is not installed: apt-get install dovecot-imapd")
        super().__init__("dovecot")
        name = "dovecot" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        owner = pwd.getpwnam(name)
        group = grp.getgrgid(owner.pw_gid).gr_name
        self._count = 0
        for place in ("mail/tmp", "mail/new", "mail/cur"):
            (self.folder / place).mkdir(parents=True)
        for place in (self.folder, *self.folder.rglob("*")):
            os.chown(place, owner.pw_uid, owner.pw_gid)
        (self.folder / "dovecot.conf").write_text(
            CONFIGURATION.format(folder=self.folder, port=self.port, user=name, group=group)
        )

    def command(self) -> Sequence[str]:
        return [DOVECOT or "", "-F", "-c", str(self.folder / "dovecot.conf")]

    def deliver(self, subject: str) -> None:
        """As a mail server puts one into a Maildir."""
        self._count += 1
        name = f"{time.time_ns()}.{self._count}.here"
        mail = self.folder / "mail" / "tmp" / name
        mail.write_text(f"From: a@example.org\nTo: b@example.org\nSubject: {subject}\n\nHello\n")
        mail.chmod(0o644)
        mail.rename(self.folder / "mail" / "new" / name)


@pytest.fixture
def dovecot() -> Iterator[Dovecot]:
    program = Dovecot()
    try:
        program.start()
        yield program
    finally:
        program.close()


def asked(dovecot: Dovecot, **more: object) -> dict[str, object]:
    given = {"host": "localhost", "port": dovecot.port, "tls": False, "username": "b", "password": "s3cret"}
    return Inbox().parse({**given, "interval_s": 3600, **more}, 0)


def subjects(watch: Watched) -> list[str]:
    return [body["subject"] for body in watch.bodies]


async def test_what_comes_is_told_at_once_and_what_was_there_is_not(dovecot: Dovecot) -> None:
    """Nobody looks within the hour: the server tells of it."""
    dovecot.deliver("old")
    asks = asked(dovecot)
    watch = Watched(await Inbox().check(asks, Near()))
    running = asyncio.ensure_future(watch.run(Inbox().open(asks, Near()), lambda watch: len(watch.events) == 3))
    for number in range(3):
        dovecot.deliver(f"new {number}")
        await watch.has(number + 1)
    await running
    assert subjects(watch) == ["new 0", "new 1", "new 2"]
    assert watch.bodies[0]["text"] == "Hello\n"


async def test_what_came_while_nobody_was_connected_is_told(dovecot: Dovecot) -> None:
    asks = asked(dovecot)
    watch = Watched(await Inbox().check(asks, Near()))
    for number in range(25):
        dovecot.deliver(str(number))
    watch.crashes_between = True
    with pytest.raises(Crash):
        await watch.run(Inbox().open(asks, Near()), lambda watch: False)
    await watch.run(Inbox().open(asks, Near()), lambda watch: len(watch.events) == 25)
    assert sorted(map(int, subjects(watch))) == list(range(25))


async def test_a_server_that_goes_is_lost(dovecot: Dovecot) -> None:
    asks = asked(dovecot)
    watch = Watched(await Inbox().check(asks, Near()))
    running = asyncio.ensure_future(watch.run(Inbox().open(asks, Near()), lambda watch: False))
    dovecot.deliver("one")
    await watch.has(1)
    dovecot.stop()
    with pytest.raises(SourceLost):
        await running
    dovecot.start()
    dovecot.deliver("two")
    await watch.run(Inbox().open(asks, Near()), lambda watch: len(watch.events) == 2)
    assert subjects(watch) == ["one", "two"]


@pytest.mark.parametrize(
    ("more", "why"), [({"password": "wrong"}, "not let the user in"), ({"folder": "Nowhere"}, "Nowhere")]
)
async def test_who_is_not_let_in_and_what_is_not_there_is_said(
    dovecot: Dovecot, more: dict[str, object], why: str
) -> None:
    with pytest.raises(FeedRefused, match=why) as refused:
        await Inbox().check(asked(dovecot, **more), Near())
    assert "wrong" not in str(refused.value)
