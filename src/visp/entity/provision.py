"""How many containers of an action are kept ready before anyone asks: its annotation `provision`. Pure.

visp's own; OpenWhisk has stem cells alone, which know no action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.errors import BadRequest

if TYPE_CHECKING:
    from visp.entity.limits import ActionLimits
    from visp.entity.parameters import Parameters

PROVISION = "provision"
MOST = 100


def parse(annotations: Parameters, limits: ActionLimits) -> int:
    """How many; 0 without the annotation. Raises `BadRequest` for what cannot be meant."""
    parameter = annotations.get(PROVISION)
    if parameter is None:
        return 0
    value = msgspec.json.decode(parameter.value)
    most = min(MOST, limits.instances or MOST)
    if type(value) is not int or not 0 <= value <= most:
        raise BadRequest(wording.bad_provision(PROVISION, most))
    return value
