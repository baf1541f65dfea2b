"""The fifteen hard dependency cases: exactly the couplings that were worked out by hand, and pruning that holds.

What is expected stands beside each model in tests/models; nothing there was read off the program.
"""

from __future__ import annotations

import onnx_ir
import pytest

import graphprune as gp
from tests.models import CASES, Case, Coupling
from tests.oracles import prune_and_check

ALL = pytest.mark.parametrize("hard_case", CASES.values(), ids=CASES.keys())


def found_couplings(model: onnx_ir.Model) -> list[Coupling]:
    """The groups of an analysis as couplings."""
    return [
        Coupling(group.size, group.kind, frozenset((m.tensor, m.axis) for m in group.members), group.exact)
        for group in gp.analyze(model).groups
    ]


def listing(couplings: list[Coupling] | tuple[Coupling, ...]) -> list[str]:
    """Couplings as sorted lines, which compare and read well."""
    lines = []
    for coupling in couplings:
        members = " ".join(f"{tensor}:{axis}" for tensor, axis in sorted(coupling.members))
        lines.append(f"{coupling.size} {coupling.kind}{'' if coupling.exact else ' (inexact)'}: {members}")
    return sorted(lines)


@ALL
def test_finds_exactly_the_couplings_expected(hard_case: Case) -> None:
    model = onnx_ir.from_proto(hard_case.build())
    assert listing(found_couplings(model)) == listing(hard_case.couplings)


@ALL
@pytest.mark.parametrize("ratio", [0.4, 0.7])
def test_pruning_at_random_holds(hard_case: Case, ratio: float) -> None:
    checked = prune_and_check(hard_case.build(), ratio=ratio, seed=0)
    assert checked.problems == []
    assert checked.removed > 0


def test_listing_tells_sizes_kinds_members_and_exactness_apart() -> None:
    base = Coupling(4, "channel", frozenset({("w", 0)}))
    others = [
        Coupling(3, "channel", frozenset({("w", 0)})),
        Coupling(4, "head", frozenset({("w", 0)})),
        Coupling(4, "channel", frozenset({("w", 1)})),
        Coupling(4, "channel", frozenset({("w", 0)}), exact=False),
    ]
    assert all(listing([base]) != listing([other]) for other in others)
