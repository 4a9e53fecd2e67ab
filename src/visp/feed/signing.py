"""Requests to S3, signed by AWS's Signature Version 4. Pure.

As the AWS documentation "Authenticating Requests: Using the Authorization Header" has it; its examples are the tests.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

EMPTY = sha256(b"").hexdigest()
ALGORITHM = "AWS4-HMAC-SHA256"


def query_of(parameters: Mapping[str, str]) -> str:
    """A query as it is signed, and sent: sorted, everything escaped."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(parameters.items()))


def signature(
    secret_key: str, region: str, stamp: str, method: str, path: str, query: str, headers: Mapping[str, str]
) -> str:
    """`path` and `query` as they are sent; `headers` are those that are signed, lower-case; `stamp`
    `20130524T000000Z`."""
    listed = sorted(headers.items())
    canonical = "\n".join(
        (
            method,
            path,
            query,
            *(f"{name}:{' '.join(value.split())}" for name, value in listed),
            "",
            ";".join(name for name, _ in listed),
            headers["x-amz-content-sha256"],
        )
    )
    text = "\n".join((ALGORITHM, stamp, scope(region, stamp), sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{secret_key}".encode()
    for part in (stamp[:8], region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def scope(region: str, stamp: str) -> str:
    return f"{stamp[:8]}/{region}/s3/aws4_request"


def signed(
    access_key: str, secret_key: str, region: str, stamp: str, host: str, path: str, query: str
) -> dict[str, str]:
    """Headers of a GET."""
    headers = {"host": host, "x-amz-content-sha256": EMPTY, "x-amz-date": stamp}
    made = signature(secret_key, region, stamp, "GET", path, query, headers)
    names = ";".join(sorted(headers))
    credential = f"{access_key}/{scope(region, stamp)}"
    headers["authorization"] = f"{ALGORITHM} Credential={credential},SignedHeaders={names},Signature={made}"
    return headers
