"""A small S3: one bucket, ListObjectsV2, signatures checked by a reading of AWS's documentation of its own."""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web

ACCESS, SECRET = "AKIAVISP", "s3cr3t/key"
PAGE = 3


class Buckets:
    def __init__(self, port: int) -> None:
        self.port = port
        self.objects: dict[str, bytes] = {}
        self.page = PAGE
        self.extra = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application()
        application.router.add_get("/{bucket}", self._list)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _list(self, request: web.Request) -> web.Response:
        if not is_signed(request):
            document = "<Error><Code>SignatureDoesNotMatch</Code></Error>"
            return web.Response(status=403, text=document, content_type="application/xml")
        query = request.query
        after = query.get("continuation-token", "")
        keys = sorted(key for key in self.objects if key.startswith(query["prefix"]) and key > after)
        shown = keys[: self.page]
        parts = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
            f'<ETag>"{hashlib.md5(self.objects[key]).hexdigest()}"</ETag></Contents>'
            for key in shown
        )
        more = len(keys) > len(shown)
        token = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if more else ""
        document = (
            f'<?xml version="1.0"?>{self.extra}<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{parts}</ListBucketResult>"
        )
        return web.Response(text=document, content_type="application/xml")


def is_signed(request: web.Request) -> bool:
    match = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request,\s*"
        r"SignedHeaders=([^,]+),\s*Signature=(\w+)",
        request.headers.get("Authorization", ""),
    )
    if match is None or match[1] != ACCESS:
        return False
    names = match[4].split(";")
    assert {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names)
    path, _, query = request.raw_path.partition("?")
    assert query == "&".join(sorted(query.split("&")))
    assert unquote(path) == request.path
    canonical = f"GET\n{path}\n{query}\n"
    canonical += "".join(f"{name}:{request.headers[name].strip()}\n" for name in names)
    canonical += f"\n{match[4]}\n{request.headers['x-amz-content-sha256']}"
    stamp = request.headers["x-amz-date"]
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{match[2]}/{match[3]}/s3/aws4_request\n"
    text += hashlib.sha256(canonical.encode()).hexdigest()
    key = ("AWS4" + SECRET).encode()
    for part in (match[2], match[3], "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest() == match[5]
