"""Routes of a namespace's APIs, as OpenWhisk's clients ask for them.

None can be made yet, so there are none; clients that list them beside other things get their answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.api.errors import HttpAnswer, json_answer

if TYPE_CHECKING:
    from visp.api.context import Call


async def list_apis(call: Call) -> HttpAnswer:
    """Of the key's namespace, whatever tenant is named."""
    return json_answer({"apis": []})
