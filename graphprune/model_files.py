"""Which files hold models that can be read, by their names, and what to do about others."""

from __future__ import annotations

import os
from pathlib import Path

from graphprune.errors import GraphPruneError

ONNX = frozenset({".onnx", ".pb"})
PROGRAM = ".pt2"
_PICKLES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin"})
_OTHERS = {
    ".safetensors": "it holds weights without the network; export the network to ONNX",
    ".ort": "it was made by onnxruntime from an ONNX file; prune that one",
    ".tflite": "convert it with tf2onnx",
    ".h5": "convert it with tf2onnx",
    ".keras": "convert it with tf2onnx",
}


def check_kind(path: str) -> None:
    """Raises GraphPruneError: GP101 where there is no such file, GP103 where it holds no model that can be read."""
    if not os.path.exists(path):
        raise GraphPruneError("GP101", "there is no such file", path, _nearby(path))
    suffix = Path(path).suffix.lower()
    if os.path.isdir(path) or suffix in ONNX or suffix == PROGRAM:
        return
    if suffix in _PICKLES:
        remedy = "export the network with torch.onnx.export(model, inputs, 'model.onnx') and prune that file"
        what = f"{suffix} files are pickles: reading one could run any code, so graphprune never does"
        raise GraphPruneError("GP103", what, path, remedy)
    remedy = _OTHERS.get(suffix, "if it is an ONNX model, give it the suffix .onnx")
    what = f"a file with the suffix {suffix or '(none)'} is not a model that can be read"
    raise GraphPruneError("GP103", what, path, remedy)


def _nearby(path: str) -> str:
    from difflib import get_close_matches

    folder = Path(path).parent
    if not folder.is_dir():
        return f"the folder {folder} does not exist either"
    try:
        names = [each.name for each in folder.iterdir() if each.suffix == Path(path).suffix]
    except OSError:
        return ""
    close = get_close_matches(Path(path).name, names, n=1)
    return f"did you mean {str(folder / close[0])!r}?" if close else ""
