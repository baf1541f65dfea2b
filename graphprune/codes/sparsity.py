"""GP8xx: sparsity and builds."""

from graphprune.codes.code import Code

ROWS = (
    Code(
        "GP801",
        "the format does not fit this layer",
        "A sparsity format divides the weights of a layer into blocks, groups or patterns. This layer is smaller than "
        "one of these, or has no kernel where the format needs one, so the format would remove nothing or all of it. "
        "The layer stays dense.",
        "choose a smaller block or another format for this layer, with --only",
    ),
    Code(
        "GP802",
        "left dense on purpose",
        "Convolutions that read the input of the model, classifiers that write its output, and depthwise convolutions "
        "have few weights, so that zeros in them save little time; and the accuracy depends on each of them more than "
        "elsewhere. They are left dense unless they are named.",
        "name the layer among those to sparsify to have it sparse all the same (--only, only=[...])",
    ),
    Code(
        "GP803",
        "weights that no zeros can be written to",
        "The weights of this operator are not a floating-point tensor of its own: they are shared with another "
        "operator, computed or quantised in the model, not finite, or belong to an operator that is not seen as a "
        "matrix, such as a recurrent cell, a transposed convolution, or one inside a loop or a function. It stays "
        "dense.",
        "fold constants first (--optimize); sparsify before quantising; give operators that share a tensor one each",
    ),
    Code(
        "GP811",
        "a size that a build has to know",
        "A built network has one size for everything: memory is planned and kernels are compiled for it. Here a size "
        "is left open by the model and was not given, does not fit the input, or depends on the data, as the number of "
        "boxes that a detector keeps does.",
        "give the shape of the input (--shape images=1,3,224,224); cut the model before the operator that is named",
    ),
    Code(
        "GP812",
        "an operator that no build can run",
        "Operators without a kernel run through onnxruntime, one at a time. This one runs graphs of its own, such as "
        "If and Loop do, and cannot run alone.",
        "fold the condition (fixed shapes often do, --optimize), or build the parts of the model around it",
    ),
)
