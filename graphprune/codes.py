"""The code of every refusal, failure and note, with the text that `graphprune explain GP204` prints.

To add one, add a row to _ROWS, in order; nothing else needs to know. A code is never reused for another meaning.
Imports nothing but the standard library.
"""

from dataclasses import dataclass

FAMILIES = {
    "GP1": "input and usage",
    "GP2": "why a dimension is not pruned",
    "GP3": "budgets and results",
    "GP4": "verification",
    "GP5": "plans, checkpoints and artifacts",
    "GP6": "torch.compile",
    "GP7": "calibration and recovery",
    "GP8": "sparsity and builds",
    "GP9": "internal",
}
"""What the codes that begin so are about."""


@dataclass(frozen=True)
class Code:
    """What one code means.

    title:  a few words, as a heading
    text:   what it means and why graphprune does it, for someone who meets it the first time
    remedy: what to do about it; the last line of an error that brings no better one
    """

    code: str
    title: str
    text: str
    remedy: str

    @property
    def family(self) -> str:
        """What codes of this kind are about, such as "input and usage"."""
        return FAMILIES[self.code[:3]]


_ROWS = (
    Code(
        "GP101",
        "file not found or unreadable",
        "A file that was named does not exist, is a folder, or may not be read by this user. For an ONNX model with "
        "external data this includes the files beside it that hold the weights.",
        "check the path and its permissions; keep the files of a model with external data together",
    ),
    Code(
        "GP102",
        "not a valid model",
        "The file was read but is not a model that can be understood: it is cut off, damaged, of another format, or "
        "breaks the rules of its format (a value that nothing produces, a cycle, a tensor whose data does not fit "
        "its shape). Nothing is guessed from a damaged model, because a wrong guess would give a model that runs and "
        "is wrong.",
        "export the model again, or run onnx.checker.check_model on it for the details",
    ),
    Code(
        "GP103",
        "unsupported feature of the input",
        "The model is valid but uses a feature of its format that graphprune does not read, so it cannot be written "
        "back unchanged either. An operator that merely has no rule does not lead here: its dimensions are kept "
        "(GP203) and the rest of the model is pruned.",
        "export the model without this feature",
    ),
    Code(
        "GP104",
        "output would overwrite an input",
        "The output path is the input model itself, or a file that holds its weights. The dense model is what a "
        "pruned one is checked against, and is often the only copy.",
        "choose another output path, or ask for overwriting",
    ),
    Code(
        "GP105",
        "cannot write the output",
        "The output could not be written: its folder does not exist, the disk is full, the path may not be written "
        "to, or the format cannot hold the model. Files are written beside their destination and moved when "
        "complete, so no partial file is left and an older file at that path is untouched.",
        "check the folder, its permissions and the space left on the disk",
    ),
    Code(
        "GP106",
        "unknown option or name",
        "An option, pass, target, criterion, code, tensor or group was named that does not exist. Nothing is ignored "
        "silently: a misspelt tensor among those to be left alone would be pruned.",
        "use one of the names that are listed",
    ),
    Code(
        "GP107",
        "value out of range or of the wrong kind",
        "An option was given a value that it cannot take: a word where a number is needed, a share outside 0 to 1, a "
        "width below 1, or two options that contradict each other.",
        "give a value in the range that is named",
    ),
    Code(
        "GP108",
        "an optional package is missing",
        "What was asked for needs a package that is not part of a plain installation, because it is large or because "
        "few need it.",
        "install graphprune with the extra that is named, for example graphprune[ort]",
    ),
    Code(
        "GP109",
        "model too large or hostile",
        "The model asks for more than a limit allows: memory, nesting, the number of elements of a tensor, the "
        "length of a name. Or it points outside its own folder, as an external-data path with '..' does. A model "
        "file may come from anywhere, and reading one must neither exhaust the machine nor open other files.",
        "check where the file comes from; if it is yours, export it with its data beside it",
    ),
    Code(
        "GP110",
        "two packages claim one name",
        "Two installed packages register the same name for a pass, target, dialect or criterion, or one registers a "
        "built-in name. Which one was meant cannot be known, and the order of installation must not decide.",
        "uninstall one of the packages, or ask its author for another name",
    ),
    Code(
        "GP111",
        "a registered object cannot be loaded",
        "A name is registered, but importing what it stands for failed: the module is missing or broken, needs a "
        "package that is not installed, or was written for another version of graphprune.",
        "update or uninstall the package that registers it",
    ),
    Code(
        "GP112",
        "the model cannot be captured",
        "torch.export runs the model once on the example inputs to write down its graph, and stopped: the inputs are "
        "not what forward takes, its code branches on the values of tensors, or it leaves PyTorch on the way. The line "
        "of the model's code where it stopped is named where it is known.",
        "check the example inputs; use torch.cond for branches on data, or prune the parts that can be captured",
    ),
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
    Code(
        "GP501",
        "the plan does not fit the model",
        "A plan names what is kept of each group by tensor and axis. The model has no such tensor, its axis has "
        "another size, or the dimensions are tied in another way than when the plan was made. Applying it in part "
        "would break the couplings, so it is not applied at all.",
        "apply it to the model it was made for, or make a new plan",
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
    Code(
        "GP701",
        "no calibration data",
        "Statistics of activations, and what is computed from them, need at least one batch of inputs. There was none: "
        "the source is empty, or it is a generator that was already read to its end.",
        "give a list, or something else that can be read again; or no data at all, for noise of the right shapes",
    ),
    Code(
        "GP702",
        "calibration data does not fit the model",
        "An input has a name, a number of axes, a size or a data type that the model does not take, or a file does "
        "not hold what its kind says. Nothing is converted silently: statistics of the wrong data would look right.",
        "compare it with the inputs that graphprune inspect lists",
    ),
    Code(
        "GP703",
        "statistics that are not finite",
        "An activation or a gradient has entries that are infinite or not a number. Scores and updates computed from "
        "them would be, too, so nothing is computed.",
        "look for bad inputs, or for overflow in half precision",
    ),
    Code(
        "GP704",
        "the criterion cannot be computed here",
        "Some criteria need more than weights: activations, labels, a loss, or gradients, which only PyTorch computes. "
        "What is missing is named; another criterion is not taken in its place.",
        "give what is missing, or choose another criterion: graphprune criteria lists what each one needs",
    ),
    Code(
        "GP705",
        "recovery left this layer as it was",
        "An update in closed form is applied only where it lowers the error of the layer on calibration data that it "
        "was not computed from. Here it did not, or the layer has no weight of its own that could be written: it is "
        "shared, quantised, or computed.",
        "more calibration data may help; nothing has to be done",
    ),
    Code(
        "GP706",
        "two layers were not fitted together",
        "Gauss-Newton steps follow what a layer computes through a BatchNorm and an activation into the next layer. "
        "That takes functions whose slopes are known, a result that nothing else reads, and weights of their own. "
        "Here one of these is missing, and each of the two was fitted by itself, by least squares.",
        "nothing has to be done; the operator that stands in the way is named",
    ),
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

CODES = {row.code: row for row in _ROWS}
"""Every code with its meaning, in order."""
