"""Actions invoked by the platform's API, for whoever invoked this one: with the annotation `provide-api-key`."""

import json
import os
import urllib.parse

from asking import Refused, ask, basic


def invoke(name, parameters, is_blocking=True):
    """The activation's record, of a failed one too; raises `Refused` when nothing was run or nothing came back."""
    key = os.environ.get("__OW_API_KEY", "")
    user, _, password = key.partition(":")
    if not password:
        raise Refused("this action was given no API key: it needs the annotation provide-api-key")
    namespace, path = named(name)
    url = f"{os.environ['__OW_API_HOST']}/api/v1/namespaces/{urllib.parse.quote(namespace)}/actions/{path}"
    url += f"?blocking={'true' if is_blocking else 'false'}"
    status, _, content = ask(
        "POST", url, json.dumps(parameters), {"Content-Type": "application/json"} | basic(user, password)
    )
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or (is_blocking and "response" not in answer) or "activationId" not in answer:
        reason = answer.get("error") if isinstance(answer, dict) else None
        raise Refused(f"{name} was not run: {reason or f'the platform answered {status}'}")
    return answer


def named(name):
    """Namespace, and the rest as it stands in a path."""
    parts = [part for part in name.split("/") if part]
    namespace = parts.pop(0) if name.startswith("/") and parts else "_"
    if not 1 <= len(parts) <= 2:
        raise Refused(f"'{name}' is no name of an action")
    return namespace, "/".join(urllib.parse.quote(part) for part in parts)
