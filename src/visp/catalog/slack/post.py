"""Posts a message: to a URL of incoming web hooks, or with a token as `chat.postMessage`.

Source: https://api.slack.com/methods/chat.postMessage and https://api.slack.com/messaging/webhooks.
"""

import json
import urllib.parse

from asking import Refused, ask, parsed


def main(args):
    if not args.get("text") and not args.get("attachments"):
        return {"error": "No text provided"}
    if not args.get("url"):
        return {"error": "No Webhook URL provided"}
    message = {
        name: args[name] for name in ("channel", "text", "attachments", "icon_emoji", "as_user") if args.get(name)
    }
    message["username"] = args.get("username") or "Simple Message Bot"
    if args.get("token"):
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in message.items()}
        form["token"] = args["token"]
    else:
        form = {"payload": json.dumps(message)}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    try:
        status, _, content = ask("POST", args["url"], urllib.parse.urlencode(form), headers)
    except Refused as refused:
        return {"error": str(refused)}
    answer = parsed(content)
    is_told = isinstance(answer, dict) and answer.get("ok") is False
    if status >= 300 or is_told:
        reason = answer.get("error") if is_told else answer
        return {"error": f"Slack refused the message: {reason or status}"}
    return {}
