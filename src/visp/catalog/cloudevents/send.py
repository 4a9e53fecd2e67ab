"""Sends a cloud event, in the structured or the binary mode of its HTTP binding.

Source: CloudEvents 1.0.2, and its HTTP protocol binding.
"""

import datetime
import json
import uuid

from asking import Refused, answered, required

OURS = ("url", "mode", "headers", "data", "extensions")


def main(args):
    try:
        url, type, source = required(args, "url", "type", "source")
        event = {
            "specversion": "1.0",
            "id": str(args.get("id") or uuid.uuid4()),
            "type": type,
            "source": source,
            "time": args.get("time") or datetime.datetime.now(datetime.timezone.utc).isoformat(),
        }
        for name in ("subject", "dataschema"):
            if args.get(name):
                event[name] = args[name]
        event |= args.get("extensions") or {}
        data, headers = args.get("data"), dict(args.get("headers") or {})
        kind = args.get("datacontenttype") or "application/json"
        if args.get("mode") == "binary":
            headers |= {f"ce-{name}": encoded(str(value)) for name, value in event.items()} | {"Content-Type": kind}
            body = data if isinstance(data, str) and "json" not in kind else json.dumps(data)
        else:
            headers["Content-Type"] = "application/cloudevents+json"
            body = json.dumps(event | ({} if data is None else {"datacontenttype": kind, "data": data}))
        answer = answered("POST", url, body, headers)
    except Refused as refused:
        return {"error": str(refused)}
    return {"id": event["id"], "answer": answer}


def encoded(text):
    """Printable ASCII but for blank, quote and percent; the rest as UTF-8 in percents."""
    return "".join(
        one if "!" <= one <= "~" and one not in '"%' else "".join(f"%{byte:02X}" for byte in one.encode())
        for one in text
    )
