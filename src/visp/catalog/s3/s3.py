"""Objects in buckets of Amazon S3 and of what speaks like it.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/, and its Signature Version 4.
"""

import base64
import datetime
import hashlib
import hmac
import json
import urllib.parse
import xml.etree.ElementTree as ElementTree

from asking import Refused, ask, required

EMPTY = hashlib.sha256(b"").hexdigest()


def called(act):
    def action(args):
        try:
            return act(args)
        except (Refused, ValueError) as refused:
            return {"error": str(refused)}

    return action


@called
def get(args):
    bucket, key = required(args, "bucket", "key")
    _, headers, content = call("GET", args, f"/{bucket}/{key}")
    found = {
        "bucket": bucket,
        "key": key,
        "size": len(content),
        "etag": headers.get("etag", "").strip('"'),
        "contentType": headers.get("content-type", "application/octet-stream"),
    }
    try:
        return found | {"body": content.decode()}
    except UnicodeDecodeError:
        return found | {"body": base64.b64encode(content).decode(), "encoding": "base64"}


@called
def put(args):
    bucket, key = required(args, "bucket", "key")
    body = args.get("body")
    if body is None:
        raise Refused("You must specify a body parameter.")
    if args.get("encoding") == "base64":
        content, kind = base64.b64decode(body, validate=True), "application/octet-stream"
    elif isinstance(body, str):
        content, kind = body.encode(), "text/plain; charset=utf-8"
    else:
        content, kind = json.dumps(body).encode(), "application/json"
    kind = args.get("contentType") or kind
    _, headers, _ = call("PUT", args, f"/{bucket}/{key}", {}, content, {"content-type": kind})
    return {"bucket": bucket, "key": key, "size": len(content), "etag": headers.get("etag", "").strip('"')}


@called
def list_(args):
    (bucket,) = required(args, "bucket")
    asked = {"list-type": "2", "max-keys": str(args.get("limit") or 1000)}
    for name, given in (("prefix", "prefix"), ("delimiter", "delimiter"), ("continuation-token", "next")):
        if args.get(given):
            asked[name] = str(args[given])
    _, _, content = call("GET", args, f"/{bucket}", asked)
    if b"<!DOCTYPE" in content[:1000]:
        raise Refused("the answer is no list of objects")
    root = ElementTree.fromstring(content)
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    objects = [
        {
            "key": one.findtext(f"{space}Key"),
            "size": int(one.findtext(f"{space}Size") or 0),
            "etag": (one.findtext(f"{space}ETag") or "").strip('"'),
            "modified": one.findtext(f"{space}LastModified"),
        }
        for one in root.iter(f"{space}Contents")
    ]
    prefixes = [one.findtext(f"{space}Prefix") for one in root.iter(f"{space}CommonPrefixes")]
    more = root.findtext(f"{space}NextContinuationToken")
    return (
        {"bucket": bucket, "objects": objects}
        | ({"prefixes": prefixes} if prefixes else {})
        | ({"next": more} if more else {})
    )


# ── the signed request ──────────────────────────────────────────────────────────────────────────────────────────────


def call(method, args, path, asked=None, body=None, headers=None):
    """Status, headers, body; raises `Refused` with what the service says."""
    region = str(args.get("region") or "us-east-1")
    base = str(args.get("endpoint") or f"https://s3.{region}.amazonaws.com").rstrip("/")
    path = urllib.parse.quote(path, safe="/-_.~")
    query = "&".join(f"{escaped(name)}={escaped(value)}" for name, value in sorted((asked or {}).items()))
    sent = dict(headers or {})
    if args.get("access_key"):
        key, secret = required(args, "access_key", "secret_key")
        now = datetime.datetime.now(datetime.timezone.utc)
        sent = signed(
            method, base, path, query, sent, body, region, str(key), str(secret), now, args.get("session_token")
        )
    status, got, content = ask(method, f"{base}{path}{f'?{query}' if query else ''}", body, sent)
    if status >= 300:
        raise Refused(f"{status} from the object store: {reason(content)}")
    return status, got, content


def escaped(text):
    return urllib.parse.quote(text, safe="-_.~")


def reason(content):
    code, message = (
        content.partition(f"<{name}>".encode())[2].partition(b"<")[0].decode("utf-8", "replace")
        for name in ("Code", "Message")
    )
    return f"{code}: {message}" if code else "no reason was given"


def signed(method, base, path, query, headers, body, region, key, secret, now, token=None):
    """The headers, and with them the one that signs them all."""
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    digest = EMPTY if body is None else hashlib.sha256(body).hexdigest()
    sent = headers | {
        "host": urllib.parse.urlsplit(base).netloc,
        "x-amz-content-sha256": digest,
        "x-amz-date": stamp,
    }
    if token:
        sent["x-amz-security-token"] = str(token)
    names = ";".join(sorted(sent))
    canonical = "".join(f"{name}:{sent[name].strip()}\n" for name in sorted(sent))
    asked = "\n".join((method, path, query, canonical, names, digest))
    scope = f"{day}/{region}/s3/aws4_request"
    told = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(asked.encode()).hexdigest()))
    made = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        made = hmac.digest(made, part.encode(), "sha256")
    signature = hmac.new(made, told.encode(), "sha256").hexdigest()
    sent["Authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return sent
