"""Tells the newest commit of a push; it does not expect that the push of a tag brings none."""


def main(push):
    print(f"{push['pusher']['name']} has pushed {push['ref']}")
    newest = push["commits"][-1]
    return {"id": newest["id"], "message": newest["message"]}
