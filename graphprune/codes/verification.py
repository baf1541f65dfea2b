"""GP4xx: verification."""

from graphprune.codes.code import Code

ROWS = (
    Code(
        "GP401",
        "verification failed",
        "The pruned model does not compute what it should: it differs from the dense model with the removed entries "
        "set to zero, or the dense one changes when coupled channels are permuted, by more than rounding explains. "
        "The pruned model must not be used. This is a defect of a rule or of graphprune, not of the model.",
        "report it with the model and the seed; meanwhile leave the named dimension alone",
    ),
    Code(
        "GP402",
        "could not verify",
        "The comparison of the pruned with the dense model could not be made: an operator cannot be executed here, "
        "an input has a size or a kind for which no data can be made, or the dense model itself gives no finite "
        "result. Nothing is known to be wrong, but nothing is proven either.",
        "install graphprune[ort], or give sizes for the symbolic axes of the inputs",
    ),
    Code(
        "GP403",
        "the build does not compute what the model does",
        "What was built was run on random inputs, and an output differs from that of onnxruntime by more than rounding "
        "explains, or is not finite where that is. Nothing is written: a fast wrong answer is worth nothing.",
        "report it with the model; meanwhile build with --variants, without the one that differs",
    ),
)
