"""Which records are kept: what an action's annotation and an operator's limit for a namespace say. Pure.

Source: OpenWhisk's store levels and its `storeActivations`; the annotation `store-activations` is visp's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from visp import wording
from visp.entity.activation import Status
from visp.entity.parameters import text
from visp.errors import BadRequest

if TYPE_CHECKING:
    from visp.entity.parameters import Parameters

STORE_ACTIVATIONS = "store-activations"

Policy = Literal["all", "errors", "none"]
_POLICIES: dict[str, Policy] = {"all": "all", "errors": "errors", "none": "none"}
Keep = Literal["all", "errors", "none", "always"]
"""`always`: the request asked for its record, whatever else is said."""


def parse(annotations: Parameters) -> Policy | None:
    """What an action's annotations ask for; None for nothing. Raises `BadRequest` for what cannot be meant."""
    if STORE_ACTIVATIONS not in annotations:
        return None
    policy = _POLICIES.get(text(annotations, STORE_ACTIVATIONS) or "")
    if policy is None:
        raise BadRequest(wording.bad_store_policy(STORE_ACTIVATIONS, tuple(_POLICIES)))
    return policy


def keep_of(annotations: Parameters, *, is_storing: bool, is_forced: bool = False) -> Keep:
    """What holds for a run; the annotations were checked when they were stored."""
    if is_forced:
        return "always"
    if not is_storing:
        return "none"
    return "all" if STORE_ACTIVATIONS not in annotations else parse(annotations) or "all"


def is_kept(keep: Keep, status: int) -> bool:
    """Whether the record of such an outcome is kept."""
    return keep in ("all", "always") or (keep == "errors" and status != Status.SUCCESS)
