"""A feed that GitHub fires itself: a web hook of the repository calls the trigger, with the key in its URL.

Source: https://docs.github.com/rest/repos/webhooks and the feed of OpenWhisk's catalog.
"""

import os
import urllib.parse

from asking import Refused, ask, parsed, quoted, required


def main(args):
    event = args.get("lifecycleEvent")
    try:
        if event not in ("CREATE", "READ", "UPDATE", "DELETE"):
            raise Refused("unsupported lifecycleEvent")
        if event in ("READ", "UPDATE"):
            return {}
        required(args, "username", "repository", "accessToken")
        return create(args) if event == "CREATE" else delete(args)
    except Refused as refused:
        return {"error": str(refused)}


def create(args):
    (events,) = required(args, "events")
    wanted = (
        events if isinstance(events, list) else [event.strip() for event in str(events).split(",") if event.strip()]
    )
    config = {"url": address(args), "content_type": "json"}
    return call("POST", args, "", {"name": "web", "active": True, "events": wanted, "config": config})


def delete(args):
    where = address(args)
    page = 1
    while hooks := call("GET", args, f"?per_page=100&page={page}"):
        for hook in hooks:
            if isinstance(hook, dict) and hook.get("config", {}).get("url") in (where, shown(where)):
                call("DELETE", args, f"/{hook['id']}")
                return {"deleted": hook["id"]}
        page += 1
    raise Refused(f"Found no existing webhooks for trigger URL {shown(where)}")


def call(method, args, path, body=None):
    name = str(args["repository"]).strip("/")
    owner, _, repository = name.rpartition("/")
    base = str(args.get("baseUrl") or "https://api.github.com").rstrip("/")
    url = f"{base}/repos/{quoted(owner or args['username'])}/{quoted(repository)}/hooks{path}"
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {args['accessToken']}",
        "User-Agent": "visp",
    }
    status, _, content = ask(method, url, body, headers)
    answer = parsed(content)
    if status >= 300:
        reason = answer.get("message") if isinstance(answer, dict) else answer
        raise Refused(f"{status} from GitHub: {reason}")
    return answer if answer is not None else {}


def address(args):
    """The trigger's own URL, as GitHub calls it: with the key of who creates it."""
    name = args.get("triggerName")
    if not isinstance(name, str) or not name.strip("/"):
        raise Refused("no trigger name parameter was provided")
    namespace, _, trigger = name.strip("/").rpartition("/")
    if namespace in ("", "_"):
        namespace = os.environ["__OW_NAMESPACE"]
    key = os.environ.get("__OW_API_KEY") or args.get("authKey") or ""
    host = urllib.parse.urlsplit(str(args.get("apihost") or os.environ["__OW_API_HOST"]))
    if not host.netloc:
        raise Refused("apihost must be a URL, such as https://visp.example.com")
    path = f"/api/v1/namespaces/{urllib.parse.quote(namespace)}/triggers/{urllib.parse.quote(trigger)}"
    return f"{host.scheme}://{key}@{host.netloc}{path}"


def shown(url):
    """Without the key, as GitHub may show it and as logs may."""
    where = urllib.parse.urlsplit(url)
    return where._replace(netloc=where.netloc.rpartition("@")[2]).geturl()
