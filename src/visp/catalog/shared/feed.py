"""Tells the platform of a feed's turn: one action for all feeds, which knows by its own name whose it is.

`lifecycleEvent`, `triggerName` and `authKey` come from the client; what else there is belongs to the source.
"""

import json
import os
import urllib.parse

from asking import Refused, ask, basic

METHODS = {"CREATE": "PUT", "READ": "GET", "UPDATE": "POST", "DELETE": "DELETE"}
OURS = ("lifecycleEvent", "triggerName", "authKey")


def main(args):
    method = METHODS.get(args.get("lifecycleEvent"))
    if method is None:
        return {"error": "unsupported lifecycleEvent"}
    name = args.get("triggerName")
    if not isinstance(name, str) or not name.strip("/"):
        return {"error": "no trigger name parameter was provided"}
    try:
        return told(method, name, args)
    except Refused as refused:
        return {"error": str(refused)}


def told(method, name, args):
    parts = name.strip("/").split("/")
    namespace, trigger = parts if len(parts) == 2 else ("_", name.strip("/"))
    if namespace == "_":
        namespace = os.environ["__OW_NAMESPACE"]
    user, _, password = str(args.get("authKey") or "").partition(":")
    url = "/".join((os.environ["__OW_API_HOST"], "api/v1/namespaces", escaped(namespace), "feeds", escaped(trigger)))
    body = {
        "feed": "/".join(os.environ["__OW_ACTION_NAME"].split("/")[-2:]),
        "parameters": {key: value for key, value in args.items() if key not in OURS},
    }
    headers = {"Content-Type": "application/json"} | basic(user, password)
    status, _, content = ask(method, url, json.dumps(body), headers, timeout_s=85)
    try:
        answer = json.loads(content or b"{}")
    except ValueError:
        answer = None
    if status >= 300 or not isinstance(answer, dict):
        reason = answer.get("error") if isinstance(answer, dict) else None
        return {"error": reason or f"the platform answered {status}"}
    return answer


def escaped(text):
    return urllib.parse.quote(text, safe="")
