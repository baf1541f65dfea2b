"""GP9xx: internal."""

from graphprune.codes.code import Code

ROWS = (
    Code(
        "GP901",
        "internal error",
        "Something happened that graphprune rules out. It is a defect, whatever the input was; no output was written.",
        "report it with the command and, if possible, the model",
    ),
    Code(
        "GP902",
        "a pass broke its contract",
        "A pass returned something else than it promised: not a PassResult, a model of another type, a changed "
        "input, or a `modified` that is not true. Pipelines rely on these, so the pipeline stops instead of going on "
        "with a model of unknown state.",
        "for the author of the pass: see graphprune.pipeline.Pass for what apply must return",
    ),
)
