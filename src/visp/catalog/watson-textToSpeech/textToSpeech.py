"""A text, spoken.

Source: https://cloud.ibm.com/apidocs/text-to-speech.
"""

import base64

from asking import Refused, ask, parsed, query, required
from watson import service


def main(args):
    try:
        base, credentials = service(args, "Watson Text to Speech")
        (payload,) = required(args, "payload")
        kind = args.get("accept") or "audio/ogg;codecs=opus"
        path = f"/v1/synthesize{query({'voice': args.get('voice')})}"
        status, _, content = ask("POST", base + path, {"text": payload}, credentials | {"Accept": kind})
    except Refused as refused:
        return {"error": str(refused)}
    if status >= 300:
        answer = parsed(content)
        return {"error": answer.get("error") if isinstance(answer, dict) else f"the service answered {status}"}
    encoding = args.get("encoding") or "base64"
    encoded = content.hex() if encoding == "hex" else base64.b64encode(content).decode()
    return {"payload": encoded, "encoding": "hex" if encoding == "hex" else "base64", "mimetype": kind}
