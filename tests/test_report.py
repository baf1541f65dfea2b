"""Numbers in reports: how they are spelt, and what is claimed of them."""

import pytest

from graphprune.report import Report, Skipped, Timing, quantity, verdict
from graphprune.verify import Check, Verification


class Cost:
    """Stands for graphprune.cost.Cost."""

    def __init__(self, scale: int) -> None:
        self.parameters, self.nonzeros, self.bytes = 1000 * scale, 900 * scale, 4000 * scale
        self.macs, self.peak_activation_bytes = 2_000_000 * scale, 64


def test_the_table_shows_every_quantity_apart() -> None:
    report = Report(
        model="dense.onnx",
        dense=Cost(2),  # type: ignore[arg-type]
        pruned=Cost(1),  # type: ignore[arg-type]
        groups=3,
        cut=2,
        skipped=(
            Skipped("GP203", "no rule for the operator", 1, ("Fold f",), "there is no rule", "add a row"),
            Skipped(
                "GP204", "the operator needs this axis whole", 9, ("a", "b", "c", "d"), "it does", "none is needed"
            ),
        ),
        files=(9000, 4000),
        timing=Timing(0.010, 0.010, 1.01, 0.9, 1.1, 0.05, 20),
        written=("small.onnx",),
    )
    assert report.to_text().splitlines() == [
        "dense.onnx: 2 of 3 groups cut",
        "",
        "                       dense     pruned  change",
        " parameters           2.00 k     1.00 k  -50.0%",
        " non-zeros            1.80 k        900  -50.0%",
        " weights             8.00 kB    4.00 kB  -50.0%",
        " file                9.00 kB    4.00 kB  -55.6%",
        " MACs                 4.00 M     2.00 M  -50.0%",
        " peak activations       64 B       64 B  0.0%",
        " latency           10.000 ms  10.000 ms  no difference beyond noise (±5.0%)",
        "",
        "kept on purpose:",
        "  GP203 1 axis: no rule for the operator (Fold f)",
        "        there is no rule",
        "    fix add a row",
        "  GP204 9 axes: the operator needs this axis whole (a, b, c and 1 more)",
        "",
        "wrote small.onnx",
    ]


@pytest.mark.parametrize(
    ("low", "high", "noise", "differs"),
    [
        (1.20, 1.40, 0.05, True),
        (1.02, 1.40, 0.05, False),
        (0.90, 1.10, 0.00, False),
        (0.60, 0.70, 0.05, True),
        (0.90, 0.97, 0.05, False),
    ],
)
def test_a_difference_within_the_noise_is_none(low: float, high: float, noise: float, differs: bool) -> None:
    timing = Timing(1.0, 1.0, (low + high) / 2, low, high, noise, 20)
    assert timing.differs is differs
    assert timing.change.startswith("no difference") is not differs


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [(0, "", "0"), (999, "B", "999 B"), (1000, "", "1.00 k"), (123_456_789, "", "123.5 M"), (2.5e12, "B", "2.50 TB")],
)
def test_quantities(number: float, unit: str, text: str) -> None:
    assert quantity(number, unit) == text


def test_a_name_cannot_forge_a_line() -> None:
    report = Report("a\nverified: all is well", Cost(1), Cost(1), 0, 0)  # type: ignore[arg-type]
    assert report.to_text().splitlines()[0] == "a\\nverified: all is well: 0 of 0 groups cut"


def test_failed_checks_are_named() -> None:
    found = Verification((Check("mask", "y", 0.5, 1e-6, False), Check("permutation", "y", 0.0, 1e-6, True)))
    assert verdict(found).splitlines()[0] == "NOT VERIFIED"
    assert "mask" in verdict(found) and "permutation" not in verdict(found)
