"""Calls `greeting`, and splits what it says into words."""

from asking import Refused
from invoking import invoke


def main(args):
    try:
        record = invoke("/whisk.system/samples/greeting", args)
    except Refused as refused:
        return {"error": str(refused)}
    return {"lines": record["response"]["result"].get("payload", "").split()}
