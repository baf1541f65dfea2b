"""GP1xx: input and usage."""

from graphprune.codes.code import Code

ROWS = (
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
)
