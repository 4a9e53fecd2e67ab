"""Messages by IBM's service of push notifications, and a feed of what happens to its devices.

Source: the parameters of OpenWhisk's package of push notifications, and that service's REST API.
"""

import os
import urllib.parse

from asking import Refused, answered, quoted, required

HOST = "imfpush.ng.bluemix.net"
PLATFORM = {"apns": "apns", "gcm": "gcm", "chrome": "chromeWeb", "fireFox": "firefoxWeb", "safari": "safariWeb"}
TARGETS = ("deviceIds", "platforms", "userIds", "tagNames")


def called(act):
    def action(args):
        if not (args.get("appGuid") or args.get("appId")) or not args.get("appSecret"):
            return {"error": "the push service needs its credentials: the parameters appGuid and appSecret"}
        try:
            return act(args)
        except Refused as refused:
            return {"error": str(refused)}

    return action


def call(method, args, path, body=None):
    host = str(args.get("apiHost") or HOST).rstrip("/")
    base = host if "://" in host else f"https://{host}"
    headers = {"appSecret": args["appSecret"], "Accept": "application/json"}
    return answered(
        method, f"{base}/imfpush/v1/apps/{quoted(args.get('appGuid') or args.get('appId'))}/{path}", body, headers
    )


@called
def send_message(args):
    (text,) = required(args, "text")
    message = {"alert": text} | ({"url": args["url"]} if args.get("url") else {})
    target = {name: listed(args[name]) for name in TARGETS if args.get(name)}
    settings = {}
    for prefix, name in PLATFORM.items():
        found = {
            key[len(prefix) : len(prefix) + 1].lower() + key[len(prefix) + 1 :]: value
            for key, value in args.items()
            if key.startswith(prefix) and len(key) > len(prefix) and value not in (None, "")
        }
        if found:
            settings[name] = found
    body = {"message": message} | ({"target": target} if target else {}) | ({"settings": settings} if settings else {})
    return {"pushResponse": call("POST", args, "messages", body)}


def listed(value):
    return value if isinstance(value, list) else [one.strip() for one in str(value).split(",") if one.strip()]


@called
def webhook(args):
    event = args.get("lifecycleEvent")
    namespace, _, trigger = str(args.get("triggerName") or "").strip("/").rpartition("/")
    if event not in ("CREATE", "READ", "UPDATE", "DELETE"):
        raise Refused("unsupported lifecycleEvent")
    if not trigger:
        raise Refused("no trigger name parameter was provided")
    namespace = os.environ["__OW_NAMESPACE"] if namespace in ("", "_") else namespace
    name = f"{namespace}_{trigger}"
    if event == "READ":
        return call("GET", args, f"webhooks/{quoted(name)}")
    if event == "DELETE":
        return call("DELETE", args, f"webhooks/{quoted(name)}")
    (events,) = required(args, "events")
    host = urllib.parse.urlsplit(str(args.get("apihost") or os.environ["__OW_API_HOST"]))
    path = f"/api/v1/namespaces/{urllib.parse.quote(namespace)}/triggers/{urllib.parse.quote(trigger)}"
    url = f"{host.scheme}://{os.environ.get('__OW_API_KEY') or args.get('authKey')}@{host.netloc}{path}"
    body = {"name": name, "url": url, "eventTypes": listed(events)}
    return (
        call("POST", args, "webhooks", body)
        if event == "CREATE"
        else call("PUT", args, f"webhooks/{quoted(name)}", body)
    )
