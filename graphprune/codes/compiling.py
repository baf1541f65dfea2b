"""GP6xx: torch.compile."""

from graphprune.codes.code import Code

ROWS = (
    Code(
        "GP601",
        "compiled while gradients are recorded",
        "The backend cuts copies of the parameters, so that gradients would never reach the parameters. It "
        "compiles graphs for inference only, and refuses where an output of the graph could be asked for a gradient.",
        "run it under torch.no_grad() or torch.inference_mode(), or call model.requires_grad_(False); to train a "
        "pruned model, prune it with gp.prune_ first",
    ),
    Code(
        "GP602",
        "compiled in training mode",
        "The graph drops entries at random, or normalises by the statistics of the batch, because the module is in "
        "training mode. That is hardly ever meant where no gradients are recorded, and a plan is for inference.",
        "call model.eval() before the first run",
    ),
    Code(
        "GP603",
        "nothing was compiled yet",
        "A report tells what became of the graphs of a compiled module. A module is compiled when it first "
        "runs; before, and for modules that another backend compiled, there is nothing to tell.",
        "run the compiled module once, and give report() what torch.compile returned",
    ),
)
