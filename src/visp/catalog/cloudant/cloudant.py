"""Calls of CouchDB and Cloudant; a failed one's result is the database's own error.

Source: https://docs.couchdb.org/en/stable/api/ and the actions of OpenWhisk's Cloudant package.
"""

import base64
import json

from asking import Refused, ask, basic, is_true, parsed, query, quoted

AS_JSON = ("key", "keys", "startkey", "start_key", "endkey", "end_key")
"""Options of a query that CouchDB reads as JSON."""


class Failed(Exception):
    def __init__(self, error):
        super().__init__()
        self.error = error


def called(act):
    def action(args):
        try:
            return act(args)
        except Failed as failed:
            return {"error": failed.error}
        except Refused as refused:
            return {"error": str(refused)}

    return action


# ── the call ────────────────────────────────────────────────────────────────────────────────────────────────────────


def send(args, method, path, body=None, options=None, headers=None):
    """Status, headers, body; raises `Failed` with the database's error."""
    base, credentials = account(args)
    values = {
        name: value if isinstance(value, str) and name not in AS_JSON else json.dumps(value)
        for name, value in (options or {}).items()
    }
    sent = {"Accept": "application/json"} | credentials | (headers or {})
    status, got, content = ask(method, f"{base}/{path}{query(values)}", body, sent)
    if status >= 300:
        error = parsed(content)
        raise Failed((error if isinstance(error, dict) else {"error": error or "unknown"}) | {"statusCode": status})
    return status, got, content


def call(args, method, path, body=None, options=None):
    answer = parsed(send(args, method, path, body, options)[2])
    return answer if isinstance(answer, (dict, list)) else {"answer": answer}


def account(args):
    """The database server's address, and the header of who asks."""
    if args.get("url"):
        scheme, _, rest = str(args["url"]).rstrip("/").partition("://")
        user, at, host = rest.rpartition("@")
        if not host:
            raise Refused("url must be a URL of the database server.")
        name, _, password = user.partition(":")
        return f"{scheme}://{host}", basic(name, password) if at else {}
    for name in ("host", "username", "password"):
        if not args.get(name):
            raise Refused(f"cloudant account {name} is required.")
    host = str(args["host"]) + (f":{args['port']}" if args.get("port") else "")
    return f"{args.get('protocol') or 'https'}://{host}", basic(args["username"], args["password"])


def database(args):
    return quoted(needed(args, "dbname"))


def needed(args, name):
    if args.get(name) in (None, ""):
        raise Refused(f"{name} is required.")
    return args[name]


def structured(args, name):
    """A parameter that is an object, or JSON text of one."""
    value = needed(args, name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise Refused(f"{name} field cannot be parsed. Ensure it is valid JSON.") from None
    if not isinstance(value, dict):
        raise Refused(f"{name} must be a JSON object.")
    return value


def options(args):
    return structured(args, "params") if args.get("params") not in (None, "") else {}


def design(id):
    """The path of a design document, by its id or its name."""
    return f"_design/{quoted(str(id).removeprefix('_design/'))}"


def document(id):
    return design(id) if str(id).startswith("_design/") else quoted(id)


# ── databases ───────────────────────────────────────────────────────────────────────────────────────────────────────


@called
def create_database(args):
    return call(args, "PUT", database(args))


@called
def read_database(args):
    return call(args, "GET", database(args))


@called
def delete_database(args):
    return call(args, "DELETE", database(args))


@called
def list_all_databases(args):
    return {"all_databases": call(args, "GET", "_all_dbs")}


@called
def read_updates_feed(args):
    return call(args, "GET", "_db_updates", None, options(args))


@called
def read_changes_feed(args):
    return call(args, "GET", f"{database(args)}/_changes", None, options(args))


# ── documents ───────────────────────────────────────────────────────────────────────────────────────────────────────


@called
def create_document(args):
    return call(args, "POST", database(args), structured(args, "doc"), options(args))


@called
def read_document(args):
    id = args.get("docid") or args.get("id")
    if not id:
        raise Refused("docid is required.")
    return call(args, "GET", f"{database(args)}/{document(id)}", None, options(args))


@called
def write(args):
    db, doc = database(args), structured(args, "doc")
    id = doc.get("_id")
    if not id:
        return call(args, "POST", db, doc)
    if is_true(args.get("overwrite")):
        try:
            current = call(args, "GET", f"{db}/{document(id)}")
        except Failed as failed:
            if failed.error["statusCode"] != 404:
                raise
        else:
            doc = doc | {"_rev": current["_rev"]}
    return call(args, "PUT", f"{db}/{document(id)}", doc)


@called
def update_document(args):
    doc = structured(args, "doc")
    for name in ("_id", "_rev"):
        if not doc.get(name):
            raise Refused(f"doc and doc.{name} are required.")
    return call(args, "PUT", f"{database(args)}/{document(doc['_id'])}", doc, options(args))


@called
def delete_document(args):
    path = f"{database(args)}/{document(needed(args, 'docid'))}"
    return call(args, "DELETE", path, None, {"rev": needed(args, "docrev")})


@called
def list_documents(args):
    return call(args, "GET", f"{database(args)}/_all_docs", None, options(args))


@called
def list_design_documents(args):
    range = {"startkey": "_design", "endkey": "_design0"}
    if is_true(args.get("includedocs")):
        range["include_docs"] = True
    return call(args, "GET", f"{database(args)}/_all_docs", None, range)


@called
def manage_bulk_documents(args):
    docs = needed(args, "docs")
    body = structured(args, "docs") if not isinstance(docs, list) else {"docs": docs}
    answer = call(args, "POST", f"{database(args)}/_bulk_docs", body, options(args))
    return {"results": answer} if isinstance(answer, list) else answer


# ── queries ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@called
def create_query_index(args):
    return call(args, "POST", f"{database(args)}/_index", structured(args, "index"))


@called
def list_query_indexes(args):
    return call(args, "GET", f"{database(args)}/_index")


@called
def delete_query_index(args):
    name, index = design(needed(args, "docid")), quoted(needed(args, "indexname"))
    return call(args, "DELETE", f"{database(args)}/_index/{name}/json/{index}", None, options(args))


@called
def exec_query_find(args):
    return call(args, "POST", f"{database(args)}/_find", structured(args, "query"))


@called
def exec_query_search(args):
    path = f"{database(args)}/{design(needed(args, 'docid'))}/_search/{quoted(needed(args, 'indexname'))}"
    return call(args, "POST", path, structured(args, "search"))


@called
def exec_query_view(args):
    path = f"{database(args)}/{design(needed(args, 'docid'))}/_view/{quoted(needed(args, 'viewname'))}"
    asked = options(args)
    keys = asked.pop("keys", None)
    return call(args, "GET", path, None, asked) if keys is None else call(args, "POST", path, {"keys": keys}, asked)


@called
def delete_view(args):
    """The design document stays, without the view."""
    path = f"{database(args)}/{design(needed(args, 'docid'))}"
    name = needed(args, "viewname")
    doc = call(args, "GET", path)
    if name not in doc.get("views", {}):
        raise Refused(f"there is no view {name} in that design document.")
    del doc["views"][name]
    return call(args, "PUT", path, doc, options(args))


# ── attachments ─────────────────────────────────────────────────────────────────────────────────────────────────────


def attachment(args):
    return f"{database(args)}/{document(needed(args, 'docid'))}/{quoted(needed(args, 'attachmentname'))}"


def put_attachment(args):
    content = needed(args, "attachment")
    if isinstance(content, (dict, list)):
        content = json.dumps(content)
    kind = needed(args, "contenttype")
    content = base64.b64decode(content) if args.get("encoding") == "base64" else str(content).encode()
    asked = options(args) | {"rev": needed(args, "docrev")}
    return parsed(send(args, "PUT", attachment(args), content, asked, {"Content-Type": kind})[2])


@called
def create_attachment(args):
    return put_attachment(args)


@called
def update_attachment(args):
    return put_attachment(args)


@called
def read_attachment(args):
    _, headers, content = send(args, "GET", attachment(args), None, options(args), {"Accept": "*/*"})
    kind = headers.get("content-type", "application/octet-stream")
    value = parsed(content) if "json" in kind else None
    if isinstance(value, dict):
        return value
    try:
        return {"attachment": content.decode(), "contenttype": kind}
    except UnicodeDecodeError:
        return {"attachment": base64.b64encode(content).decode(), "contenttype": kind, "encoding": "base64"}


@called
def delete_attachment(args):
    return call(args, "DELETE", attachment(args), None, options(args) | {"rev": needed(args, "docrev")})
