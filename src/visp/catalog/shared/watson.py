"""Calls of a Watson service, whose address and credentials the caller has."""

from asking import Refused, basic


def service(args, name):
    """The service's address, and the header of who asks; raises `Refused` where credentials are missing."""
    key = args.get("apiKey")
    if not key and not (args.get("username") and args.get("password")):
        raise Refused(f"{name} needs its credentials: the parameters username and password, or apiKey, and url")
    if not args.get("url"):
        raise Refused(f"{name} needs the address of your service: the parameter url")
    return str(args["url"]).rstrip("/"), basic("apikey", key) if key else basic(args["username"], args["password"])
