"""`graphprune finetune`: a module trained on within a budget, from a checkpoint or weights to others."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from graphprune.cli import EXIT_INTERRUPTED
from graphprune.cli.options import Output, _option, taking
from graphprune.cli.source import Module, is_callable, module_of
from graphprune.errors import GraphPruneError
from graphprune.output import Outputs

_STATE = ".training"
_NAMED = "module:callable"
_LONG: dict[str, Any] = {"rich_help_panel": "How long"}
_DATA: dict[str, Any] = {"rich_help_panel": "Data"}
_TEACH: dict[str, Any] = {"rich_help_panel": "What to learn"}
_WHAT: dict[str, Any] = {"rich_help_panel": "What to train"}
_STEP: dict[str, Any] = {"rich_help_panel": "Steps"}


@dataclass(frozen=True)
class Training:
    """The arguments of `graphprune.finetune`."""

    data: Annotated[
        str | None,
        _option("--data", help="Makes training data: tensors, a DataLoader, batches.", metavar=_NAMED, **_DATA),
    ] = None
    batch: Annotated[int, _option("--batch", help="Samples of a batch.", min=1, show_default=True, **_DATA)] = 128
    augment: Annotated[
        str | None, _option("--augment", help="A function of a training batch.", metavar=_NAMED, **_DATA)
    ] = None
    validate: Annotated[
        str | None, _option("--validate", help="Makes data that is not trained with.", metavar=_NAMED, **_DATA)
    ] = None
    metric: Annotated[
        str, _option("--metric", help="accuracy, loss, or module:function.", show_default=True, **_DATA)
    ] = "accuracy"
    epochs: Annotated[int | None, _option("--epochs", help="Passes over the data.", **_LONG)] = None
    steps: Annotated[int | None, _option("--steps", help="Batches.", **_LONG)] = None
    minutes: Annotated[float | None, _option("--minutes", help="By the clock.", **_LONG)] = None
    patience: Annotated[
        int | None, _option("--patience", help="Validations without a better one before it ends.", **_LONG)
    ] = None
    loss: Annotated[
        str,
        _option(
            "--loss", help="cross_entropy, mse, module:function; or none: the teacher.", show_default=True, **_TEACH
        ),
    ] = "cross_entropy"
    distill: Annotated[
        float | None, _option("--distill", help="Share of the loss that is the teacher's: 0.9.", **_TEACH)
    ] = None
    temperature: Annotated[float, _option("--temperature", help="Of distillation.", show_default=True, **_TEACH)] = 4.0
    features: Annotated[
        list[str],
        _option(
            "--features",
            help="A module whose outputs are to be the teacher's (repeatable).",
            metavar="MODULE",
            **_TEACH,
        ),
    ] = field(default_factory=list)
    mix: Annotated[
        str | None,
        _option("--mix", help="Mixes half of the batches: mixup, cutmix, commas; with --loss none.", **_TEACH),
    ] = None
    train: Annotated[
        str,
        _option(
            "--train", help="all, norms, biases, head, lora, patterns of names; commas.", show_default=True, **_WHAT
        ),
    ] = "all"
    rank: Annotated[int, _option("--rank", help="Of lora.", min=1, show_default=True, **_WHAT)] = 8
    keep_zeros: Annotated[bool, _option("--keep-zeros", help="Zeros among the weights stay zero.", **_WHAT)] = False
    sparsity: Annotated[
        float | None,
        _option("--sparsity", help="Zeros grow to this share of the weights (gradual pruning).", **_WHAT),
    ] = None
    format: Annotated[
        str, _option("--format", help="Of these zeros: see graphprune formats.", show_default=True, **_WHAT)
    ] = "unstructured"
    zeros_by: Annotated[
        str, _option("--zeros-by", help="Which weights go: magnitude or movement.", show_default=True, **_WHAT)
    ] = "magnitude"
    batch_norm: Annotated[
        str, _option("--batch-norm", help="update or freeze its statistics.", show_default=True, **_WHAT)
    ] = "update"
    optimizer: Annotated[str, _option("--optimizer", help="sgd or adamw.", show_default=True, **_STEP)] = "sgd"
    rate: Annotated[float | None, _option("--rate", help="Learning rate: 0.01, adamw 0.0001.", **_STEP)] = None
    weight_decay: Annotated[float, _option("--weight-decay", help="Of weights.", show_default=True, **_STEP)] = 5e-4
    clip: Annotated[float | None, _option("--clip", help="Longest gradient.", **_STEP)] = None
    schedule: Annotated[
        str, _option("--schedule", help="cosine, linear, one_cycle, step, constant.", show_default=True, **_STEP)
    ] = "cosine"
    rewind: Annotated[float | None, _option("--rewind", help="Replay it from this share on.", **_STEP)] = None
    precision: Annotated[str | None, _option("--precision", help="bfloat16 for autocast.", **_STEP)] = None
    seed: Annotated[int, _option("--seed", help="Seed of everything random.", min=0, show_default=True, **_STEP)] = 0

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of `graphprune.finetune`. Raises GraphPruneError GP107 where there is no data."""
        if self.data is None:
            remedy = "add --data package.module:callable; it returns batches of (inputs, labels), or whole tensors"
            raise GraphPruneError("GP107", "there is no data to train with", "option --data", remedy)
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**found, "loss": None if self.loss == "none" else self.loss}


@dataclass(frozen=True)
class Teacher:
    """Who teaches."""

    teacher: Annotated[
        str | None, _option("--teacher", help="Makes the teacher, such as the dense model.", metavar=_NAMED, **_TEACH)
    ] = None
    teacher_weights: Annotated[
        Path | None, _option("--teacher-weights", help="Its weights (.safetensors, or a folder).", **_TEACH)
    ] = None

    def made(self) -> Any:
        """The teacher, if there is one. Raises GraphPruneError as for the model."""
        if self.teacher is None:
            if self.teacher_weights is not None:
                what = "--teacher-weights are of a teacher, and there is none"
                raise GraphPruneError("GP107", what, "", "add --teacher package.module:callable")
            return None
        return module_of(self.teacher, self.teacher_weights)


@taking
def finetune(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="What makes the model: module:callable.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A folder as of gp.save, or .safetensors.", show_default=False)
    ],
    training: Training,
    teacher: Teacher,
    module: Module,
    output: Output,
    resume: Annotated[bool, _option("--resume", help="Go on after an interrupt.")] = False,
) -> int:
    """Train a pruned module on within a budget (whichever of its limits ends first), and write it.

    The state is written to OUT.training every minute and on an interrupt; the same command goes on with --resume.

    graphprune finetune mypkg.models:resnet tuned --weights small --data mypkg.data:train --minutes 10
    graphprune finetune mypkg.models:resnet tuned --weights small --data mypkg.data:train --epochs 3 \\
    --teacher mypkg.models:resnet --teacher-weights dense.safetensors --validate mypkg.data:held
    """
    arguments = training.arguments()
    console = output.console
    _check(model, out)
    with console.working("reading"):
        student, guide = module_of(str(model), module.weights, module.input, training.seed), teacher.made()
    from graphprune.torch.training.run import finetune as run

    state = out.with_name(f"{out.name}{_STATE}")
    try:
        result = run(student, **arguments, teacher=guide, checkpoint=state, resume=resume, tell=console.say)
    except KeyboardInterrupt:
        console.say("the same command goes on with --resume")
        raise SystemExit(EXIT_INTERRUPTED) from None
    with console.working("writing"):
        _write(result.model, out)
    _forget(state)
    console.show(f"{result.to_text()}\nwrote {out}", {**result.to_dict(), "written": [str(out)]})
    return 0


def _check(model: Path, out: Path) -> None:
    """Find out early what would go wrong. Raises GraphPruneError: GP101, GP103, GP105, GP107."""
    if not is_callable(model):
        if not model.exists() and ":" not in str(model):
            raise GraphPruneError("GP101", "there is no such file", str(model), "write it as package.module:callable")
        what = "a file holds no network that can be trained here"
        remedy = "write package.module:callable for what makes it, and give its weights with --weights"
        raise GraphPruneError("GP103", what, str(model), remedy)
    if out.suffix.lower() not in {"", ".safetensors"} and not out.is_dir():
        what = f"a trained module is not written as {out.suffix}"
        raise GraphPruneError("GP107", what, "argument OUT", "write a name without a suffix, or with .safetensors")
    with Outputs(out.with_name(f"{out.name}{_STATE}.json")):
        pass  # that the place can be written is worth knowing before the work


def _write(model: Any, out: Path) -> None:
    from graphprune.torch import save, weights

    if out.suffix.lower() != ".safetensors":
        save(model, out)
        return
    with Outputs(out) as outputs:
        destination = outputs.destination
        weights.write(outputs.path(destination.name).parent, destination.stem, model.state_dict(), 1 << 62)
        outputs.commit([f"{destination.stem}.safetensors"])


def _forget(state: Path) -> None:
    """Remove the state of a training that is done."""
    for each in state.iterdir():
        os.unlink(each)
    state.rmdir()
