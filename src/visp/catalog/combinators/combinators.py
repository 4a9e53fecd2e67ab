"""Actions that call actions: what each of them is given besides its own `$…` parameters goes to what it calls."""

from asking import Refused
from invoking import invoke

OURS = "$"


def combinator(act):
    def action(args):
        rest = {name: value for name, value in args.items() if not name.startswith(OURS)}
        try:
            return act(args, rest)
        except Refused as refused:
            return {"error": str(refused)}

    return action


def needed(args, name, kind=str, called="string"):
    value = args.get(name)
    if not isinstance(value, kind) or isinstance(value, bool) or value == "":
        raise Refused(f"Expected an argument '{name}' of type '{called}'.")
    return value


def outcome(name, parameters):
    """Whether it succeeded, and its result."""
    response = invoke(name, parameters)["response"]
    result = response.get("result")
    return bool(response.get("success")), result if isinstance(result, (dict, list)) else {"value": result}


@combinator
def eca(args, rest):
    condition, action = needed(args, "$conditionName"), needed(args, "$actionName")
    is_true, _ = outcome(condition, rest)
    return outcome(action, rest)[1] if is_true else {"$eca": "Condition was false."}


@combinator
def forwarder(args, rest):
    action = needed(args, "$actionName")
    taken, kept = needed(args, "$actionArgs", list, "array"), needed(args, "$forward", list, "array")
    _, result = outcome(action, {name: rest[name] for name in taken if name in rest})
    forwarded = {name: rest[name] for name in kept if name in rest}
    return forwarded | (result if isinstance(result, dict) else {"value": result})


@combinator
def retry(args, rest):
    action = needed(args, "$actionName")
    attempts = needed(args, "$attempts", int, "number")
    if attempts < 1:
        raise Refused("Expected an argument '$attempts' of at least 1.")
    for _ in range(attempts):
        is_done, result = outcome(action, rest)
        if is_done:
            return result
    return {"error": "Invocation failed. No retries left."}


@combinator
def trycatch(args, rest):
    action, caught = needed(args, "$tryName"), needed(args, "$catchName")
    is_done, result = outcome(action, rest)
    return result if is_done else outcome(caught, result)[1]
