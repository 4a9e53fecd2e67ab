"""Tells the platform of a feed's turn: one action for all feeds, which knows by its own name whose it is.

`lifecycleEvent`, `triggerName` and `authKey` come from the client; what else there is belongs to the source.
"""

from asking import Refused
from telling import tell

METHODS = {"CREATE": "PUT", "READ": "GET", "UPDATE": "POST", "DELETE": "DELETE"}
OURS = ("lifecycleEvent", "triggerName", "authKey")


def main(args):
    method = METHODS.get(args.get("lifecycleEvent"))
    if method is None:
        return {"error": "unsupported lifecycleEvent"}
    try:
        return tell(method, args, {key: value for key, value in args.items() if key not in OURS})
    except Refused as refused:
        return {"error": str(refused)}
