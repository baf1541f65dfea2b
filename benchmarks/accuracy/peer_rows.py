"""What onnxsim makes of a file at a share of the MACs, with its own recovery in closed form where that is asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import note

import graphprune as gp
from graphprune.cost import measure

PEER = {"onnxsim": False, "onnxsim + its recovery": True}
"""Rows: whether `apply_pruning_finetune` follows, ridge regression of MatMul and Gemm layers on calibration data."""
_HALVINGS = 7


def cut(path: Path, macs: float, cases: list[dict[str, np.ndarray]], recover: bool) -> Any:
    """A model, and the share of the MACs that it has left by our count: of the sparsities that onnxsim takes the
    smallest, of seven halvings, that is within the budget. It is given a simplified model, as it expects.

    Raises SystemExit where onnxsim is not installed, ValueError where the budget is out of its reach.
    """
    try:
        import onnx
        import onnxsim
    except ImportError as error:
        raise SystemExit(f"rows of onnxsim need it: pip install onnxsim ({error})") from None

    whole = onnx.load(path)
    try:
        whole = onnxsim.simplify(whole)[0]
    except Exception as error:  # noqa: BLE001 - whatever it raises, pruning goes on with the model as it is
        note(f"onnxsim does not simplify {path.name}: {type(error).__name__}")
    with tempfile.TemporaryDirectory() as folder:

        def loaded(model: Any) -> Any:
            file = Path(folder) / "model.onnx"
            onnx.save(model, file)
            found = gp.load(file)
            return found, measure(gp.analyze(found), {}).macs

        dense = loaded(whole)[1]
        low, high, best = 0.0, 1.0, None
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            small = onnxsim.apply_attention_head_pruning(onnxsim.apply_structured_pruning_cpp(whole, middle), middle)
            if loaded(small)[1] <= macs * dense:
                high, best = middle, small
            else:
                low = middle
        if best is None:
            raise ValueError(f"onnxsim does not reach {macs:.0%} of the MACs")
        if recover:
            best = onnxsim.apply_pruning_finetune(whole, best, calibration_data=cases)
        model, left = loaded(best)
        return model, left / dense
