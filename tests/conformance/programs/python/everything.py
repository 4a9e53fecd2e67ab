"""What every kind's program does, by the word `do`: `tests/conformance/kinds.py` lists it."""

import os
import signal
import sys
import time

count = 0


def main(args):
    global count
    count += 1
    if isinstance(args, list):
        return args[::-1]
    text, do = args.get("text", ""), args["do"]
    if do == "hello":
        return {"greeting": f"Hello, {args['name']}!"}
    if do == "same":
        return {"value": args["value"]}
    if do == "unicode":
        print(text)
        return {"winter": f"{text} ☃ {text}"}
    if do == "env":
        return {"env": {name: os.environ.get(name) for name in args["names"]}, "keys": sorted(args)}
    if do == "error":
        return {"error": {"code": 7}, "more": 1}
    if do == "throw":
        raise ValueError("boom")
    if do == "logs":
        for number in (1, 2):
            print("out", number)
            print("err", number, file=sys.stderr)
        return {}
    if do == "long":
        return {"text": "x" * args["bytes"]}
    if do == "length":
        return {"length": len(text)}
    if do == "chance":
        import random
        import uuid

        return {"chance": [str(random.random()), uuid.uuid4().hex]}
    if do == "count":
        return {"count": count}
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "sleep":
        time.sleep(60)
    if do == "eat":
        eaten = []
        while True:
            eaten.append(bytearray(b"x" * (8 << 20)))
    return 5 if do == "number" else None


def other(args):
    return {"by": "other"}
