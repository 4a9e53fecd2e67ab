"""A feed that GitHub tells: a web hook of the repository, signed with a secret of its own, calls the feed's address.

Source: https://docs.github.com/rest/repos/webhooks and the feed of OpenWhisk's catalog, whose parameters, events and
sentences these are. That one has GitHub call the trigger with its owner's key in the URL; here GitHub is given no key.
"""

import secrets
import urllib.parse

from asking import Refused, ask, parsed, quoted, required
from telling import tell


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
    """In the place of the hook that the trigger has, if it has one. Where GitHub refuses, nothing remains."""
    (events,) = required(args, "events")
    wanted = (
        events if isinstance(events, list) else [event.strip() for event in str(events).split(",") if event.strip()]
    )
    public(args, "")
    secret = secrets.token_hex(32)
    before = known(args)
    parameters = {"secret": secret, "repository": "/".join(place_at(args)), "events": ",".join(map(str, wanted))}
    if args.get("filter") is not None:
        parameters["filter"] = args["filter"]
    url = public(args, tell("PUT", args, parameters)["url"])
    config = {"url": url, "content_type": "json", "secret": secret, "insecure_ssl": "0"}
    try:
        made = call("POST", args, "", {"name": "web", "active": True, "events": wanted, "config": config})
    except Refused:
        at_best(tell, "DELETE", args, {})
        raise
    if before is not None:
        at_best(remove, args, before)
    return without_secret(made)


def delete(args):
    """At GitHub, then here: here also where GitHub refuses."""
    url = known(args)
    if url is None:
        raise Refused(f"Found no existing webhooks for trigger URL {args.get('triggerName')}")
    try:
        found = remove(args, url)
    finally:
        at_best(tell, "DELETE", args, {})
    if found is None:
        raise Refused(f"Found no existing webhooks for trigger URL {url}")
    return {"deleted": found}


def at_best(do, *given):
    """What tidies up says nothing of what it could not."""
    try:
        do(*given)
    except Refused:
        pass


def known(args):
    """The address of the trigger's hook; None: it has none."""
    try:
        url = tell("GET", args, {}).get("config", {}).get("url")
    except Refused:
        return None
    return None if url is None else public(args, url)


def remove(args, url):
    """The number of the hook that was removed, None if there was none with this address."""
    page = 1
    while hooks := call("GET", args, f"?per_page=100&page={page}"):
        for hook in hooks:
            if isinstance(hook, dict) and hook.get("config", {}).get("url") == url:
                call("DELETE", args, f"/{hook['id']}")
                return hook["id"]
        page += 1
    return None


def place_at(args):
    """Owner and name of the repository."""
    owner, _, repository = str(args["repository"]).strip("/").rpartition("/")
    return owner or str(args["username"]), repository


def call(method, args, path, body=None):
    owner, repository = map(quoted, place_at(args))
    base = str(args.get("baseUrl") or "https://api.github.com").rstrip("/")
    url = f"{base}/repos/{owner}/{repository}/hooks{path}"
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


def without_secret(hook):
    if isinstance(hook, dict) and isinstance(hook.get("config"), dict):
        hook["config"].pop("secret", None)
    return hook


def public(args, url):
    """The feed's address as GitHub reaches it."""
    given = args.get("apihost")
    if not given:
        return url
    host = urllib.parse.urlsplit(str(given))
    if host.scheme not in ("http", "https") or not host.netloc or "@" in host.netloc:
        raise Refused("apihost must be a URL, such as https://visp.example.com")
    return f"{host.scheme}://{host.netloc}{host.path.rstrip('/')}{urllib.parse.urlsplit(url).path}"
