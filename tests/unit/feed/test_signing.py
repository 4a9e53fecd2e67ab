"""Signatures of requests to S3, by the examples of AWS's documentation."""

from __future__ import annotations

import pytest

from visp.feed.signing import query_of, signature, signed

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
STAMP = "20130524T000000Z"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"lifecycle": ""}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ({"prefix": "J", "max-keys": "2"}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_the_examples_of_the_documentation(query: dict[str, str], expected: str) -> None:
    headers = signed("AKIAIOSFODNN7EXAMPLE", SECRET, "us-east-1", STAMP, "examplebucket.s3.amazonaws.com", "/",
                     query_of(query))  # fmt: skip
    assert headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature={expected}"
    )


def test_further_headers_are_signed_too() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    headers = {"host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9", "x-amz-content-sha256": empty,
               "x-amz-date": STAMP}  # fmt: skip
    made = signature(SECRET, "us-east-1", STAMP, "GET", "/test.txt", "", headers)
    assert made == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
