"""Calls `utils/date`, and says what time it is."""

from asking import Refused
from invoking import invoke


def main(args):
    try:
        date = invoke("/whisk.system/utils/date", {})["response"]["result"].get("date")
    except Refused as refused:
        return {"error": str(refused)}
    print(f"It is now {date}")
    return {"date": date}
