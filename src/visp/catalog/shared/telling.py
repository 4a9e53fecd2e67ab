"""The platform's own feeds, as an action asks for them on behalf of a trigger's owner."""

import json
import os
import urllib.parse

from asking import Refused, ask, basic


def place(args):
    """Namespace and name of the trigger that an action of the feed protocol is told of."""
    name = args.get("triggerName")
    if not isinstance(name, str) or not name.strip("/"):
        raise Refused("no trigger name parameter was provided")
    parts = name.strip("/").split("/")
    namespace, trigger = parts if len(parts) == 2 else ("_", name.strip("/"))
    return (os.environ["__OW_NAMESPACE"] if namespace == "_" else namespace), trigger


def tell(method, args, parameters):
    """What the platform makes of a request about the trigger's feed; raises `Refused` with what it says."""
    namespace, trigger = map(escaped, place(args))
    user, _, password = str(args.get("authKey") or "").partition(":")
    body = {"feed": "/".join(os.environ["__OW_ACTION_NAME"].split("/")[-2:]), "parameters": parameters}
    headers = {"Content-Type": "application/json"} | basic(user, password)
    url = f"{os.environ['__OW_API_HOST']}/api/v1/namespaces/{namespace}/feeds/{trigger}"
    status, _, content = ask(method, url, json.dumps(body), headers, timeout_s=85)
    try:
        answer = json.loads(content or b"{}")
    except ValueError:
        answer = None
    if status >= 300 or not isinstance(answer, dict):
        reason = answer.get("error") if isinstance(answer, dict) else None
        raise Refused(reason or f"the platform answered {status}")
    return answer


def escaped(text):
    return urllib.parse.quote(text, safe="")
