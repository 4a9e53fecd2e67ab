"""`cloudant/changes`: a trigger for each change of a CouchDB database.

Source: parameters, sentences and payload of OpenWhisk's package for Cloudant; CouchDB's documentation of `_changes`.
The position is `{"since": what CouchDB calls the place, "fired": how many}`.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

import msgspec

from visp import wording
from visp.feed import given as asked
from visp.feed import web
from visp.feed.base import EVENTS_MOST, Event, FeedRefused, Json, SourceEnded, SourceLost
from visp.feed.batching import Gathering, key_of
from visp.feed.parameters import TEXT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

    from visp.clock import Clock
    from visp.feed.base import Reach, Watch

IAM_URL = "https://iam.cloud.ibm.com/identity/token"
HEARTBEAT_MS = 15_000
QUIET_S = 60.0
POLL_MS = 60_000
"""A poll that brings nothing is begun anew after that; a lost connection would not be noticed else."""
ANSWER_BYTES = 64 * 1024 * 1024
CHECK_S = 30.0


class _Change(msgspec.Struct):
    """The document is not read, even where it comes."""

    id: str
    seq: Json
    changes: list[dict[str, Json]]
    deleted: bool = False


class _Changes(msgspec.Struct):
    results: list[_Change]
    last_seq: Json


class _Database(msgspec.Struct):
    update_seq: Json = 0


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float = 3600.0


_changes = msgspec.json.Decoder(_Changes)


class Changes:
    name: ClassVar[str] = "cloudant/changes"
    secrets: ClassVar[frozenset[str]] = frozenset({"password", "iamApiKey"})
    disables_when_throttled: ClassVar[bool] = False

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        for name, sentence in (("dbname", wording.CLOUDANT_NO_DBNAME), ("host", wording.CLOUDANT_NO_HOST)):
            if not asked.text(given, name):
                raise FeedRefused(sentence)
        kept: dict[str, Json] = {
            "dbname": asked.text(given, "dbname"),
            "host": asked.text(given, "host"),
            "protocol": asked.one_of(given, "protocol", ("https", "http"), "https"),
            "maxTriggers": asked.integer(given, "maxTriggers", -1, -1, 2**53),
        }
        names = ("iamApiKey", "iamUrl") if asked.text(given, "iamApiKey") else ("username", "password")
        kept |= {name: asked.text(given, name) for name in names if asked.text(given, name)}
        if "iamApiKey" in kept:
            kept.setdefault("iamUrl", IAM_URL)
            asked.url(kept, "iamUrl", ("https", "http"))
        elif "username" not in kept or "password" not in kept:
            raise FeedRefused(wording.CLOUDANT_NO_CREDENTIALS)
        if given.get("port") not in (None, ""):
            kept["port"] = asked.integer(given, "port", 0, 1, 65535)
        parts = asked.split_url(_root(kept))
        if parts is None or parts.path or parts.query or parts.fragment or parts.username is not None:
            raise FeedRefused(wording.cloudant_bad_host(wording.shortened(kept["host"])))
        since = given.get("since")
        if since not in (None, "", "now"):
            if not isinstance(since, str | int | float) or len(str(since)) > TEXT_LIMIT:
                raise FeedRefused(wording.feed_parameter_bad("since", wording.feed_text(TEXT_LIMIT)))
            kept["since"] = since
        return kept | _filter(given)

    def changed(self, kept: Mapping[str, Json], given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        asked_for = {name: given[name] for name in ("filter", "query_params") if name in given}
        if not asked_for:
            raise FeedRefused(wording.NOTHING_UPDATABLE)
        rest = {name: value for name, value in kept.items() if name not in ("filter", "query_params")}
        return rest | _filter({**kept, **asked_for})

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json:
        dbname = parameters["dbname"]
        try:
            async with asyncio.timeout(CHECK_S), web.session(reach) as client:
                database = _Server(parameters, reach, client)
                async with database.get("") as answer:
                    body = await web.body_of(answer, ANSWER_BYTES)
                if answer.status != 200:
                    raise FeedRefused(wording.cloudant_not_connected(dbname), answer.status)
                since = parameters.get("since")
                if since is None:
                    since = msgspec.json.decode(body, type=_Database).update_seq
                return {"since": since, "fired": 0}
        except (SourceLost, TimeoutError, msgspec.DecodeError):
            raise FeedRefused(wording.cloudant_not_connected(dbname)) from None

    def created(self, id: str, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {"status": "success"}

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        names = ("host", "port", "protocol", "dbname", "username", "password", "since", "filter", "query_params")
        return {name: parameters[name] for name in (*names, "iamApiKey", "iamUrl") if name in parameters}

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> ChangesSource:
        return ChangesSource(parameters, reach)


class ChangesSource:
    """Polls that are answered when there is something, `EVENTS_MOST` changes at most."""

    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach

    async def run(self, watch: Watch, position: Json) -> None:
        most = self._parameters.get("maxTriggers", -1)
        kept = dict(position or {"since": self._parameters.get("since", "now"), "fired": 0})
        async with web.session(self._reach) as client:
            server = _Server(self._parameters, self._reach, client, watch.clock)
            is_up = False  # what is first asked is answered at once: then it is known that the database is there
            while True:
                left = most - kept["fired"] if most > 0 else EVENTS_MOST
                if left <= 0:
                    raise SourceEnded(wording.ALARM_MAX_REACHED)
                room = min(left, EVENTS_MOST)
                found = await self._poll(server, kept["since"], room, waits=is_up)
                is_up = True
                gathering = Gathering(watch, kept)
                for change in found.results[:room]:
                    kept = {"since": change.seq, "fired": kept["fired"] + 1}
                    await gathering.add(self._event(change), kept)
                if len(found.results) < room:  # else some servers name the end of what is there, not of what they told
                    kept = {"since": found.last_seq, "fired": kept["fired"]}
                await gathering.flush(kept)
                watch.live(lag=0 if len(found.results) < room else None)

    async def _poll(self, server: _Server, since: Json, most: int, *, waits: bool) -> _Changes:
        query = {"since": _word(since), "limit": str(most)}
        if waits:
            query |= {"feed": "longpoll", "heartbeat": str(HEARTBEAT_MS), "timeout": str(POLL_MS)}
        if "filter" in self._parameters:
            query["filter"] = self._parameters["filter"]
            for name, value in self._parameters.get("query_params", {}).items():
                query.setdefault(name, _word(value))
        async with server.get("/_changes", query) as answer:
            body = await web.body_of(answer, ANSWER_BYTES)
            if answer.status == 401:
                server.forget()
            if answer.status != 200:
                raise SourceLost(wording.cloudant_answered(self._parameters["dbname"], answer.status))
        try:
            return _changes.decode(body)
        except msgspec.DecodeError:
            raise SourceLost(wording.cloudant_answered(self._parameters["dbname"], answer.status)) from None

    def _event(self, change: _Change) -> Event:
        body: dict[str, Json] = {"id": change.id, "seq": change.seq, "changes": change.changes}
        if change.deleted:
            body["deleted"] = True
        return Event(_key(change), msgspec.json.encode(body | {"dbname": self._parameters["dbname"]}))


class _Server:
    """Requests to a database, with what lets them in."""

    def __init__(
        self, parameters: Mapping[str, Json], reach: Reach, client: aiohttp.ClientSession, clock: Clock | None = None
    ) -> None:
        self._parameters = parameters
        self._reach = reach
        self._client = client
        self._clock = clock
        self._token = ""
        self._until_s = 0.0

    def get(self, path: str, query: Mapping[str, str] | None = None) -> _Asked:
        from yarl import URL

        url = f"{_root(self._parameters)}/{quote(self._parameters['dbname'], safe='')}{path}"
        return _Asked(self, URL(url, encoded=True).with_query(query or {}))

    def forget(self) -> None:
        """The token is not taken any more."""
        self._until_s = 0.0

    async def _authorization(self) -> str:
        parameters = self._parameters
        if "iamApiKey" not in parameters:
            pair = f"{parameters['username']}:{parameters['password']}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
        now = self._clock.monotonic_s() if self._clock else 0.0
        if not self._token or now >= self._until_s:
            form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": parameters["iamApiKey"]}
            url = parameters["iamUrl"]
            async with web.answer(self._client, self._reach, "POST", url, data=form) as answer:
                body = await web.body_of(answer, 1024 * 1024)
                if answer.status != 200:
                    raise SourceLost(wording.iam_answered(answer.status))
            try:
                token = msgspec.json.decode(body, type=_Token)
            except msgspec.DecodeError:
                raise SourceLost(wording.iam_answered(answer.status)) from None
            self._token, self._until_s = token.access_token, now + token.expires_in * 0.8
        return f"Bearer {self._token}"


class _Asked:
    """One request, as a block."""

    def __init__(self, server: _Server, url: object) -> None:
        self._server = server
        self._url = url

    async def __aenter__(self) -> aiohttp.ClientResponse:
        server = self._server
        headers = {"Authorization": await server._authorization(), "Accept": "application/json"}
        self._answer = web.answer(
            server._client, server._reach, "GET", self._url, headers=headers, quiet_s=QUIET_S + POLL_MS / 1000
        )
        return await self._answer.__aenter__()

    async def __aexit__(self, *cause: object) -> bool | None:
        return await self._answer.__aexit__(*cause)  # type: ignore[arg-type]


def _root(parameters: Mapping[str, Json]) -> str:
    port = f":{parameters['port']}" if "port" in parameters else ""
    return f"{parameters['protocol']}://{parameters['host']}{port}"


def _filter(given: Mapping[str, Json]) -> dict[str, Json]:
    name, query = asked.text(given, "filter"), given.get("query_params")
    if query is not None and query != "" and not name:
        raise FeedRefused(wording.CLOUDANT_QUERY_WITHOUT_FILTER)
    kept: dict[str, Json] = {"filter": name} if name else {}
    if isinstance(query, str) and query:
        try:
            query = msgspec.json.decode(query)
        except (msgspec.DecodeError, RecursionError):
            raise FeedRefused(wording.CLOUDANT_QUERY_UNPARSABLE) from None
    if query is not None and query != "":
        if not isinstance(query, dict):
            raise FeedRefused(wording.CLOUDANT_QUERY_NO_OBJECT)
        kept["query_params"] = query
    return kept


def _word(value: Json) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _key(change: _Change) -> str:
    """Its place, where that is a number. What a cluster calls a place differs from answer to answer: there it is the
    document's revisions."""
    if isinstance(change.seq, int):
        return str(change.seq)
    return key_of(change.id, *(str(each.get("rev")) for each in change.changes))
