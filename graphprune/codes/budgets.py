"""GP3xx: budgets and results."""

from graphprune.codes.code import Code

ROWS = (
    Code(
        "GP301",
        "budget not met",
        "The requested size cannot be reached: even with every free dimension at its limit the model costs more than "
        "the budget. Nothing is written, because a model that misses its budget silently is worse than none.",
        "ask for a larger share, raise the maximum ratio, or see which dimensions are kept and why",
    ),
    Code(
        "GP302",
        "nothing to prune",
        "No dimension of the model is free: each is tied to an input, an output, or an operator that needs it whole. "
        "For a model of one layer this is expected.",
        "see why each dimension is kept; one with GP203 becomes free when its operator gets a rule",
    ),
    Code(
        "GP303",
        "limited by a bound",
        "The dimension was pruned less than its scores and the budget suggest, because the maximum ratio, the "
        "minimum width or the alignment to multiples allows no more.",
        "change the bound if the accuracy allows it",
    ),
    Code(
        "GP304",
        "no cut within the drop",
        "Even the mildest cut that was tried lost more of the metric on the validation data than is allowed. Nothing "
        "is written, because a model that misses the accuracy silently is worse than none.",
        "allow a larger drop, recover the weights (--recover), or take another criterion",
    ),
    Code(
        "GP305",
        "not as fast as planned",
        "The pruned model was measured against the dense one, and it is slower than that, or misses what the table of "
        "latencies says of it, or the budget, by more than the report says. The table may be of another machine, or of "
        "a time when the machine was busy.",
        "measure again on an idle machine with a new --latency-table, or set --threads to what is deployed",
    ),
)
