"""Texts in another language, and which language a text is in.

Source: https://cloud.ibm.com/apidocs/language-translator (version 3).
"""

from asking import Refused, ask, parsed
from watson import service

NAME, VERSION = "Watson Language Translator", "2018-05-01"


def called(act):
    def action(args):
        try:
            return act(args)
        except Refused as refused:
            return {"error": str(refused)}

    return action


def call(args, path, body, headers):
    base, credentials = service(args, NAME)
    status, _, content = ask("POST", f"{base}/v3/{path}?version={VERSION}", body, credentials | headers)
    answer = parsed(content)
    if status >= 300 or not isinstance(answer, dict):
        raise Refused(f"{status} from {NAME}: {answer.get('error') if isinstance(answer, dict) else answer}")
    return answer


@called
def translator(args):
    """What the text parameter holds comes back in the same structure: a text, a list or an object of texts."""
    name = args.get("translateParam") or "payload"
    service(args, NAME)
    given = args.get(name)
    texts = []
    walked(given, texts.append)
    if not texts:
        raise Refused(f"there is no text to translate in the parameter {name}")
    body = {"text": texts, "source": args.get("translateFrom") or "en", "target": args.get("translateTo") or "fr"}
    answer = call(args, "translate", body, {})
    found = iter([one.get("translation") for one in answer.get("translations", [])])
    return {name: walked(given, lambda text: next(found, text))}


def walked(value, change):
    """The same structure, each text changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [walked(one, change) for one in value]
    if isinstance(value, dict):
        return {key: walked(one, change) for key, one in value.items()}
    return value


@called
def language_id(args):
    service(args, NAME)
    payload = args.get("payload")
    if not isinstance(payload, str) or not payload:
        raise Refused("You must specify a payload parameter.")
    found = call(args, "identify", payload.encode(), {"Content-Type": "text/plain"}).get("languages") or [{}]
    return {"language": found[0].get("language"), "payload": payload, "confidence": found[0].get("confidence")}
