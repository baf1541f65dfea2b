"""`graphprune criteria`: how channels can be scored, and what each way needs."""

from __future__ import annotations

import re
import sys
from typing import Any

from graphprune.cli.options import Output, taking
from graphprune.criteria import (
    CRITERIA,
    BlockCriterion,
    DataCriterion,
    GradientCriterion,
    GroupCriterion,
    JointCriterion,
)
from graphprune.criteria.custom import criterion_of
from graphprune.errors import GraphPruneError

_BACKWARD = {
    "gradient of each sample": "one backward pass for each sample",
    "hessian-gradient product": "two backward passes over the data",
    "hessian diagonal": "some backward passes over the data",
    "synaptic flow": "one backward pass, without data",
}


@taking
def criteria(output: Output) -> int:
    """List the criteria that are installed: what they need beside the model, what they cost, what they look at."""
    from graphprune.report import table

    data = [described(name) for name in CRITERIA.names()]
    rows = [(each["name"], each["needs"], each["cost"], each["error"] or each["looks at"]) for each in data]
    lines = [line.rstrip() for line in table(("criterion", "needs", "cost", "looks at"), rows)]
    output.console.show("\n".join(lines), data)
    return 0


def described(name: str) -> dict[str, Any]:
    """One criterion, as the list shows it; with the error where it cannot be loaded."""
    try:
        kind = CRITERIA.load(name)
        needs, cost = needed(kind())
    except GraphPruneError as error:
        return {"name": name, "needs": "", "cost": "", "looks at": "", "error": f"{error.code} {error.what}"}
    text = " ".join((sys.modules[kind.__module__].__doc__ or kind.__doc__ or "").split())
    subject = re.split(r" \(|[.:;]", text)[0].strip()
    return {"name": name, "needs": needs, "cost": getattr(kind, "cost", cost), "looks at": subject, "error": None}


def needed(criterion: Any) -> tuple[str, str]:
    """What a criterion needs beside the model, and what that costs."""
    if isinstance(criterion, BlockCriterion | DataCriterion | JointCriterion):
        return "inputs", "one pass over the data"
    if isinstance(criterion, GradientCriterion):
        needs = "gradients" if criterion.derivative == "synaptic flow" else "gradients, labels"
        return needs, _BACKWARD.get(criterion.derivative, "one backward pass over the data")
    if isinstance(criterion, GroupCriterion):
        return "nothing", "none"
    return "nothing", "one look at the weights"


def looks_at_data(chosen: str) -> bool:
    """Whether a criterion takes calibration data. Raises GraphPruneError GP106 for unknown names."""
    return needed(criterion_of(chosen))[0] not in {"nothing", "gradients"}
