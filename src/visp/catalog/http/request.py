"""A request to any server, and its answer, whatever its status."""

import base64
import json

from asking import Refused, ask, parsed, required


def main(args):
    try:
        (url,) = required(args, "url")
        method = str(args.get("method") or ("GET" if args.get("body") is None else "POST")).upper()
        headers = args.get("headers") or {}
        if not isinstance(headers, dict):
            raise Refused("headers must be an object")
        body = args.get("body")
        if body is not None and not isinstance(body, (str, dict, list)):
            body = json.dumps(body)
        if args.get("encoding") == "base64":
            body = base64.b64decode(body)
        status, got, content = ask(method, url, body, headers)
    except (Refused, ValueError) as refused:
        return {"error": str(refused)}
    return {"status": status, "headers": got} | shown(got.get("content-type", ""), content)


def shown(kind, content):
    if "json" in kind:
        return {"body": parsed(content)}
    try:
        return {"body": content.decode()}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(content).decode(), "encoding": "base64"}
