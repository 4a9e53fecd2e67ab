"""Which bearer tokens are good, and how often a provider is asked."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from visp import wording
from visp.clock import ManualClock
from visp.controller.outbound import NotReached
from visp.controller.tokens import ANSWER_KEPT_S, FAILURE_KEPT_S, KEYS_RENEWED_S, TokenRefused, Tokens
from visp.entity.tokens import TokenRule, parse_token_rule
from visp.settings import Gateway

NOW_S = 1_700_000_000
ISSUER, KEYS = "https://issuer.example", "https://issuer.example/keys"
RULE = TokenRule(name="o", issuer=ISSUER, audience=("api",), scopes=frozenset({"read"}), jwks_url=KEYS)
CLAIMS = {"iss": ISSUER, "aud": "api", "exp": NOW_S + 60, "scope": "read write", "sub": "me"}

EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = ec.generate_private_key(ec.SECP256R1())


class Providers:
    """Answers by address; what was asked of them."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str, bytes, dict[str, str]]] = []

    async def fetch(
        self, method: str, url: str, body: bytes, headers: dict[str, str], limit_bytes: int
    ) -> tuple[int, bytes]:
        self.asked.append((method, url, body, headers))
        await asyncio.sleep(0)
        answer = self.answers.get(url.partition("?")[0])
        if answer is None:
            raise NotReached("nobody is there")
        return (200, json.dumps(answer).encode()) if isinstance(answer, dict) else (answer, b"{}")


def key(private: Any, id: str = "1", **fields: Any) -> dict[str, Any]:
    algorithm = jwt.algorithms.ECAlgorithm if private is not RSA else jwt.algorithms.RSAAlgorithm
    return dict(algorithm.to_jwk(private.public_key(), as_dict=True)) | {"kid": id} | fields


def token(claims: dict[str, Any] | None = None, private: Any = EC, id: str | None = "1", **fields: Any) -> str:
    algorithm = "ES256" if private is not RSA else "RS256"
    return jwt.encode(CLAIMS | (claims or {}), private, algorithm, {"kid": id} if id else {}) if not fields else ""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_S * 1000)


@pytest.fixture
def providers() -> Providers:
    made = Providers()
    made.answers[KEYS] = {"keys": [key(EC), key(RSA, "2")]}
    return made


@pytest.fixture
def tokens(providers: Providers, clock: ManualClock) -> Tokens:
    return Tokens(providers, clock)  # type: ignore[arg-type]


async def refused(tokens: Tokens, given: str, rule: TokenRule = RULE) -> str:
    with pytest.raises(TokenRefused) as caught:
        await tokens.claims(rule, given, {})
    return caught.value.sentence


# ── signed ones ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_good_tokens(tokens: Tokens, providers: Providers) -> None:
    for given in (token(), token(private=RSA, id="2"), token(id=None), token({"aud": ["x", "api"]})):
        assert (await tokens.claims(RULE, given, {}))["sub"] == "me"
    assert len(providers.asked) == 1


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"exp": NOW_S - 31}, wording.TOKEN_EXPIRED),
        ({"exp": None}, wording.TOKEN_EXPIRED),
        ({"exp": "soon"}, wording.TOKEN_EXPIRED),
        ({"nbf": NOW_S + 31}, wording.TOKEN_EXPIRED),
        ({"iss": "https://other.example"}, wording.TOKEN_REFUSED),
        ({"aud": "other"}, wording.TOKEN_REFUSED),
        ({"aud": []}, wording.TOKEN_REFUSED),
        ({"scope": "reader"}, wording.TOKEN_REFUSED),
        ({"scope": None}, wording.TOKEN_REFUSED),
    ],
)
async def test_claims_that_will_not_do(tokens: Tokens, claims: dict[str, Any], sentence: str) -> None:
    payload = base64.urlsafe_b64encode(json.dumps(CLAIMS | claims).encode()).rstrip(b"=").decode()
    head = base64.urlsafe_b64encode(b'{"alg":"ES256","kid":"1"}').rstrip(b"=").decode()
    signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(f"{head}.{payload}".encode(), EC)
    signed = f"{head}.{payload}." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    assert await refused(tokens, signed) == sentence


async def test_signatures_that_will_not_do(tokens: Tokens, providers: Providers) -> None:
    public = json.dumps(key(EC))
    for given in (token(private=OTHER), token(private=OTHER, id=None), token(private=RSA), token()[:-4] + "AAAA"):
        assert await refused(tokens, given) == wording.TOKEN_UNSIGNED
    for given in (
        jwt.encode(CLAIMS, None, "none"),
        jwt.encode(CLAIMS, public * 2, "HS256", {"kid": "1"}),
        "",
        "a.b.c",
        "é.b.c",
        token() + "a" * 9000,
    ):
        assert await refused(tokens, given) == wording.TOKEN_REFUSED
    providers.answers["https://other.example"] = {"keys": [key(EC, use="enc"), key(EC, alg="ES384"), 7]}
    other = TokenRule(name="o", jwks_url="https://other.example")
    assert await refused(tokens, token(), other) == wording.TOKEN_UNSIGNED


async def test_keys_are_rotated(tokens: Tokens, providers: Providers, clock: ManualClock) -> None:
    await tokens.claims(RULE, token(), {})
    providers.answers[KEYS] = {"keys": [key(OTHER, "3")]}
    new = token(private=OTHER, id="3")
    assert await refused(tokens, new) == wording.TOKEN_UNSIGNED
    clock.advance(KEYS_RENEWED_S + 1)
    await tokens.claims(RULE, new, {})
    assert await refused(tokens, token()) == wording.TOKEN_UNSIGNED
    assert len(providers.asked) == 2


async def test_keys_stay_while_their_provider_is_away(tokens: Tokens, providers: Providers, clock: ManualClock) -> None:
    await tokens.claims(RULE, token(), {})
    del providers.answers[KEYS]
    clock.advance(KEYS_RENEWED_S + 1)
    assert await refused(tokens, token(private=OTHER, id="3")) == wording.TOKEN_UNSIGNED
    await tokens.claims(RULE, token(), {})


async def test_a_provider_that_fails_is_left_alone_for_a_while(
    tokens: Tokens, providers: Providers, clock: ManualClock
) -> None:
    held = providers.answers.pop(KEYS)
    for _ in range(3):
        assert await refused(tokens, token()) == wording.TOKEN_REFUSED
    assert len(providers.asked) == 1
    providers.answers[KEYS] = held
    clock.advance(FAILURE_KEPT_S)
    await tokens.claims(RULE, token(), {})


async def test_who_asks_meanwhile_hears_the_same_answer(tokens: Tokens, providers: Providers) -> None:
    await asyncio.gather(*(tokens.claims(RULE, token(), {}) for _ in range(5)))
    assert len(providers.asked) == 1


async def test_the_issuer_says_where_its_keys_are(tokens: Tokens, providers: Providers) -> None:
    rule = parse_token_rule("o", {"x-visp-token": {"issuer": ISSUER + "/"}})
    told = {"jwks_uri": KEYS, "issuer": ISSUER + "/"}
    providers.answers[f"{ISSUER}/.well-known/openid-configuration"] = told
    await tokens.claims(rule, token({"iss": ISSUER + "/"}), {})
    told["issuer"] = "https://another.example"
    rule = parse_token_rule("o", {"openIdConnectUrl": f"{ISSUER}/x", "x-visp-token": {"issuer": ISSUER}})
    providers.answers[f"{ISSUER}/x"] = told
    assert await refused(tokens, token(), rule) == wording.TOKEN_REFUSED


async def test_a_rule_that_says_nothing_lets_nobody_in(tokens: Tokens) -> None:
    assert await refused(tokens, token(), TokenRule(name="mine")) == wording.TOKEN_REFUSED


# ── those that the provider is asked of ─────────────────────────────────────────────────────────────────────────

ASK = "https://issuer.example/introspect"
ASKED = TokenRule(name="o", introspection_url=ASK, client_id="me", client_secret="s:1", scopes=frozenset({"read"}))


async def test_introspection(tokens: Tokens, providers: Providers, clock: ManualClock) -> None:
    providers.answers[ASK] = {"active": True, "scope": "read", "sub": "you", "exp": NOW_S + 3600}
    for _ in range(2):
        assert (await tokens.claims(ASKED, "opaque", {}))["sub"] == "you"
    ((method, _, body, headers),) = providers.asked
    assert method == "POST"
    assert parse_qs(body.decode()) == {"token": ["opaque"], "token_type_hint": ["access_token"]}
    assert headers["authorization"] == "Basic " + base64.b64encode(b"me:s%3A1").decode()
    providers.answers[ASK] = {"active": False}
    clock.advance(ANSWER_KEPT_S)
    assert await refused(tokens, "opaque", ASKED) == wording.TOKEN_REFUSED


async def test_what_is_kept_of_a_token_ends_with_it(tokens: Tokens, providers: Providers, clock: ManualClock) -> None:
    providers.answers[ASK] = {"active": True, "scope": "read", "exp": NOW_S + 5}
    await tokens.claims(ASKED, "opaque", {})
    clock.advance(40)
    assert await refused(tokens, "opaque", ASKED) == wording.TOKEN_EXPIRED


@pytest.mark.parametrize("answer", [{"active": "true", "scope": "read"}, {"active": True}, {}, 401, 500, None])
async def test_answers_that_will_not_do(tokens: Tokens, providers: Providers, answer: Any) -> None:
    providers.answers[ASK] = answer
    for _ in range(2):
        assert await refused(tokens, "opaque", ASKED) == wording.TOKEN_REFUSED
    assert len(providers.asked) == 1


async def test_providers_by_their_names(tokens: Tokens, providers: Providers) -> None:
    providers.answers["https://www.googleapis.com/oauth2/v3/tokeninfo"] = {"sub": "g", "exp": str(NOW_S + 9)}
    providers.answers["https://api.github.com/user"] = {"id": 7}
    providers.answers["https://graph.facebook.com/debug_token"] = {"data": {"is_valid": True, "user_id": "f"}}
    for name, sub in (("google", "g"), ("github", "7"), ("facebook", "f")):
        rule = TokenRule(name=name)
        assert (await tokens.claims(rule, "t", {"x-facebook-app-token": "a"}))["sub"] == sub
    assert await refused(tokens, "t", TokenRule(name="facebook")) == wording.TOKEN_REFUSED


# ── App ID, and what is for tests ───────────────────────────────────────────────────────────────────────────────


async def test_app_id_has_keys_for_each_tenant(providers: Providers, clock: ManualClock) -> None:
    rule = parse_token_rule("app-id", {"type": "oauth2", "tenantId": "a/b"})
    providers.answers["https://app.example/v4/a%2Fb/publickeys"] = {"keys": [key(EC)]}
    tokens = Tokens(providers, clock, Gateway(app_id_url="https://app.example/v4/"))  # type: ignore[arg-type]
    assert (await tokens.claims(rule, token(), {}))["sub"] == "me"
    assert await refused(tokens, token({"exp": NOW_S - 60}), rule) == "The access token has expired."
    assert await refused(tokens, token(private=OTHER), rule) == "The token signature did not match any known JWK."
    assert await refused(tokens, token(), parse_token_rule("app-id", {})) == wording.TOKEN_REFUSED


async def test_app_id_lets_nobody_in_unless_an_operator_says_where_it_is(tokens: Tokens, providers: Providers) -> None:
    assert await refused(tokens, token(), parse_token_rule("app-id", {"tenantId": "t"})) == wording.TOKEN_REFUSED
    assert providers.asked == []


async def test_the_mock_lets_nobody_in_unless_a_setting_says_so(providers: Providers, clock: ManualClock) -> None:
    rule = parse_token_rule("mock", {"type": "oauth2"})
    assert await refused(Tokens(providers, clock), "test", rule) == wording.TOKEN_REFUSED  # type: ignore[arg-type]
    tokens = Tokens(providers, clock, Gateway(mock_tokens=True))  # type: ignore[arg-type]
    assert await tokens.claims(rule, "test", {}) == {"email": "test@test.com"}
    assert await refused(tokens, "other", rule) == wording.TOKEN_REFUSED
