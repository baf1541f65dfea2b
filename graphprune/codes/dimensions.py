"""GP2xx: why a dimension is not pruned."""

from graphprune.codes.code import Code

ROWS = (
    Code(
        "GP201",
        "size of a graph input",
        "The dimension is an axis of an input of the model. Its size is a promise to every caller, and the data fed "
        "to it has no channels removed, so it stays as it is, and with it every dimension tied to it.",
        "none is needed: the dimensions behind the first layer are free",
    ),
    Code(
        "GP202",
        "size of a graph output",
        "The dimension is an axis of an output of the model, such as the classes of a classifier. Whoever calls the "
        "model relies on its size and order, so it stays, and with it every dimension tied to it, for example by a "
        "residual addition that reaches the output.",
        "if intermediate results were exported as outputs, remove those outputs",
    ),
    Code(
        "GP203",
        "no rule for the operator",
        "The operator is not known, so what it does with its axes is not known either. All axes of its inputs and "
        "outputs keep their size, since treating an unknown operator as elementwise would give a model that runs and "
        "is wrong. The rest of the model is pruned all the same.",
        "add a row for the operator to the rules, or export the model with operators that have one",
    ),
    Code(
        "GP204",
        "the operator needs this axis whole",
        "The operator computes something from the entire axis, or gives its positions a meaning, so that removing "
        "entries would change what is left: the window of a convolution, the axis of a softmax, the positions of an "
        "image or a sequence, a sort, a cumulative sum.",
        "none is needed: such an axis is not a channel axis; other axes of the same tensor may be free",
    ),
    Code(
        "GP205",
        "sizes cannot be refined",
        "Two views of one axis cut it at places that do not fit together: a reshape to a size that does not divide, "
        "a split inside a group, a gather with irregular positions. No common set of smaller dimensions describes "
        "both, so both sides keep their size. A misfit costs savings, never correctness.",
        "if the view is an artefact of the export, simplify the model first; otherwise the axis stays",
    ),
    Code(
        "GP206",
        "a size is used as data",
        "The model reads the size of this axis at run time and computes with it in a way that cannot be followed to "
        "a shape: it scales values by it, compares it, or passes it to an operator that is not arithmetic on sizes. "
        "A smaller axis would change the result.",
        "export the model with fixed sizes, or fold its constants, so that the size becomes a number",
    ),
    Code(
        "GP207",
        "the axis is addressed by indices",
        "Entries of this axis are picked by numbers computed or fed at run time, such as token ids that look up rows "
        "of an embedding. After removing entries, the same numbers would pick other rows.",
        "leave the axis alone; to shrink a vocabulary, the producer of the ids has to change with it",
    ),
    Code(
        "GP208",
        "symbolic size",
        "The size of this axis is not a number in the model, but a symbol such as the batch size or the length of a "
        "sequence, known only at run time. There are no stored weights along it to remove.",
        "none is needed for a batch or sequence axis; for a channel axis, export with fixed channel sizes",
    ),
    Code(
        "GP209",
        "a number that cannot be rewritten",
        "A number in the model has to change when this dimension shrinks (the target of a reshape, a number of "
        "groups, the bounds of a slice), but it comes from a place that cannot be rewritten, or two uses of it would "
        "need different values.",
        "fold the constants of the model first, so that the number is stored where it is used",
    ),
    Code(
        "GP210",
        "shared by control flow",
        "The dimension crosses the border of a loop, a branch or a function body, where all paths and all calls must "
        "agree on its size. This border is not analysed through, so the dimension stays.",
        "inline functions and constant branches before pruning",
    ),
    Code(
        "GP211",
        "left alone on request",
        "The caller asked for this dimension, or one tied to it, not to be pruned, or asked for others only.",
        "change what is ignored or selected",
    ),
    Code(
        "GP212",
        "unknown number of axes",
        "The number of axes of this tensor could not be found, because an earlier operator is not known or the model "
        "stores no shape. Without it, axes cannot be told apart, so everything tied to the tensor stays.",
        "run shape inference on the model, or export it with shapes",
    ),
    Code(
        "GP213",
        "constant data along the axis",
        "Stored data other than weights varies along this axis, such as a mask, a table of positions or anchors, and "
        "is used in a way in which it cannot lose entries.",
        "none is needed when the data describes positions; otherwise make the data a parameter before exporting",
    ),
    Code(
        "GP214",
        "a fixed factor",
        "The axis is a product, and this factor of it belongs to how the operator is built: the gates of a recurrent "
        "cell, its directions, the block of a pixel shuffle or of a quantisation; or it is the window of a kernel. The "
        "other factors can still be pruned.",
        "none is needed",
    ),
)
