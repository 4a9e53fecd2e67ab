"""What a host answers."""

from asking import Refused, ask, required


def main(args):
    try:
        (host,) = required(args, "payload")
        status, _, content = ask("GET", host if "://" in str(host) else f"http://{host}")
    except Refused as refused:
        return {"error": str(refused)}
    if status >= 400:
        return {"error": f"{host} answered {status}"}
    return {"msg": content.decode("utf-8", "replace")}
