"""Bearer tokens of the gateway: what one says of its bearer, where it is good.

A token is signed by its provider (JWT), whose keys are fetched and kept; or the provider is asked of it (RFC 7662, and
as Google, GitHub and Facebook want to be asked). All that is kept is bounded, and so is how often a provider is asked:
what failed is not tried again for a while.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from visp import wording
from visp.controller.outbound import NotReached
from visp.entity.tokens import ALGORITHMS, TOKEN_BYTES_MOST, is_current, is_for, is_scoped
from visp.errors import VispError
from visp.settings import Gateway as Settings
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from visp.clock import Clock
    from visp.controller.outbound import Outbound
    from visp.entity.tokens import TokenRule

    Claims = dict[str, Any]
    Ask = Callable[["Tokens", TokenRule, str, str], Awaitable[Claims | None]]

ANSWER_BYTES = 256 * 1024
KEYS_LIMIT = 64
"""Keys of one provider; further ones are not looked at."""
PROVIDERS_LIMIT = 1000
KEYS_KEPT_S = 3600.0
KEYS_RENEWED_S = 30.0
"""A token that names a key we do not have has the keys fetched, if they are older."""
FAILURE_KEPT_S = 10.0
ANSWERS_LIMIT = 10_000
ANSWER_KEPT_S = 60.0
"""What a provider said of a token: one that is taken back is good for so long at most."""
FETCHES_AT_ONCE = 32
FETCHES_WAITING = 1000

APP_ID, MOCK = "app-id", "mock"
MOCK_TOKEN, MOCK_CLAIMS = "test", {"email": "test@test.com"}
_NOTHING_SAID = Settings()

_JSON = {"accept": "application/json"}


class TokenRefused(VispError):
    """The token is not good; `sentence` goes to the caller."""

    def __init__(self, sentence: str = wording.TOKEN_REFUSED) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Tokens:
    """One for a server."""

    def __init__(self, outbound: Outbound, clock: Clock, settings: Settings = _NOTHING_SAID) -> None:
        self._outbound = outbound
        self._settings = settings
        self._clock = clock
        self._providers: dict[str, _Kept] = {}
        """What is kept of an address: keys, or where they are."""
        self._answers: dict[bytes, _Kept] = {}
        """What providers said, by digests of the token and of the rule."""
        self._under_way: dict[bytes, asyncio.Task[Any]] = {}
        self._room = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._jwt: Any = None
        """The library, once a token asked for it."""

    async def claims(self, rule: TokenRule, token: str, headers: Mapping[str, str]) -> Claims:
        """What the token says; raises `TokenRefused`. `headers` are the request's, by lower-case name."""
        if not token or len(token) > TOKEN_BYTES_MOST or not token.isascii():
            raise TokenRefused()
        if rule.introspection_url:
            claims = await self._asked(rule, token, "", Tokens._introspect)
        elif rule.is_usable:
            claims = await self._signed(rule, token)
        elif rule.name == APP_ID and rule.tenant and self._settings.app_id_url:
            url = f"{self._settings.app_id_url.rstrip('/')}/{quote(rule.tenant, safe='')}/publickeys"
            claims = await self._signed(msgspec.structs.replace(rule, jwks_url=url), token)
        elif rule.name == MOCK and self._settings.mock_tokens and token == MOCK_TOKEN:
            claims = dict(MOCK_CLAIMS)
        elif rule.name in KNOWN:
            claims = await self._asked(rule, token, headers.get(FACEBOOK_HEADER, ""), KNOWN[rule.name])
        else:
            raise TokenRefused()
        if not is_scoped(rule, claims):
            raise TokenRefused()
        return claims

    # ── signed tokens ───────────────────────────────────────────────────────────────────────────────────────────

    async def _signed(self, rule: TokenRule, token: str) -> Claims:
        jwt = self._jwt
        if jwt is None:
            jwt = self._jwt = await asyncio.to_thread(importlib.import_module, "jwt")
        try:
            head = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise TokenRefused() from None
        if head.get("alg") not in ALGORITHMS:
            raise TokenRefused()
        url = rule.jwks_url or await self._key_address(rule)
        keys = await self._keys(url, head.get("kid"))
        claims = self._verified(jwt, token, head, keys)
        if not is_current(claims, self._clock.now_ms() / 1000):
            raise TokenRefused(wording.TOKEN_EXPIRED)
        if not is_for(rule, claims):
            raise TokenRefused()
        return claims

    def _verified(self, jwt: Any, token: str, head: Mapping[str, Any], keys: list[Claims]) -> Claims:
        """The claims of a token that one of the keys signed; whether they will do is asked afterwards."""
        options = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
        for key in keys:
            if key.get("use", "sig") != "sig" or key.get("alg", head["alg"]) != head["alg"]:
                continue
            try:
                made = jwt.PyJWK(key, head["alg"])
                claims: Claims = jwt.decode(token, made, algorithms=[head["alg"]], options=options)
            except (jwt.PyJWTError, ValueError, TypeError):
                continue
            return claims
        raise TokenRefused(wording.TOKEN_UNSIGNED)

    async def _key_address(self, rule: TokenRule) -> str:
        """Where the issuer says that its keys are."""
        kept = await self._provider(rule.discovery_url)
        told = kept.value
        url = told.get("jwks_uri")
        if not isinstance(url, str) or (rule.issuer and told.get("issuer") != rule.issuer):
            raise TokenRefused()
        return url

    async def _keys(self, url: str, id: Any) -> list[Claims]:
        """The provider's keys, or those of this id; fetched anew where there are none and it may have changed them."""
        kept = await self._provider(url)
        found = _named(kept.value, id)
        if not found and self._clock.monotonic_s() - kept.at_s > KEYS_RENEWED_S:
            found = _named((await self._provider(url, is_renewed=True)).value, id)
        return found

    async def _provider(self, url: str, *, is_renewed: bool = False) -> _Kept:
        now_s = self._clock.monotonic_s()
        kept = self._providers.get(url)
        if kept is not None and (kept.value is None or not is_renewed) and now_s < kept.until_s:
            if kept.value is None:
                raise TokenRefused()
            return kept

        async def fetch() -> _Kept:
            value = await self._fetch("GET", url)
            lives_s = FAILURE_KEPT_S if value is None else KEYS_KEPT_S
            at_s = self._clock.monotonic_s()
            if value is None and kept is not None and kept.value is not None and at_s < kept.until_s:
                return _keep(self._providers, url, _Kept(kept.value, at_s, kept.until_s), PROVIDERS_LIMIT)
            return _keep(self._providers, url, _Kept(value, at_s, at_s + lives_s), PROVIDERS_LIMIT)

        made: _Kept = await self._once(url.encode("utf-8", "replace"), fetch)
        if made.value is None:
            raise TokenRefused()
        return made

    # ── tokens that the provider is asked of ────────────────────────────────────────────────────────────────────

    async def _asked(self, rule: TokenRule, token: str, extra: str, ask: Ask) -> Claims:
        digest = hashlib.sha256("\n".join((repr(rule), extra, token)).encode("utf-8", "surrogateescape")).digest()
        kept = self._answers.get(digest)
        if kept is None or self._clock.monotonic_s() >= kept.until_s:

            async def fetch() -> _Kept:
                claims = await ask(self, rule, token, extra)
                at_s, now_s = self._clock.monotonic_s(), self._clock.now_ms() / 1000
                lives_s = FAILURE_KEPT_S if claims is None else ANSWER_KEPT_S
                if claims is not None and "exp" in claims:
                    lives_s = min(lives_s, _seconds(claims["exp"]) - now_s)
                return _keep(self._answers, digest, _Kept(claims, at_s, at_s + lives_s), ANSWERS_LIMIT)

            kept = await self._once(digest, fetch)
        claims = kept.value
        if claims is None:
            raise TokenRefused()
        if "exp" in claims and not is_current(claims, self._clock.now_ms() / 1000):
            raise TokenRefused(wording.TOKEN_EXPIRED)
        if not is_for(rule, claims):
            raise TokenRefused()
        return dict(claims)

    async def _introspect(self, rule: TokenRule, token: str, _: str) -> Claims | None:
        """RFC 7662."""
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if rule.client_id:
            import base64

            pair = f"{quote(rule.client_id, safe='')}:{quote(rule.client_secret, safe='')}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        body = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
        claims = await self._fetch("POST", rule.introspection_url, body, headers)
        return claims if claims is not None and claims.get("active") is True else None

    async def _google(self, _: TokenRule, token: str, __: str) -> Claims | None:
        claims = await self._fetch("GET", GOOGLE + quote(token, safe=""))
        return None if claims is None else claims | {"exp": _seconds(claims.get("exp"))}

    async def _github(self, _: TokenRule, token: str, __: str) -> Claims | None:
        user = await self._fetch("GET", GITHUB, headers={"authorization": f"Bearer {token}"})
        return None if user is None or "id" not in user else {"sub": str(user["id"]), "email": user.get("email")}

    async def _facebook(self, _: TokenRule, token: str, app_token: str) -> Claims | None:
        if not app_token:
            return None
        query = urlencode({"input_token": token, "access_token": app_token})
        told = await self._fetch("GET", f"{FACEBOOK}?{query}")
        data = None if told is None else told.get("data")
        if not isinstance(data, dict) or data.get("is_valid") is not True:
            return None
        return {"sub": str(data.get("user_id", ""))}

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _once(self, what: bytes, fetch: Callable[[], Awaitable[_Kept]]) -> _Kept:
        """One question at a time of the same: whoever asks meanwhile hears its answer."""
        task = self._under_way.get(what)
        if task is None:
            if len(self._under_way) >= FETCHES_WAITING:
                raise TokenRefused()
            task = self._under_way[what] = asyncio.ensure_future(fetch())
            task.add_done_callback(lambda _: self._under_way.pop(what, None))
        made: _Kept = await asyncio.shield(task)
        return made

    async def _fetch(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Claims | None:
        """The object that is answered with 200; None for any other answer, and for none."""
        async with self._room:
            try:
                status, answer = await self._outbound.fetch(
                    method, url, body, _JSON | dict(headers or {}), ANSWER_BYTES
                )
            except NotReached as error:
                log.warning("gateway.provider_not_reached", host=_host(url), reason=str(error))
                return None
        if status != 200:
            return None
        try:
            return msgspec.json.decode(answer, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None


class _Kept(msgspec.Struct, frozen=True):
    """`value` is None for what failed."""

    value: Any
    at_s: float
    until_s: float


def _keep(table: dict[Any, _Kept], key: Any, kept: _Kept, limit: int) -> _Kept:
    """The one that was put there first goes when there is no room."""
    table.pop(key, None)
    while len(table) >= limit:
        del table[next(iter(table))]
    table[key] = kept
    return kept


def _named(jwks: Any, id: Any) -> list[Claims]:
    keys = jwks.get("keys")
    found = [key for key in keys[:KEYS_LIMIT] if isinstance(key, dict)] if isinstance(keys, list) else []
    return found if id is None else [key for key in found if key.get("kid") == id]


def _seconds(value: Any) -> float:
    """A provider may write its numbers as text, as Google does."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _host(url: str) -> str:
    """What of an address may be logged: others may have a token in them."""
    from urllib.parse import urlsplit

    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


GOOGLE = "https://www.googleapis.com/oauth2/v3/tokeninfo?access_token="
GITHUB = "https://api.github.com/user"
FACEBOOK = "https://graph.facebook.com/debug_token"
FACEBOOK_HEADER = "x-facebook-app-token"
KNOWN: dict[str, Ask] = {"google": Tokens._google, "github": Tokens._github, "facebook": Tokens._facebook}
"""Providers that need no more than their name."""
