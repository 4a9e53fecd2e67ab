"""What an API says of the bearer tokens that it takes, and whether the claims of one will do. Pure.

Source: RFC 7519 (claims), RFC 8414 and OpenID Connect Discovery (where a provider says its keys are), RFC 7662
(introspection). `x-visp-token` beside a scheme of a document says what the original takes from its own configuration.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import msgspec

LEEWAY_S = 30
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a provider's private key: none by a secret that both sides know, and never no signature."""
TOKEN_BYTES_MOST = 8 * 1024


class TokenRule(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is the scheme's. Keys are at `jwks_url`, or where the issuer's `discovery_url` says; with
    `introspection_url` the provider is asked of each token instead. With neither no token is good, but for a name that
    says who is asked. `tenant` is whose users App ID knows.
    """

    name: str
    issuer: str = ""
    audience: tuple[str, ...] = ()
    scopes: frozenset[str] = frozenset()
    jwks_url: str = ""
    discovery_url: str = ""
    introspection_url: str = ""
    tenant: str = ""
    client_id: str = ""
    client_secret: str = ""

    @property
    def is_usable(self) -> bool:
        return bool(self.jwks_url or self.discovery_url or self.introspection_url)


def parse_token_rule(name: str, scheme: Any) -> TokenRule:
    """Of a scheme of type `oauth2` or `openIdConnect`: `x-visp-token` has `issuer`, `audience` (one or several),
    `scopes`, `jwksUri`, `tenantId`, and `introspection` with `url`, `clientId`, `clientSecret`.
    """
    told = scheme.get("x-visp-token")
    fields: dict[str, Any] = told if isinstance(told, dict) else {}
    asked = fields.get("introspection")
    asked = asked if isinstance(asked, dict) else {}
    issuer = _text(fields.get("issuer"))
    discovery = _text(scheme.get("openIdConnectUrl"))
    if not discovery and issuer:
        discovery = issuer.rstrip("/") + "/.well-known/openid-configuration"
    return TokenRule(
        name=name,
        issuer=issuer,
        audience=_texts(fields.get("audience")),
        scopes=frozenset(_texts(fields.get("scopes"))),
        jwks_url=_text(fields.get("jwksUri")),
        discovery_url=discovery,
        introspection_url=_text(asked.get("url")),
        tenant=_text(fields.get("tenantId")) or _text(scheme.get("tenantId")),
        client_id=_text(asked.get("clientId")),
        client_secret=_text(asked.get("clientSecret")),
    )


def is_scoped(rule: TokenRule, claims: dict[str, Any]) -> bool:
    """Whether the token may do all that the rule asks: `scope` (one text) or `scp` (a list or a text)."""
    given: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name)
        given |= set(value.split()) if isinstance(value, str) else set(_texts(value))
    return rule.scopes <= given


def is_for(rule: TokenRule, claims: dict[str, Any]) -> bool:
    """Whether issuer and audience are the rule's, where it names some."""
    if rule.issuer and claims.get("iss") != rule.issuer:
        return False
    return not rule.audience or not set(rule.audience).isdisjoint(_texts(claims.get("aud")))


def is_current(claims: dict[str, Any], now_s: float) -> bool:
    """Whether it has an end that is not over, and has begun where it says when."""
    end, start = claims.get("exp"), claims.get("nbf", 0)
    if not _is_time(end) or not _is_time(start):
        return False
    return start - LEEWAY_S <= now_s < end + LEEWAY_S


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
