"""Runs inside the environment of onnxsim (see peers.py): simplify one model, then remove a share of its channels.

    python peer_onnxsim.py DENSE SIMPLIFIED PRUNED SPARSITY

Prints one line of JSON. Imports nothing of graphprune. The C++ entry point is the widest that onnxsim has (float,
QDQ, QOperator and block-wise formats); attention heads are removed by a function of their own, applied afterwards.
"""

import json
import sys
import time

import onnx
import onnxsim


def main() -> None:
    dense, simplified, pruned = sys.argv[1:4]
    sparsity = float(sys.argv[4])
    model = onnx.load(dense)
    try:
        model = onnxsim.simplify(model)[0]
        note = ""
    except Exception as error:  # noqa: BLE001 - whatever it raises, pruning goes on with the model as it is
        note = f"simplify: {type(error).__name__}"
    onnx.save(model, simplified)
    start = time.perf_counter()
    try:
        small = onnxsim.apply_structured_pruning_cpp(model, sparsity)
        small = onnxsim.apply_attention_head_pruning(small, sparsity)
        onnx.save(small, pruned)
    except Exception as error:  # noqa: BLE001 - a failure of the peer is a result
        print(json.dumps({"ok": False, "note": f"{type(error).__name__}: {error}"[:200]}))
        return
    print(json.dumps({"ok": True, "note": note, "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
