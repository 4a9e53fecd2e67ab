"""A forecast, or the weather now, from a service with The Weather Company's API.

Source: the parameters of OpenWhisk's weather package; https://twcservice.mybluemix.net/rest-api.
"""

from asking import Refused, answered, basic, query, quoted

PATHS = {
    "10day": "forecast/daily/10day.json",
    "48hour": "forecast/hourly/48hour.json",
    "current": "observations.json",
    "timeseries": "observations/timeseries.json",
}


def main(args):
    period = args.get("timePeriod") or "10day"
    if period not in PATHS:
        return {"error": f"timePeriod must be one of {', '.join(PATHS)}"}
    if not args.get("apiKey") and not (args.get("username") and args.get("password")):
        return {"error": "the weather service needs credentials: username and password, or apiKey"}
    asked = {"language": args.get("language") or "en-US", "units": args.get("units") or "m"}
    if period == "timeseries":
        asked["hours"] = args.get("hours") or 23
    if args.get("apiKey"):
        asked["apiKey"], headers = args["apiKey"], {}
    else:
        headers = basic(args["username"], args["password"])
    host = str(args.get("host") or "twcservice.mybluemix.net").rstrip("/")
    base = host if "://" in host else f"https://{host}/api/weather"
    place = f"{quoted(args.get('latitude') or 0)}/{quoted(args.get('longitude') or 0)}"
    try:
        return answered("GET", f"{base}/v1/geocode/{place}/{PATHS[period]}{query(asked)}", None, headers)
    except Refused as refused:
        return {"error": str(refused)}
