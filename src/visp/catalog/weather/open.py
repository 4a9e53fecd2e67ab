"""The weather now and in the next days, from Open-Meteo, which asks for no key.

Source: https://open-meteo.com/en/docs.
"""

from asking import Refused, answered, query, required

CURRENT = "temperature_2m,relative_humidity_2m,precipitation,weather_code,wind_speed_10m,wind_direction_10m"
DAILY = "weather_code,temperature_2m_max,temperature_2m_min,precipitation_sum"
IMPERIAL = {"temperature_unit": "fahrenheit", "wind_speed_unit": "mph", "precipitation_unit": "inch"}


def main(args):
    try:
        latitude, longitude = required(args, "latitude", "longitude")
        asked = {
            "latitude": latitude,
            "longitude": longitude,
            "current": args.get("current") or CURRENT,
            "daily": args.get("daily") or DAILY,
            "hourly": args.get("hourly"),
            "timezone": args.get("timezone") or "auto",
            "forecast_days": args.get("days"),
        }
        if args.get("units") in ("e", "imperial"):
            asked |= IMPERIAL
        base = str(args.get("baseUrl") or "https://api.open-meteo.com").rstrip("/")
        return answered("GET", f"{base}/v1/forecast{query(asked)}")
    except Refused as refused:
        return {"error": str(refused)}
