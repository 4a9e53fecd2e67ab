"""Requests over HTTP, by the standard library; a redirect is an answer like any other."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request

BYTES_MOST = 16 * 1024 * 1024
TIMEOUT_S = 50


class Refused(Exception):
    """What the caller is told in place of a result."""


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def ask(method, url, body=None, headers=None, timeout_s=TIMEOUT_S):
    """Status, headers by lower-case name, body as bytes. A body that is no text or bytes goes as JSON."""
    sent = {name: str(value) for name, value in (headers or {}).items()}
    if isinstance(body, str):
        body = body.encode()
    elif body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        if not any(name.lower() == "content-type" for name in sent):
            sent["Content-Type"] = "application/json"
    where = urllib.parse.urlsplit(url)
    if where.scheme not in ("http", "https") or not where.hostname:
        raise Refused(f"'{_shown(url)}' is no http or https URL")
    try:
        request = urllib.request.Request(url, data=body, headers=sent, method=method)
        with urllib.request.build_opener(_Stay).open(request, timeout=timeout_s) as answer:
            return answer.status, _named(answer.headers), _read(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _named(error.headers), _read(error)
    except TimeoutError:
        raise Refused(f"{where.hostname} did not answer within {timeout_s} s") from None
    except (OSError, ValueError) as error:
        raise Refused(f"cannot reach {where.hostname}: {getattr(error, 'reason', error)}") from None


def _shown(url):
    """Without the user and password that may be in it."""
    return urllib.parse.urlunsplit(urllib.parse.urlsplit(url)._replace(query="", netloc="…")) if "@" in url else url


def _named(headers):
    return {name.lower(): value for name, value in headers.items()}


def _read(answer):
    content = answer.read(BYTES_MOST + 1)
    if len(content) > BYTES_MOST:
        raise Refused(f"the answer has more than {BYTES_MOST} bytes")
    return content


def basic(user, password):
    """The header of Basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def parsed(content):
    """JSON, or the text where it is none; None for nothing."""
    if not content:
        return None
    try:
        return json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace")


def answered(method, url, body=None, headers=None):
    """The answer's body, parsed; raises `Refused` with what a failed one says."""
    status, _, content = ask(method, url, body, headers)
    value = parsed(content)
    if status >= 300:
        raise Refused(f"{status} from {urllib.parse.urlsplit(url).hostname}: {_reason(value)}")
    return value if isinstance(value, (dict, list)) else {} if value is None else {"answer": value}


def _reason(value):
    if isinstance(value, dict):
        value = value.get("message") or value.get("error") or value.get("errors") or value
    return value if isinstance(value, str) else json.dumps(value)


def required(args, *names):
    """Their values; raises `Refused` for the first that is not there."""
    for name in names:
        if args.get(name) in (None, ""):
            raise Refused(f"You must specify a {name} parameter.")
    return [args[name] for name in names]


def is_true(value):
    return value is True or (isinstance(value, str) and value.lower() == "true")


def quoted(text):
    """As one segment of a path."""
    return urllib.parse.quote(str(text), safe="")


def query(values):
    """`?a=b`, or nothing; what is None is left out."""
    kept = {name: value for name, value in values.items() if value is not None}
    return "?" + urllib.parse.urlencode(kept) if kept else ""
