"""Counts down from `n`: each number is an activation of its own."""

import os

from asking import Refused
from invoking import invoke


def main(args):
    try:
        n = int(args.get("n", 0))
    except (TypeError, ValueError):
        return {"error": "Expected an argument 'n' of type 'number'."}
    if n <= 0:
        print("Countdown is over")
        return {"n": 0}
    print(n)
    try:
        record = invoke(os.environ["__OW_ACTION_NAME"], {"n": n - 1}, is_blocking=False)
    except Refused as refused:
        return {"error": str(refused)}
    return {"n": n, "activationId": record["activationId"]}
