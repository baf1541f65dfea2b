"""What the tests of the ATen dialect share: a module's groups, and whether all oracles hold for a pruned copy."""

from __future__ import annotations

from typing import Any

import torch

from graphprune.analysis import Analysis, analyze_program
from graphprune.dialects.aten.capture import capture
from graphprune.dialects.aten.tools import ATEN
from graphprune.plan import make_plan
from graphprune.verify import Verification, verify_models


def examined(module: torch.nn.Module, *args: Any, ratio: float = 0.5) -> tuple[Analysis, Verification]:
    """Capture, analyse, prune by random scores and verify a module."""
    captured = capture(module.eval(), args)
    analysis = analyze_program(ATEN.read(captured))
    plan = make_plan(analysis, ratio=ratio, criterion="random")
    return analysis, verify_models(captured, ATEN.write(analysis, plan.keep(analysis)), plan)


def groups(analysis: Analysis) -> dict[frozenset[str], int]:
    """The size of each group by the parts of tensors it runs through ("up.weight:0", or "up.weight:0/1" for a part)."""
    return {frozenset(member.name for member in group.members): group.size for group in analysis.groups}
