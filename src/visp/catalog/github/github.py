"""Calls of GitHub's REST API.

Source: https://docs.github.com/rest, version 2022-11-28.
"""

import urllib.parse

from asking import Refused, answered, query, quoted, required

VERSION = "2022-11-28"


def called(act):
    def action(args):
        try:
            return act(args)
        except Refused as refused:
            return {"error": str(refused)}

    return action


def call(method, args, path, body=None):
    (token,) = required(args, "accessToken")
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "X-GitHub-Api-Version": VERSION,
        "User-Agent": "visp",
    }
    base = str(args.get("baseUrl") or "https://api.github.com").rstrip("/")
    return answered(method, f"{base}/repos/{repository(args)}{path}", body, headers)


def repository(args):
    """`owner/name`; a name alone is of `username`."""
    (name,) = required(args, "repository")
    parts = [part for part in str(name).split("/") if part]
    if len(parts) == 1:
        parts.insert(0, *required(args, "username"))
    if len(parts) != 2:
        raise Refused("repository must be a name, or owner/name")
    return "/".join(map(quoted, parts))


def given(args, *names):
    return {name: args[name] for name in names if args.get(name) is not None}


@called
def create_issue(args):
    required(args, "title")
    return call("POST", args, "/issues", given(args, "title", "body", "labels", "assignees", "milestone"))


@called
def comment(args):
    number, body = required(args, "issue_number", "body")
    return call("POST", args, f"/issues/{quoted(number)}/comments", {"body": body})


@called
def set_commit_status(args):
    sha, _ = required(args, "sha", "state")
    return call("POST", args, f"/statuses/{quoted(sha)}", given(args, "state", "target_url", "description", "context"))


@called
def get_contents(args):
    path = urllib.parse.quote(str(args.get("path") or "").strip("/"))
    return call("GET", args, f"/contents/{path}{query({'ref': args.get('ref')})}")


@called
def create_release(args):
    required(args, "tag_name")
    names = ("tag_name", "target_commitish", "name", "body", "draft", "prerelease", "generate_release_notes")
    return call("POST", args, "/releases", given(args, *names))


@called
def dispatch(args):
    required(args, "event_type")
    return call("POST", args, "/dispatches", given(args, "event_type", "client_payload"))
