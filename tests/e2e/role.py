"""The role that the template gives the guard."""

from __future__ import annotations

from e2e.world import Moto, template_resource

# What the role allows, and the guard itself never calls.
OTHERS = {
    "FindReferences": "EC2 makes these calls for DescribeImageReferences, in the role's name (CalledVia)",
    "ReadReferences": "so it makes these",
    "TakeEvents": "Lambda takes the events off the queue, in the role's name",
    "Log": "Lambda writes the log, in the role's name",
}

# IAM has no action of this name: it asks for those of the operations that a transaction is made of.
MADE_OF = {"dynamodb:TransactWriteItems": "dynamodb:UpdateItem"}


def statements() -> dict[str, dict]:
    """What the role allows, by the names of the statements."""
    [policy] = template_resource("GuardRole")["Policies"]
    listed = policy["PolicyDocument"]["Statement"]
    # Of one that depends on a condition, what is there if it holds.
    listed = [statement["Fn::If"][1] if "Fn::If" in statement else statement for statement in listed]
    return {statement["Sid"]: statement for statement in listed if statement["Effect"] == "Allow"}


def allowed_to_the_guard() -> set[str]:
    """The actions that the guard itself may call."""
    allowed: set[str] = set()
    for name, statement in statements().items():
        if name not in OTHERS:
            actions = statement["Action"]
            allowed |= set([actions] if isinstance(actions, str) else actions)
    return allowed


def called_by_the_guard(moto: Moto) -> set[str]:
    """What the guard called since the server started, as IAM names it."""
    seen = [call for caller, *call in moto.order("seen") if caller == "guard"]
    return {MADE_OF.get(action, action) for action in map(":".join, seen)}
