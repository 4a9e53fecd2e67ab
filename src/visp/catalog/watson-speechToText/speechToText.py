"""What is said in a piece of audio.

Source: https://cloud.ibm.com/apidocs/speech-to-text.
"""

import base64
import binascii

from asking import Refused, ask, parsed, query, required
from watson import service

OPTIONS = (
    "model",
    "language_customization_id",
    "keywords",
    "keywords_threshold",
    "max_alternatives",
    "word_alternatives_threshold",
    "word_confidence",
    "timestamps",
    "profanity_filter",
    "smart_formatting",
    "speaker_labels",
    "inactivity_timeout",
)


def main(args):
    try:
        base, credentials = service(args, "Watson Speech to Text")
        payload, kind = required(args, "payload", "content_type")
        audio = base64.b64decode(payload)
        asked = {name: text(args[name]) for name in OPTIONS if args.get(name) not in (None, "")}
        status, _, content = ask(
            "POST", f"{base}/v1/recognize{query(asked)}", audio, credentials | {"Content-Type": kind}
        )
    except binascii.Error:
        return {"error": "payload must be audio in base64"}
    except Refused as refused:
        return {"error": str(refused)}
    answer = parsed(content)
    if status >= 300:
        return {"error": answer.get("error") if isinstance(answer, dict) else f"the service answered {status}"}
    results = answer.get("results", []) if isinstance(answer, dict) else []
    said = "".join(one["alternatives"][0]["transcript"] for one in results if one.get("alternatives"))
    return {"data": said, "results": results}


def text(value):
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else value
