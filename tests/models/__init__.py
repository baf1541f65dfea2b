"""Small models of the hard dependency cases, each with every coupling that must be found in it."""

from __future__ import annotations

from . import (
    attention,
    composition,
    convolution,
    detection,
    dynamic,
    normalization,
    recurrent,
    sharing,
    windows,
)
from .case import CASES, Case, Coupling

EXPECTED: dict[str, tuple[Coupling, ...]] = {name: case.couplings for name, case in CASES.items()}

__all__ = [
    "CASES",
    "EXPECTED",
    "Case",
    "Coupling",
    "attention",
    "composition",
    "convolution",
    "detection",
    "dynamic",
    "normalization",
    "recurrent",
    "sharing",
    "windows",
]
