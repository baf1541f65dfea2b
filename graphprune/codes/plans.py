"""GP5xx: plans, checkpoints and artifacts."""

from graphprune.codes.code import Code

ROWS = (
    Code(
        "GP501",
        "the plan does not fit the model",
        "A plan names what is kept of each group by tensor and axis. The model has no such tensor, its axis has "
        "another size, or the dimensions are tied in another way than when the plan was made. Applying it in part "
        "would break the couplings, so it is not applied at all.",
        "apply it to the model it was made for, carry it to another form of it (apply --made-for), or make a new plan",
    ),
    Code(
        "GP502",
        "bad plan file",
        "The file is not a plan: it is not JSON, a field is missing or of the wrong kind, or kept indices are out of "
        "range, repeated or not ascending.",
        "if it was edited by hand, check the place that is named; otherwise make the plan again",
    ),
    Code(
        "GP503",
        "plan or checkpoint of a newer schema",
        "The file was written by a newer graphprune, whose plans and checkpoints may mean something that this version "
        "does not know. It is not applied by guessing.",
        "update graphprune, or make the file with this version",
    ),
    Code(
        "GP504",
        "training state does not fit the cut",
        "After a model was pruned, an optimizer, an average of weights, a state dict or masks have to lose the same "
        "entries. Here a tensor among them has a shape, or keeps its numbers in a way, that does not tell which of "
        "them belong to what was removed. Nothing was changed, because training on with wrong momenta would go "
        "unnoticed.",
        "do this right after pruning, with the optimizer or copy that belongs to this model, or make a new one",
    ),
    Code(
        "GP505",
        "bad checkpoint",
        "The folder is not a checkpoint of a pruned model that can be read: a file is missing, cut off or damaged, or "
        "a field of graphprune.json is missing or of the wrong kind. No model is built from what is left of one.",
        "copy the folder again as a whole, or save the model again",
    ),
    Code(
        "GP506",
        "the checkpoint does not fit the model",
        "The weights were saved from a model that the given constructor does not build: a tensor or a module is "
        "missing, is one too many, or has another shape than the network that was pruned.",
        "give the constructor of the dense model, with the arguments that it had when the model was pruned",
    ),
    Code(
        "GP507",
        "the module's code cannot follow",
        "The pruned graph is right, but the Python code of the module does not run at the new sizes, or computes "
        "something else: it holds a size as a constant, or derives one from another, such as a number of heads. A "
        "pruned graph with the same parameter names is possible; pruning in place is not.",
        "use gp.prune, which returns a GraphModule then; or leave the groups alone with ignore=[...]",
    ),
    Code(
        "GP508",
        "the ranks do not agree",
        "In a distributed run every process prunes its own copy of the model, and all copies must lose the same "
        "channels. Equal weights give equal plans; these differ, so the copies were not equal.",
        "broadcast the parameters first, or make the plan on one rank and give it to the others",
    ),
    Code(
        "GP509",
        "bad artifact",
        "The folder is no artifact as graphprune build wrote it: a file is missing or differs from what the manifest "
        "says, or the manifest is damaged. An artifact is code, so nothing of it is loaded unless all is as written.",
        "copy the folder again as a whole, or build the model again",
    ),
    Code(
        "GP510",
        "an artifact of another version",
        "The artifact has a newer schema, or its libraries were built for another minor version of TVM than the "
        "runtime here has. Where the two do not agree on how a function is called, that ends in a crash.",
        "build the model again with the versions that are installed here, or install those that built it",
    ),
    Code(
        "GP511",
        "the artifact does not run on this machine",
        "An artifact holds the network once for each kind of processor that it was built for. This one has the "
        "features of none of them, or not of the one that was asked for; running it would be an illegal instruction.",
        "build with --variants v1, which runs on every x86-64 processor, or for the machine at hand",
    ),
    Code(
        "GP512",
        "the inputs do not fit the network",
        "A built network takes inputs of the names, data types and shapes that were fixed when it was built. Nothing "
        "is converted or reshaped silently, because a wrong guess would give an answer that looks right.",
        "give what graphprune run lists, or build it for other shapes with --shape",
    ),
    Code(
        "GP513",
        "the network failed while running",
        "The library reported an error, or a step that onnxruntime runs failed. The outputs of this call are not to be "
        "used; the session can be.",
        "if the message does not tell why, report it with the model",
    ),
    Code(
        "GP514",
        "not a table of latencies",
        "The file is not what --latency-table writes, or is damaged: it is not JSON, or lacks a field, or holds a time "
        "that is none.",
        "correct the named place, or delete the file and have it measured again",
    ),
    Code(
        "GP515",
        "times are missing in the table",
        "The table of latencies was measured on another machine, with another runtime or number of threads, and lacks "
        "times that this plan needs. Measuring them here would mix two machines in one table.",
        "make the table on the machine that it is of, with the same model and options, or name a new file",
    ),
)
